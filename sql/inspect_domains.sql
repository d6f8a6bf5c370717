-- Columns of the table $1 whose type takes no null by itself.
with recursive types as (
    select a.attname, a.attnum, a.atttypid as oid
    from pg_catalog.pg_attribute a
    where a.attrelid operator(pg_catalog.=) $1 and a.attnum operator(pg_catalog.>) 0 and not a.attisdropped
    union all
    select types.attname, types.attnum, t.typbasetype
    from types join pg_catalog.pg_type t on t.oid operator(pg_catalog.=) types.oid
    where t.typtype operator(pg_catalog.=) 'd'
)
select types.attname::pg_catalog.text
from types join pg_catalog.pg_type t on t.oid operator(pg_catalog.=) types.oid
where t.typtype operator(pg_catalog.=) 'd' and t.typnotnull
group by types.attname, types.attnum
order by types.attnum
