-- What setup made for this queue and what else is there. $1 the prefix of its functions, $2 the queue.
select
    to_regnamespace('pgflume') is not null,
    exists (select from pg_proc p where p.pronamespace = to_regnamespace('pgflume')
        and p.proname like '%.%' and not starts_with(p.proname, $1)),
    array(select p.oid::regprocedure::text from pg_proc p where p.pronamespace = to_regnamespace('pgflume')
        and starts_with(p.proname, $1) order by 1),
    array(select t.tgname || ' on ' || t.tgrelid::regclass::text from pg_trigger t join pg_proc p on p.oid = t.tgfoid
        where p.proname = 'trigger_http_queue_post_to_function_libsql' and t.tgparentid = 0
            and p.pronamespace = to_regnamespace('pgflume') order by 1),
    array(select t.tgname || ' on ' || t.tgrelid::regclass::text from pg_trigger t join pg_proc p on p.oid = t.tgfoid
        where p.proname = 'trigger_http_queue_post_to_function_libsql' and t.tgparentid = 0
            and p.pronamespace is distinct from to_regnamespace('pgflume') order by 1),
    to_regclass('cron.job') is not null,
    to_regclass('pgflume.progress') is not null,
    to_regclass('pgmq.' || quote_ident('q_' || $2)) is not null,
    to_regclass('pgmq.' || quote_ident('q_' || $2 || '_dead')) is not null
