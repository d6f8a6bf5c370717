-- a job of that name which runs something else makes way
    perform cron.unschedule(jobid)
    from cron.job
    where jobname = 'process_libsql_replication' and command not like '%pgflume.process_libsql_replication_batch%';
