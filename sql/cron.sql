-- pg_cron asks the worker to drain the queue. A schedule that somebody chose stays.
{% if creates_extension %}
create extension if not exists pg_cron with schema pg_catalog;
{% endif %}
do $cron$
begin
{% if takes_over %}
    -- a job of that name which runs something else makes way
    perform cron.unschedule(jobid)
    from cron.job
    where jobname = 'process_libsql_replication' and command not like '%pgflume.process_libsql_replication_batch%';
{% endif %}
    if not exists (
        select from cron.job
        where jobname = 'process_libsql_replication' and database = pg_catalog.current_database()
    ) then
        perform cron.schedule('process_libsql_replication', {{ schedule }}, 'select pgflume.process_libsql_replication_batch()');
    end if;
end
$cron$;
