-- What setup made for this queue and what else is there. $1 the prefix of its functions, $2 the queue.
with relations as (
    select n.nspname, c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('cron', 'pgflume', 'pgmq')
)
select
    pg_catalog.to_regnamespace('pgflume') is not null,
    exists (select from pg_catalog.pg_proc p where p.pronamespace = pg_catalog.to_regnamespace('pgflume')
        and p.proname like '%.%' and not pg_catalog.starts_with(p.proname, $1)),
    array(select p.oid::pg_catalog.regprocedure::pg_catalog.text from pg_catalog.pg_proc p where p.pronamespace = pg_catalog.to_regnamespace('pgflume')
        and pg_catalog.starts_with(p.proname, $1) order by 1),
    array(select t.tgname || ' on ' || t.tgrelid::pg_catalog.regclass::pg_catalog.text from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid
        where p.proname = 'trigger_http_queue_post_to_function_libsql' and t.tgparentid = 0
            and p.pronamespace = pg_catalog.to_regnamespace('pgflume') order by 1),
    array(select t.tgname || ' on ' || t.tgrelid::pg_catalog.regclass::pg_catalog.text from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid
        where p.proname = 'trigger_http_queue_post_to_function_libsql' and t.tgparentid = 0
            and p.pronamespace is distinct from pg_catalog.to_regnamespace('pgflume') order by 1),
    exists (select from relations where nspname = 'cron' and relname = 'job'),
    exists (select from relations where nspname = 'pgflume' and relname = 'progress'),
    exists (select from relations where nspname = 'pgmq' and relname = 'q_' || $2),
    exists (select from relations where nspname = 'pgmq' and relname = 'q_' || $2 || '_dead')
