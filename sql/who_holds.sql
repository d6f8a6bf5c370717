-- Sessions that have a transaction open for longer than a second, for a message to people.
select pg_catalog.string_agg(pg_catalog.format('pid %s (%s%s)', s.pid, s.usename, nullif(', ' || s.application_name, ', ')), ', ')
from (
    select a.pid, a.usename, a.application_name
    from pg_catalog.pg_stat_activity a
    where a.datname = pg_catalog.current_database() and a.pid <> pg_catalog.pg_backend_pid()
        and exists (select from pg_catalog.pg_locks l where l.pid = a.pid and l.locktype = 'relation' and l.granted)
        and a.backend_type = 'client backend'
    order by a.xact_start nulls last limit 5) s
