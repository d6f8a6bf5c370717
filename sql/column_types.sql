-- The columns of tables with their types under all domains, an array's elements included. $1 the tables' oids.
with recursive domains as (
    select t.oid, t.typbasetype as base, t.typtypmod as mod from pg_catalog.pg_type t where t.typtype = 'd'
    union all
    select domains.oid, t.typbasetype, case when domains.mod = -1 then t.typtypmod else domains.mod end
    from domains join pg_catalog.pg_type t on t.oid = domains.base
    where t.typtype = 'd'
), bases as (
    select domains.oid, domains.base, domains.mod from domains join pg_catalog.pg_type t on t.oid = domains.base where t.typtype <> 'd'
)
select
    a.attrelid,
    a.attname::pg_catalog.text,
    a.attnotnull,
    coalesce(e.typname, t.typname)::pg_catalog.text,
    coalesce(e.typtype, t.typtype)::pg_catalog.text,
    coalesce(e.typnamespace, t.typnamespace) = 'pg_catalog'::pg_catalog.regnamespace,
    e.oid is not null,
    case when t.typname = 'numeric' and n.mod >= 4 then ((n.mod - 4) >> 16) & 65535 end,
    case when t.typname = 'numeric' and n.mod >= 4 then (((n.mod - 4) & 2047) # 1024) - 1024 end
from pg_catalog.pg_attribute a
left join bases b on b.oid = a.atttypid
join pg_catalog.pg_type t on t.oid = coalesce(b.base, a.atttypid)
-- true arrays only: name, point and int2vector are subscriptable too
left join pg_catalog.pg_type d on d.typarray = t.oid
left join bases eb on eb.oid = d.oid
left join pg_catalog.pg_type e on e.oid = coalesce(eb.base, d.oid)
-- as numeric.c packs them
cross join lateral (select case when a.atttypmod = -1 then coalesce(b.mod, -1) else a.atttypmod end as mod) n
where a.attrelid = any ($1) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum
