-- The columns of a table with their types under all domains. $1 the table's oid.
with recursive types as (
    select a.attnum, a.attname, a.attnotnull, a.atttypid as oid
    from pg_catalog.pg_attribute a
    where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
    union all
    select types.attnum, types.attname, types.attnotnull, t.typbasetype
    from types join pg_catalog.pg_type t on t.oid = types.oid
    where t.typtype = 'd'
)
select
    c.attname::pg_catalog.text,
    c.attnotnull,
    a.attgenerated::pg_catalog.text = 'v',
    case when coalesce(e.typnamespace, t.typnamespace) = 'pg_catalog'::pg_catalog.regnamespace then coalesce(e.typname, t.typname)::pg_catalog.text end,
    e.oid is not null,
    -- the comparisons of enums do not take a domain over one
    t.typtype::pg_catalog.text = 'e' and a.atttypid = t.oid,
    -- those that have the same number on every server
    case when a.atttypid < 10000 then a.atttypid end,
    t.typtype::pg_catalog.text = 'e' and a.atttypid <> t.oid
from types c
join pg_catalog.pg_attribute a on a.attrelid = $1 and a.attnum = c.attnum
join pg_catalog.pg_type t on t.oid = c.oid and t.typtype <> 'd'
-- true arrays only: name and point are subscriptable too
left join pg_catalog.pg_type e on e.oid = t.typelem and t.typcategory = 'A'
order by c.attnum
