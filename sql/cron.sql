-- pg_cron asks the worker to drain the queue. A schedule that somebody chose stays.
{{extension}}do $cron$
begin
    {{replace}}if not exists (
        select from cron.job
        where jobname = 'process_libsql_replication' and database = pg_catalog.current_database()
    ) then
        perform cron.schedule('process_libsql_replication', {{schedule}}, 'select pgflume.process_libsql_replication_batch()');
    end if;
end
$cron$;
