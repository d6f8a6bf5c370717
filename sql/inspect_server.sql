-- What this server is, and what of the machinery is here already. Asks the catalog only: a name in a
-- schema that one may not use is an error for to_regclass.
with objects as (
    select n.nspname as schema, pg_catalog.has_schema_privilege(n.oid, 'usage') as usable, null::pg_catalog.oid as function
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where (n.nspname, c.relname) in (('cron', 'job'), ('vault', 'decrypted_secrets'))
        -- not just anybody's table of that name
        and exists (select from pg_catalog.pg_roles o where o.oid = c.relowner and (o.rolsuper or o.rolname = current_user))
        and not exists (
            -- nor anybody's functions, which would be given the secret
            select from pg_catalog.pg_proc f join pg_catalog.pg_roles o on o.oid = f.proowner
            where f.pronamespace = n.oid and n.nspname = 'vault' and not (o.rolsuper or o.rolname = current_user))
    union all
    select n.nspname, pg_catalog.has_schema_privilege(n.oid, 'usage'), p.oid
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where (n.nspname, p.proname) in (('pgmq', 'create'), ('net', 'http_post'),
        ('pgflume', 'trigger_http_queue_post_to_function_libsql'))
)
select
    pg_catalog.current_setting('server_version_num')::bigint,
    current_user::pg_catalog.text,
    r.rolsuper,
    r.rolcreaterole,
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'create'),
    exists (select from objects where schema = 'pgmq'),
    (select extversion from pg_catalog.pg_extension where extname = 'pgmq'),
    (select pg_catalog.bool_and(exists (select from pg_catalog.pg_roles where rolname = n)) from pg_catalog.unnest(array['pgflume_capture', 'pgflume_worker']) n),
    case when exists (select from pg_catalog.pg_roles where rolname = 'pgflume_capture') then pg_catalog.pg_has_role('pgflume_capture', 'usage') end,
    -- 'member with admin option' also of a role that this one only created (PostgreSQL 16)
    case when exists (select from pg_catalog.pg_roles where rolname = 'pgflume_capture') then pg_catalog.pg_has_role('pgflume_capture', 'member with admin option') end,
    exists (select from pg_catalog.pg_namespace where nspname = 'pgflume'),
    exists (select from objects where schema = 'cron') and exists (select from pg_catalog.pg_extension where extname = 'pg_cron'),
    -- not everybody may see where pg_cron lives; then trying tells
    exists (select from pg_catalog.pg_available_extensions where name = 'pg_cron')
        and case when pg_catalog.pg_has_role('pg_read_all_settings', 'usage')
            then coalesce(pg_catalog.current_setting('cron.database_name', true) = pg_catalog.current_database(), false) else true end,
    exists (select from objects where schema = 'net') or exists (select from pg_catalog.pg_extension where extname = 'http'),
    exists (select from objects where schema = 'vault' and usable),
    (select substring(pg_catalog.obj_description(function, 'pg_proc') from 'queue: (.*)$') from objects where schema = 'pgflume')
from pg_catalog.pg_roles r
where r.rolname = current_user
