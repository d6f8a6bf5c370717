-- Whether the name of our cron job belongs to something else.
select exists (
    select from cron.job
    where jobname = 'process_libsql_replication' and database = pg_catalog.current_database()
        and command not like '%pgflume.process_libsql_replication_batch%'
)
