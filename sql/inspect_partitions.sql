-- All partitions of a partitioned table, of all levels. $1 the table's oid.
select c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text
from pg_catalog.pg_partition_tree($1) p
join pg_catalog.pg_class c on c.oid = p.relid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.level > 0
order by n.nspname, c.relname
