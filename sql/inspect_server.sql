-- What this server is, and what of the machinery is here already.
select
    current_setting('server_version_num')::bigint,
    current_user::text,
    r.rolsuper,
    r.rolcreaterole,
    has_database_privilege(current_database(), 'create'),
    to_regprocedure('pgmq.create(text)') is not null,
    (select extversion from pg_extension where extname = 'pgmq'),
    (select bool_and(exists (select from pg_roles where rolname = n)) from unnest(array['pgflume_capture', 'pgflume_worker']) n),
    case when exists (select from pg_roles where rolname = 'pgflume_capture') then pg_has_role('pgflume_capture', 'usage') end,
    -- 'member with admin option' also of a role that this one only created (PostgreSQL 16)
    case when exists (select from pg_roles where rolname = 'pgflume_capture') then pg_has_role('pgflume_capture', 'member with admin option') end,
    exists (select from pg_namespace where nspname = 'pgflume'),
    to_regclass('cron.job') is not null,
    current_setting('cron.database_name', true) = current_database()
        and exists (select from pg_available_extensions where name = 'pg_cron'),
    to_regprocedure('net.http_post(text,jsonb,jsonb,jsonb,integer)') is not null
        or exists (select from pg_extension where extname = 'http'),
    to_regclass('vault.decrypted_secrets') is not null,
    (select substring(obj_description(p.oid, 'pg_proc') from 'queue: (.*)$') from pg_proc p
        where p.oid = to_regprocedure('pgflume.trigger_http_queue_post_to_function_libsql()'))
from pg_roles r
where r.rolname = current_user
