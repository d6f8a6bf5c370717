-- What the login is: above its users; with rights of other roles at once; whether there is a journal; whether it may write it.
select
    r.rolsuper or r.rolbypassrls or r.rolcreaterole or r.rolreplication,
    exists (select from pg_catalog.pg_roles o
            where o.oid operator(pg_catalog.<>) r.oid and pg_catalog.pg_has_role(r.oid, o.oid, 'usage')),
    exists (select from pg_catalog.pg_roles p where p.rolname operator(pg_catalog.=) 'pgflume_push')
        and exists (select from pg_catalog.pg_class c
                    join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
                    where n.nspname operator(pg_catalog.=) 'pgflume' and c.relname operator(pg_catalog.=) 'pushes'),
    exists (select from pg_catalog.pg_roles p
            where p.rolname operator(pg_catalog.=) 'pgflume_push' and pg_catalog.pg_has_role(r.oid, p.oid, 'member'))
from pg_catalog.pg_roles r
where r.rolname operator(pg_catalog.=) session_user
