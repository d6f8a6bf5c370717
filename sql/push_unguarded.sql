-- Those of these tables ($1 schemas, $2 names) whose policies do not count for the current role: row-level security is off,
-- or it owns them.
select pg_catalog.format('%I.%I', n.nspname, c.relname)
from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) as w(schema, name)
join pg_catalog.pg_namespace n on n.nspname::pg_catalog.text operator(pg_catalog.=) w.schema
join pg_catalog.pg_class c on c.relnamespace operator(pg_catalog.=) n.oid
    and c.relname::pg_catalog.text operator(pg_catalog.=) w.name
where not pg_catalog.row_security_active(c.oid)
