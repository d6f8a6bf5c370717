-- Who of the API's roles may call the functions of the original migration that return the worker's address and secret,
-- whichever way.
select f.function, pg_catalog.array_agg(g.name order by g.name = 'public' desc, g.name)
from (
    select
        p.oid,
        pg_catalog.format('%I.%I()', n.nspname, p.proname) as function,
        coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) as acl
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'public' and p.prokind = 'f' and p.pronargs = 0
        and p.proname in ('get_libsql_sync_url', 'get_libsql_webhook_signature')
) f
cross join lateral (
    select 'public'::pg_catalog.text
    where exists (select from pg_catalog.aclexplode(f.acl) a where a.grantee = 0 and a.privilege_type = 'EXECUTE')
    union all
    select r.rolname::pg_catalog.text from pg_catalog.pg_roles r
    where r.rolname in ('anon', 'authenticated') and pg_catalog.has_function_privilege(r.oid, f.oid, 'execute')
) g(name)
group by f.function
order by f.function
