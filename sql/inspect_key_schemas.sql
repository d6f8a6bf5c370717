-- The schemas that a key's types and their operators are named by, and whether the worker's role may use each or
-- can be allowed to by who asks. $1 the table's oid, $2 the key's columns.
with recursive types(oid) as (
    select a.atttypid
    from pg_catalog.pg_attribute a
    where a.attrelid = $1 and a.attname = any ($2::pg_catalog.text[]) and not a.attisdropped
    union
    select below.oid
    from types
    join pg_catalog.pg_type t on t.oid = types.oid
    cross join lateral (
        select t.typbasetype where t.typtype = 'd'
        union all
        select t.typelem where t.typelem <> 0 and t.typcategory = 'A'
    ) below(oid)
), named(schema) as (
    select t.typnamespace from types join pg_catalog.pg_type t on t.oid = types.oid
    union
    select o.oprnamespace
    from types
    join pg_catalog.pg_opclass c on c.opcintype = types.oid and c.opcdefault
    join pg_catalog.pg_amop p on p.amopfamily = c.opcfamily and p.amoplefttype = c.opcintype and p.amoprighttype = c.opcintype
    join pg_catalog.pg_operator o on o.oid = p.amopopr
)
select n.nspname::pg_catalog.text,
       pg_catalog.pg_has_role(n.nspowner, 'usage')
           or pg_catalog.has_schema_privilege(n.oid, 'usage with grant option')
           or coalesce((select pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage') from pg_catalog.pg_roles r
                        where r.rolname = 'pgflume_worker'), false)
from named
join pg_catalog.pg_namespace n on n.oid = named.schema
where n.nspname not in ('pg_catalog', 'information_schema')
order by 1
