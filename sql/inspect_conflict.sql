-- The function $1.$2 of a custom conflict, where there is one of that form.
select from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) p.pronamespace
where n.nspname::pg_catalog.text operator(pg_catalog.=) $1 and p.proname::pg_catalog.text operator(pg_catalog.=) $2
    and p.prokind operator(pg_catalog.=) 'f' and not p.proretset
    and p.pronargs operator(pg_catalog.=) 3
    and p.proargtypes[0] operator(pg_catalog.=) 'pg_catalog.jsonb'::pg_catalog.regtype::pg_catalog.oid
    and p.proargtypes[1] operator(pg_catalog.=) 'pg_catalog.jsonb'::pg_catalog.regtype::pg_catalog.oid
    and p.proargtypes[2] operator(pg_catalog.=) 'pg_catalog.jsonb'::pg_catalog.regtype::pg_catalog.oid
    and p.prorettype operator(pg_catalog.=) 'pg_catalog.jsonb'::pg_catalog.regtype::pg_catalog.oid
