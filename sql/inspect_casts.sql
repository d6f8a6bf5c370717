-- Columns whose values would be written by somebody's own function: a cast to text of the column's type, or one to
-- JSON of any type inside. Those of an extension are trusted as the owner of the function is. $1 the tables' oids.
with recursive casts as materialized (
    select k.castsource, k.casttarget
    from pg_catalog.pg_cast k
    join pg_catalog.pg_proc p on p.oid = k.castfunc and p.oid >= 16384
    where k.casttarget in ('pg_catalog.text'::pg_catalog.regtype, 'pg_catalog.json'::pg_catalog.regtype, 'pg_catalog.jsonb'::pg_catalog.regtype)
        and not exists (
            select from pg_catalog.pg_depend d
            join pg_catalog.pg_extension e on e.oid = d.refobjid
            where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid
                and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.deptype = 'e'
                and exists (
                    -- whoever owns an extension may add functions of his own to it
                    select from pg_catalog.pg_roles r
                    cross join (select m.rolsuper from pg_catalog.pg_roles m where m.rolname = current_user) me
                    where r.oid = p.proowner and (r.rolsuper or r.rolname = current_user
                        or (not me.rolsuper and pg_catalog.pg_has_role(r.oid, 'usage')))))
), types(attrelid, attname, oid, is_inside) as (
    select a.attrelid, a.attname, a.atttypid, false
    from pg_catalog.pg_attribute a
    where exists (select from casts) and a.attrelid = any ($1) and a.attnum > 0 and not a.attisdropped
    union
    select types.attrelid, types.attname, below.oid, below.is_inside
    from types
    join pg_catalog.pg_type t on t.oid = types.oid
    cross join lateral (
        select t.typbasetype, types.is_inside where t.typtype = 'd'
        union all
        select t.typelem, true where t.typelem <> 0 and t.typcategory = 'A'
        union all
        select f.atttypid, true from pg_catalog.pg_attribute f
        where t.typtype = 'c' and f.attrelid = t.typrelid and f.attnum > 0 and not f.attisdropped
    ) below(oid, is_inside)
)
select distinct types.attrelid, types.attname::pg_catalog.text,
       pg_catalog.format('%I.%I', n.nspname, t.typname),
       pg_catalog.format_type(casts.casttarget, -1)
from types
join casts on casts.castsource = types.oid
join pg_catalog.pg_type t on t.oid = casts.castsource
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
where casts.casttarget <> 'pg_catalog.text'::pg_catalog.regtype or not types.is_inside
order by 1, 2, 3, 4
