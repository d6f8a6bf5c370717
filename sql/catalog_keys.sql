-- The sets of NOT NULL columns that identify a row of the replicated tables, in the order of their index.
-- $1 the tables' names in schema.json, $2 schemas, $3 tables.
select w.name, k.columns
from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[])) as w(name, schema, source)
join pg_catalog.pg_namespace n on n.nspname = w.schema
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.source
join pg_catalog.pg_index i on i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
cross join lateral (
    select pg_catalog.array_agg(a.attname::pg_catalog.text order by u.place) as columns, pg_catalog.bool_and(a.attnotnull) as is_key
    from pg_catalog.unnest(i.indkey[0:i.indnkeyatts - 1]) with ordinality as u(attnum, place)
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.attnum) k
where k.is_key
order by w.name, i.indisprimary desc, i.indexrelid
