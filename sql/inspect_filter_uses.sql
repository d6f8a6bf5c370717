-- What the predicate of the probe's only index calls and names beside Postgres' own: schema, function (none for a
-- type), what to grant the worker's role so that it may call it; and whether who asks can open the schema, and the
-- function, to that role.
with recursive uses(class, oid) as (
    select d.refclassid, d.refobjid
    from pg_catalog.pg_depend d
    join pg_catalog.pg_index i on i.indexrelid = d.objid
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and i.indrelid = 'pg_temp.pgflume_probe'::pg_catalog.regclass
    union
    select below.class, below.oid
    from uses
    cross join lateral (
        select 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid, o.oprcode::pg_catalog.oid
        from pg_catalog.pg_operator o
        where uses.class = 'pg_catalog.pg_operator'::pg_catalog.regclass and o.oid = uses.oid
        union all
        -- a function whose body is parsed when it is made
        select d.refclassid, d.refobjid
        from pg_catalog.pg_depend d
        where uses.class = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.classid = uses.class and d.objid = uses.oid
            and d.refclassid = d.classid
    ) below(class, oid)
)
select distinct n.nspname::pg_catalog.text, p.proname::pg_catalog.text,
       case when not pg_catalog.has_function_privilege('public', p.oid, 'execute')
            then p.oid::pg_catalog.regprocedure::pg_catalog.text end,
       pg_catalog.pg_has_role(n.nspowner, 'usage')
           or pg_catalog.has_schema_privilege(n.oid, 'usage with grant option')
           or coalesce((select pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage') from pg_catalog.pg_roles r
                        where r.rolname = 'pgflume_worker'), false),
       coalesce(pg_catalog.pg_has_role(p.proowner, 'usage'), true)
from uses
left join pg_catalog.pg_proc p on uses.class = 'pg_catalog.pg_proc'::pg_catalog.regclass and p.oid = uses.oid
left join pg_catalog.pg_type t on uses.class = 'pg_catalog.pg_type'::pg_catalog.regclass and t.oid = uses.oid
left join pg_catalog.pg_operator o on uses.class = 'pg_catalog.pg_operator'::pg_catalog.regclass and o.oid = uses.oid
join pg_catalog.pg_namespace n on n.oid = coalesce(p.pronamespace, t.typnamespace, o.oprnamespace)
where n.nspname not in ('pg_catalog', 'information_schema')
order by 1, 2
