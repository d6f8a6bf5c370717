do $cron$
begin
    perform cron.unschedule(jobid)
    from cron.job
    where jobname = 'process_libsql_replication' and database = pg_catalog.current_database()
        and command like '%pgflume.process_libsql_replication_batch%';
end
$cron$;
