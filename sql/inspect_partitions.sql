-- All partitions of a partitioned table, of all levels. $1 the table's oid.
select c.oid, n.nspname::text, c.relname::text
from pg_partition_tree($1) p
join pg_class c on c.oid = p.relid
join pg_namespace n on n.oid = c.relnamespace
where p.level > 0
order by n.nspname, c.relname
