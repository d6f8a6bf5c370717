-- Our triggers, and those of the original migration, on these tables. $1 the tables' oids, $2 our triggers' names.
select
    c.nspname::pg_catalog.text,
    r.relname::pg_catalog.text,
    t.tgname::pg_catalog.text,
    t.tgenabled::pg_catalog.text,
    pn.nspname::pg_catalog.text,
    p.proname::pg_catalog.text,
    pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(p.prosrc, 'UTF8')), 'hex'),
    coalesce(p.proconfig, '{}'),
    p.prosecdef and pg_catalog.pg_get_userbyid(p.proowner) = 'pgflume_capture'
        -- for every change: row 1, insert 4, delete 8, update 16, truncate 32
        and t.tgqual is null and pg_catalog.cardinality(t.tgattr::pg_catalog.int2[]) = 0
        and t.tgtype = case pg_catalog.substring(t.tgname::pg_catalog.text, '[a-z]+$')
            when 'insert' then 4 when 'delete' then 8 when 'update' then 16 when 'truncate' then 32 when 'row' then 29 end,
    t.tgparentid <> 0
from pg_catalog.pg_trigger t
join pg_catalog.pg_class r on r.oid = t.tgrelid
join pg_catalog.pg_namespace c on c.oid = r.relnamespace
join pg_catalog.pg_proc p on p.oid = t.tgfoid
join pg_catalog.pg_namespace pn on pn.oid = p.pronamespace
where t.tgrelid = any ($1)
    and (t.tgname = any ($2)
        or p.proname = 'trigger_http_queue_post_to_function_libsql' and pn.nspname <> 'pgflume' and t.tgparentid = 0)
order by 1, 2, 3
