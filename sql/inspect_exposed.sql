-- Who of the API's roles may call the functions of the original migration that return the worker's address and secret.
select
    pg_catalog.format('%I.%I()', n.nspname, p.proname),
    pg_catalog.array_agg(coalesce(r.rolname, 'public')::pg_catalog.text order by r.rolname nulls first)
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
cross join lateral pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
left join pg_catalog.pg_roles r on r.oid = a.grantee
where n.nspname = 'public' and p.prokind = 'f' and p.pronargs = 0
    and p.proname in ('get_libsql_sync_url', 'get_libsql_webhook_signature')
    and a.privilege_type = 'EXECUTE' and (a.grantee = 0 or r.rolname in ('anon', 'authenticated'))
group by 1
order by 1
