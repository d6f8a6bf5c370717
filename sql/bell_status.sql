-- How a follower hears of what comes. $1 the queue's table, $2 and $3 the key of its lock. Behind a writer it sleeps
-- while it waits for the lock.
with locks as (
    select l.pid, l.mode
    from pg_catalog.pg_locks l
    where l.locktype = 'advisory' and l.objsubid = 2
        and l.classid::pg_catalog.int8 = $2::pg_catalog.int4 and l.objid::pg_catalog.int8 = $3::pg_catalog.int4::pg_catalog.int8 & 4294967295
        and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()))
select pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
       pg_catalog.current_setting('max_prepared_transactions') <> '0',
       bell.owner is not null,
       coalesce(pg_catalog.has_function_privilege(bell.owner, 3036::pg_catalog.oid, 'execute')
                and pg_catalog.has_function_privilege(bell.owner, 3096::pg_catalog.oid, 'execute'), false),
       exists (select from locks where locks.mode = 'ExclusiveLock'),
       (select pg_catalog.max(extract(epoch from pg_catalog.clock_timestamp() - a.xact_start))::pg_catalog.float8
        from locks join pg_catalog.pg_stat_activity a on a.pid = locks.pid where locks.mode = 'ShareLock')
from (select 1) one
left join (
    select p.proowner as owner
    from pg_catalog.pg_trigger g
    join pg_catalog.pg_proc p on p.oid = g.tgfoid
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where g.tgrelid = pg_catalog.to_regclass($1) and g.tgname = 'pgflume_bell' and g.tgenabled = 'A'
        and n.nspname = 'pgflume' and p.proname = 'ring') bell on true
