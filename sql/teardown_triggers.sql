-- The triggers that run this queue's functions. $1 the prefix of the functions' names.
select n.nspname::text, c.relname::text, array_agg(t.tgname::text order by t.tgname),
    -- another queue may still capture this table
    not exists (select from pg_trigger o join pg_proc q on q.oid = o.tgfoid
        where o.tgrelid = c.oid and q.pronamespace = p.pronamespace and not starts_with(q.proname, $1))
from pg_trigger t
join pg_proc p on p.oid = t.tgfoid
join pg_class c on c.oid = t.tgrelid
join pg_namespace n on n.oid = c.relnamespace
where p.pronamespace = to_regnamespace('pgflume') and starts_with(p.proname, $1) and t.tgparentid = 0
group by n.nspname, c.relname, c.oid, p.pronamespace
-- a partitioned table before its partitions
order by c.relkind <> 'p', 1, 2
