-- What goes wrong in practice, about the server, the role and the queue: code, what it is about, what was found, the
-- command that mends it, and whether that is safe to run unasked. $1 the queue's name, $2 from how many seconds on a
-- transaction is old. Asks the catalog and statistics only; what the role may not see is not found.
with queue as (
    select c.oid, c.relname, c.relpersistence, c.reloptions, pg_catalog.format('pgmq.%I', c.relname) as name
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'pgmq' and c.relname = 'q_' || $1::pg_catalog.text
),
stats as (
    select s.relname, s.n_dead_tup, s.n_live_tup, s.relid from pg_catalog.pg_stat_all_tables s where s.schemaname = 'pgmq'
),
old as (
    select 'the session ' || a.pid || coalesce(' of ' || a.usename, '') || ' (' || coalesce(nullif(a.application_name, ''), 'no name') || ')' as what,
           pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.xact_start) as seconds,
           pg_catalog.format('select pg_catalog.pg_terminate_backend(%s)', a.pid) as command
    from pg_catalog.pg_stat_activity a
    where a.xact_start is not null and a.backend_type = 'client backend' and a.pid <> pg_catalog.pg_backend_pid()
        and (a.backend_xmin is not null or a.backend_xid is not null)
    union all
    select 'the prepared transaction ' || p.gid, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - p.prepared),
           pg_catalog.format('rollback prepared %L', p.gid)
    from pg_catalog.pg_prepared_xacts p where p.database = pg_catalog.current_database()
)
select 'PF-109', 'PostgreSQL', 'it is version ' || pg_catalog.current_setting('server_version'), 'pg_upgradecluster', false
where pg_catalog.current_setting('server_version_num')::pg_catalog.int4 < 140000
union all
select 'PF-107', r.rolname, 'the role of this connection is a superuser', 'create role pgflume_login login password ''...'' in role pgflume_worker', false
from pg_catalog.pg_roles r where r.rolname = current_user and r.rolsuper
union all
-- by way of a role, too
select 'PF-108', f.name, 'may be executed by ' || pg_catalog.string_agg(g.grantee, ', ' order by g.grantee),
       'revoke all on function ' || f.name || ' from ' || pg_catalog.string_agg(g.grantee, ', ' order by g.grantee), true
from (select p.oid, pg_catalog.format('%I.%I()', n.nspname, p.proname) as name, n.oid as schema,
             coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) as acl
      from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
      where p.proname = 'get_libsql_webhook_signature' and p.pronargs = 0 and n.nspname in ('public', 'pgflume')) f
cross join lateral (
    select 'public' as grantee where exists (select from pg_catalog.aclexplode(f.acl) a where a.grantee = 0 and a.privilege_type = 'EXECUTE')
    union all
    select r.rolname::pg_catalog.text from pg_catalog.pg_roles r
    where r.rolname in ('anon', 'authenticated') and pg_catalog.has_schema_privilege(r.oid, f.schema, 'usage')
        and pg_catalog.has_function_privilege(r.oid, f.oid, 'execute')
) g
group by f.name
union all
select 'PF-110', $1, case when exists (select from pg_catalog.pg_namespace where nspname = 'pgmq') then 'the queue does not exist' else 'PGMQ is not installed' end,
       'pgflume setup', false
where not exists (select from queue)
union all
select 'PF-111', 'PGMQ', 'it is version ' || e.extversion, 'alter extension pgmq update', false
from pg_catalog.pg_extension e
where e.extname = 'pgmq' and e.extversion ~ '^[0-9]+[.][0-9]+' and pg_catalog.string_to_array(pg_catalog.substring(e.extversion, '^[0-9]+[.][0-9]+'), '.')::pg_catalog.int4[] < array[1, 4]
union all
select 'PF-114', q.name, 'it is UNLOGGED: a crash of Postgres empties it', pg_catalog.format('alter table %s set logged', q.name), false
from queue q where q.relpersistence <> 'p'
union all
select 'PF-114', q.name, 'its sequence hands out ids in blocks, and messages lose their order',
       pg_catalog.format('alter table %s alter msg_id set cache 1', q.name), true
from queue q
where exists (select from pg_catalog.pg_sequence s join pg_catalog.pg_depend d on d.classid = 1259 and d.objid = s.seqrelid
              where d.refclassid = 1259 and d.refobjid = q.oid and s.seqcache > 1)
union all
select 'PF-114', q.name, pg_catalog.format('it has a trigger of somebody else, %I', t.tgname), pg_catalog.format('drop trigger %I on %s', t.tgname, q.name), false
from queue q
join pg_catalog.pg_trigger t on t.tgrelid = q.oid and not t.tgisinternal
join pg_catalog.pg_proc p on p.oid = t.tgfoid
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname not in ('pgflume', 'pgmq')
union all
select 'PF-114', q.name, pg_catalog.format('it has a rule, %I', w.rulename), pg_catalog.format('drop rule %I on %s', w.rulename, q.name), false
from queue q join pg_catalog.pg_rewrite w on w.ev_class = q.oid
union all
select 'PF-115', q.name, 'each insert notifies', pg_catalog.format('select pgmq.disable_notify_insert(%L)', $1), true
from queue q
join pg_catalog.pg_trigger t on t.tgrelid = q.oid
join pg_catalog.pg_proc p on p.oid = t.tgfoid
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = 'pgmq' and p.proname = 'notify_queue_listeners'
union all
select 'PF-116', q.name, 'autovacuum is switched off for it', pg_catalog.format('alter table %s reset (autovacuum_enabled)', q.name), true
from queue q where exists (select from pg_catalog.pg_options_to_table(q.reloptions) o where o.option_name = 'autovacuum_enabled' and o.option_value::pg_catalog.bool is false)
union all
select 'PF-116', 'PostgreSQL', 'autovacuum is switched off for the whole server', 'alter system set autovacuum = on; select pg_catalog.pg_reload_conf()', false
where pg_catalog.current_setting('autovacuum') = 'off'
union all
select 'PF-117', q.name, s.n_dead_tup || ' dead rows, ' || s.n_live_tup || ' messages', pg_catalog.format('vacuum %s', q.name), true
from queue q join stats s on s.relid = q.oid where s.n_dead_tup > 20000 and s.n_dead_tup > 5 * s.n_live_tup
union all
select 'PF-118', o.what, 'it has been open for ' || o.seconds::pg_catalog.int8 || ' s', o.command, false
from old o where o.seconds > $2
union all
select 'PF-118', 'the replication slot ' || s.slot_name, 'nobody reads it, and it keeps rows and WAL', pg_catalog.format('select pg_catalog.pg_drop_replication_slot(%L)', s.slot_name), false
from pg_catalog.pg_replication_slots s where not s.active and (s.xmin is not null or s.catalog_xmin is not null or s.restart_lsn is not null)
union all
select 'PF-119', pg_catalog.format('pgmq.%I', c.relname), pg_catalog.pg_size_pretty(pg_catalog.pg_total_relation_size(c.oid)) || ' of archived messages',
       pg_catalog.format('truncate pgmq.%I', c.relname), false
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'pgmq' and c.relname = 'a_' || $1 and pg_catalog.pg_total_relation_size(c.oid) > 1048576
union all
select 'PF-131', 'PostgreSQL', a.used || ' of ' || m.most || ' connections are taken', 'alter system set max_connections = ' || m.most * 2, false
from (select pg_catalog.count(*) as used from pg_catalog.pg_stat_activity where backend_type = 'client backend') a,
     (select pg_catalog.current_setting('max_connections')::pg_catalog.int4 - pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int4 as most) m
where a.used + 5 > m.most
order by 1, 2
