-- Whether a request may run as the role $1: the login was granted it, and it can be nobody who is above row-level security,
-- nor one of ours or of Postgres' own.
select exists (
    select from pg_catalog.pg_roles r
    where r.rolname::pg_catalog.text operator(pg_catalog.=) $1
        and pg_catalog.pg_has_role(session_user, r.oid, 'member')
        and not exists (
            select from pg_catalog.pg_roles p
            where pg_catalog.pg_has_role(r.oid, p.oid, 'member')
                and (p.rolsuper or p.rolbypassrls or p.rolcreaterole or p.rolreplication
                    or pg_catalog.starts_with(p.rolname::pg_catalog.text, 'pgflume_')
                    or pg_catalog.starts_with(p.rolname::pg_catalog.text, 'pg_'))))
