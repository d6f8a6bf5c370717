-- The queue as it is now. $1 its table, without the schema.
select c.relpersistence::pg_catalog.text,
       coalesce((select pg_catalog.max(s.seqcache)
                 from pg_catalog.pg_sequence s
                 join pg_catalog.pg_depend d on d.classid = 1259 and d.objid = s.seqrelid
                 where d.refclassid = 1259 and d.refobjid = c.oid), 1),
       array(select w.rulename::pg_catalog.text from pg_catalog.pg_rewrite w where w.ev_class = c.oid order by 1),
       array(select g.tgname::pg_catalog.text from pg_catalog.pg_trigger g
             where g.tgrelid = c.oid and not g.tgisinternal and g.tgname not in ('pgflume_deleted', 'pgflume_changed', 'pgflume_truncated', 'pgflume_bell') order by 1),
       array(select w.name from pg_catalog.unnest(array['pgflume_deleted', 'pgflume_changed', 'pgflume_truncated']) as w(name)
             where not exists (
                 select from pg_catalog.pg_trigger g
                 join pg_catalog.pg_proc p on p.oid = g.tgfoid
                 join pg_catalog.pg_namespace f on f.oid = p.pronamespace
                 where g.tgrelid = c.oid and g.tgname = w.name and g.tgenabled = 'A'
                     and f.nspname = 'pgflume' and p.proname = 'note_loss')),
       coalesce((select pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage') and pg_catalog.has_table_privilege(r.oid, c.oid, 'insert')
                 from pg_catalog.pg_roles r where r.rolname = 'pgflume_capture'), false)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'pgmq' and c.relname = $1
