-- Everything that rows could come from, outside of Postgres' own schemas: public first, then by name.
select
    c.oid,
    n.nspname::text,
    c.relname::text,
    c.relkind::text,
    c.relpersistence::text,
    (select p.inhparent from pg_inherits p where c.relispartition and p.inhrelid = c.oid limit 1),
    c.relkind <> 'p' and exists (select from pg_inherits i where i.inhparent = c.oid),
    (select x.extname::text
        from pg_depend d join pg_extension x on x.oid = d.refobjid
        where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
            and d.refclassid = 'pg_extension'::regclass limit 1),
    case when not pg_has_role(c.relowner, 'usage') then pg_get_userbyid(c.relowner)::text end,
    exists (select from pg_roles where rolname = 'supabase_admin')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by n.nspname <> 'public', n.nspname collate "C", c.relname collate "C"
