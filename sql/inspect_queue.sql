-- A queue table that is there already: may a capture function rely on it? $1 its name in schema pgmq.
select
    c.relpersistence::text,
    c.relkind::text,
    c.relrowsecurity,
    coalesce((select max(s.seqcache) from pg_sequence s
        join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.seqrelid
        where d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid), 1),
    (select count(*) from pg_attribute a where a.attrelid = c.oid and not a.attisdropped
        and (a.attname, a.atttypid) in
            (('msg_id', 'bigint'::regtype), ('read_ct', 'integer'::regtype), ('enqueued_at', 'timestamptz'::regtype),
             ('vt', 'timestamptz'::regtype), ('message', 'jsonb'::regtype))),
    pg_has_role(c.relowner, 'usage'),
    pg_get_userbyid(c.relowner)::text,
    (select min(t.tgname)::text from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal
        and not (t.tgname in ('pgflume_deleted', 'pgflume_truncated') and t.tgfoid in (
            select p.oid from pg_proc p join pg_namespace f on f.oid = p.pronamespace where f.nspname = 'pgflume' and p.proname = 'note_loss')))
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'pgmq' and c.relname = $1
