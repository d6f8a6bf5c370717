-- A source table. $1 schema, $2 table.
select
    c.oid,
    c.relkind::pg_catalog.text,
    c.relpersistence::pg_catalog.text,
    c.relispartition or exists (select from pg_catalog.pg_inherits i where i.inhrelid = c.oid),
    c.relkind <> 'p' and exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid),
    c.relrowsecurity,
    pg_catalog.pg_has_role(c.relowner, 'usage'),
    pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text,
    exists (select from pg_catalog.pg_subscription_rel s where s.srrelid = c.oid)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2
