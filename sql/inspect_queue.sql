-- A queue table that is there already: may a capture function rely on it? $1 its name in schema pgmq.
select
    c.relpersistence::pg_catalog.text,
    c.relkind::pg_catalog.text,
    c.relrowsecurity,
    coalesce((select pg_catalog.max(s.seqcache) from pg_catalog.pg_sequence s
        join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = s.seqrelid
        where d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = c.oid), 1),
    (select pg_catalog.count(*) from pg_catalog.pg_attribute a where a.attrelid = c.oid and not a.attisdropped
        and (a.attname, a.atttypid) in
            (('msg_id', 'bigint'::pg_catalog.regtype), ('read_ct', 'integer'::pg_catalog.regtype), ('enqueued_at', 'timestamptz'::pg_catalog.regtype),
             ('vt', 'timestamptz'::pg_catalog.regtype), ('message', 'jsonb'::pg_catalog.regtype))),
    -- a superuser is a member of every role
    exists (
        select from pg_catalog.pg_roles o
        cross join (select m.rolsuper from pg_catalog.pg_roles m where m.rolname = current_user) me
        where o.oid = c.relowner and (o.rolsuper or o.rolname = current_user
            or (not me.rolsuper and pg_catalog.pg_has_role(o.oid, 'usage')))),
    pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text,
    (select pg_catalog.min(t.tgname)::pg_catalog.text from pg_catalog.pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal
        and not (t.tgname in ('pgflume_deleted', 'pgflume_changed', 'pgflume_truncated', 'pgflume_bell') and t.tgfoid in (
            select p.oid from pg_catalog.pg_proc p join pg_catalog.pg_namespace f on f.oid = p.pronamespace where f.nspname = 'pgflume' and p.proname in ('note_loss', 'ring'))))
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'pgmq' and c.relname = $1
