-- The cron job: there, switched on, succeeding. pg_cron shows a role its own jobs only.
select 'PF-120', 'process_libsql_replication', 'pg_cron has no such job for this database', 'pgflume setup', false
where not exists (select from cron.job j where j.jobname = 'process_libsql_replication' and j.database = pg_catalog.current_database())
    -- whoever did not set it up does not see it
    and exists (select from pg_catalog.pg_namespace n join pg_catalog.pg_roles r on r.rolname = current_user
                where n.nspname = 'pgflume' and (n.nspowner = r.oid or r.rolsuper or r.rolbypassrls))
union all
select 'PF-121', j.jobname, 'the job is switched off', pg_catalog.format('select cron.alter_job(%s, active => true)', j.jobid), true
from cron.job j where j.jobname = 'process_libsql_replication' and j.database = pg_catalog.current_database() and not j.active
union all
select 'PF-122', j.jobname, pg_catalog.left(coalesce(r.return_message, 'it failed'), 200),
       'select * from cron.job_run_details order by runid desc limit 5', false
from cron.job j
cross join lateral (
    select d.status, d.return_message from cron.job_run_details d
    where d.jobid = j.jobid and d.status in ('succeeded', 'failed') order by d.runid desc limit 1) r
where j.jobname = 'process_libsql_replication' and j.database = pg_catalog.current_database() and r.status = 'failed'
