-- Those of the tables $1 that other sessions have locked against readers, or wait to: themselves, one of their
-- partitions, or an index of either.
select distinct t.oid
from pg_catalog.unnest($1::pg_catalog.oid[]) as t(oid)
cross join lateral (
    select t.oid as part
    union all
    select p.relid from pg_catalog.pg_partition_tree(t.oid) p) parts
join (
    select l.relation, coalesce(i.indrelid, l.relation) as owner
    from pg_catalog.pg_locks l
    left join pg_catalog.pg_index i on i.indexrelid = l.relation
    where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock' and l.pid <> pg_catalog.pg_backend_pid()
        and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())) held
    on held.owner = parts.part
