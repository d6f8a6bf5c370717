-- What the two roles may do with this queue and these tables, and nothing else.
grant usage on schema pgmq to pgflume_capture, pgflume_worker;
grant insert on {{ queue }} to pgflume_capture;
-- insert: the worker puts back what a replica lost, and dead letters that are tried again
grant select, insert, delete on {{ queue }} to pgflume_worker;
revoke update on {{ queue }} from pgflume_worker;
grant select, insert, delete on {{ dead }} to pgflume_worker;
-- the last id that the queue gave out
do $sequence$
begin
    execute pg_catalog.format('grant select on sequence %s to pgflume_worker', pg_catalog.pg_get_serial_sequence({{ queue_text }}, 'msg_id'));
end
$sequence$;
-- PGMQ's notifications write there in the transaction of whoever adds to the queue: switched on, they must not make
-- the user's write fail
do $notify$
begin
    if exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
               where n.nspname = 'pgmq' and c.relname = 'notify_insert_throttle') then
        grant select, update on pgmq.notify_insert_throttle to pgflume_capture;
    end if;
end
$notify$;
-- exactly these: default privileges may have given more
revoke all on all tables in schema pgflume from pgflume_worker, pgflume_capture cascade;
revoke all on all sequences in schema pgflume from pgflume_worker, pgflume_capture cascade;
do $functions$
declare
    given pg_catalog.regprocedure;
begin
    -- only where there is something to take: workers take a function that was written anew for one that was away
    for given in
        select distinct p.oid::pg_catalog.regprocedure
        from pg_catalog.pg_proc p
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        cross join lateral pg_catalog.aclexplode(p.proacl) a
        where n.nspname = 'pgflume' and a.grantee = 'pgflume_worker'::pg_catalog.regrole
    loop
        execute pg_catalog.format('revoke all on function %s from pgflume_worker cascade', given);
    end loop;
end
$functions$;
revoke all on schema pgflume from pgflume_worker, pgflume_capture cascade;
do $state$
begin
    -- it is made after this, and a worker may be about to call it
    if pg_catalog.to_regprocedure('pgflume.catalog_state(pg_catalog.text[], pg_catalog.text[], pg_catalog.text, pg_catalog.text, pg_catalog.text)') is not null then
        grant execute on function pgflume.catalog_state(pg_catalog.text[], pg_catalog.text[], pg_catalog.text, pg_catalog.text, pg_catalog.text) to pgflume_worker;
    end if;
end
$state$;
grant usage on schema pgflume to pgflume_worker;
grant select, insert, update on pgflume.progress, pgflume.wakeup to pgflume_worker;
grant select, insert, delete on pgflume.redeemed, pgflume.kept, pgflume.steps to pgflume_worker;
grant select, insert, update, delete on pgflume.resyncs, pgflume.verified to pgflume_worker;
grant select, delete on pgflume.losses to pgflume_worker;
grant select, insert, delete on pgflume.events to pgflume_worker;
grant insert on pgflume.losses to pgflume_capture;
grant usage on schema pgflume to pgflume_capture;
grant select on pgflume.captured to pgflume_worker;
grant select, insert, update on pgflume.shapes to pgflume_worker;

-- Without effect until somebody turns on row-level security for the queue (some consoles do).
do $policies$
begin
    if not exists (select from pg_catalog.pg_policy where polrelid = {{ queue_text }}::pg_catalog.regclass and polname = 'pgflume_capture') then
        create policy pgflume_capture on {{ queue }} for insert to pgflume_capture with check (true);
    end if;
end
$policies$;

-- The source tables. The whole table, not single columns: the worker also locks it against DDL.
{{ sources }}

-- A mark that cannot be written fails the user's write, so make sure now that it can.
do $check$
begin
    if not pg_catalog.has_schema_privilege('pgflume_capture', 'pgmq', 'usage')
        or not pg_catalog.has_table_privilege('pgflume_capture', {{ queue_text }}, 'insert') then
        raise exception 'pgflume_capture could not be given its rights on %', {{ queue_text }}
            using errcode = 'PF001', hint = 'run setup as the owner of schema pgmq and of the queue';
    end if;
end
$check$;
