-- Everything that rows could come from, outside of Postgres' own schemas: public first, then by name.
select
    c.oid,
    n.nspname::pg_catalog.text,
    c.relname::pg_catalog.text,
    c.relkind::pg_catalog.text,
    c.relpersistence::pg_catalog.text,
    (select p.inhparent from pg_catalog.pg_inherits p where c.relispartition and p.inhrelid = c.oid limit 1),
    c.relkind <> 'p' and exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid),
    (select x.extname::pg_catalog.text
        from pg_catalog.pg_depend d join pg_catalog.pg_extension x on x.oid = d.refobjid
        where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e'
            and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass limit 1),
    case when not pg_catalog.pg_has_role(c.relowner, 'usage') then pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text end,
    exists (select from pg_catalog.pg_roles where rolname = 'supabase_admin')
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by n.nspname <> 'public', n.nspname collate "C", c.relname collate "C"
