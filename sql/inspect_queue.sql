-- A queue table that is there already: may a capture function rely on it?
select
    c.relpersistence::text,
    c.relkind::text,
    c.relrowsecurity,
    coalesce((select s.seqcache from pg_sequence s
        where s.seqrelid = to_regclass(pg_get_serial_sequence($1, 'msg_id'))), 1),
    (select count(*) from pg_attribute a where a.attrelid = c.oid and not a.attisdropped
        and (a.attname, a.atttypid::regtype::text) in
            (('msg_id', 'bigint'), ('read_ct', 'integer'), ('enqueued_at', 'timestamp with time zone'),
             ('vt', 'timestamp with time zone'), ('message', 'jsonb'))),
    pg_has_role(c.relowner, 'usage'),
    pg_get_userbyid(c.relowner)::text,
    (select min(t.tgname)::text from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal)
from pg_class c
where c.oid = to_regclass($1)
