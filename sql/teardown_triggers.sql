-- The triggers that run this queue's functions. $1 the prefix of the functions' names.
select n.nspname::pg_catalog.text, c.relname::pg_catalog.text, pg_catalog.array_agg(t.tgname::pg_catalog.text order by t.tgname),
    -- another queue may still capture this table
    not exists (select from pg_catalog.pg_trigger o join pg_catalog.pg_proc q on q.oid = o.tgfoid
        where o.tgrelid = c.oid and q.pronamespace = p.pronamespace and not pg_catalog.starts_with(q.proname, $1))
from pg_catalog.pg_trigger t
join pg_catalog.pg_proc p on p.oid = t.tgfoid
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.pronamespace = pg_catalog.to_regnamespace('pgflume') and pg_catalog.starts_with(p.proname, $1) and t.tgparentid = 0
group by n.nspname, c.relname, c.oid, p.pronamespace
-- a partitioned table before its partitions
order by c.relkind <> 'p', 1, 2
