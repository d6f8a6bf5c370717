-- Tells the worker at once that a table with "evolve": true was altered: a mark without keys. The worker looks
-- at the catalog itself; without this trigger it sees the change with its next call.
create or replace function pgflume.note_altered_tables() returns event_trigger
language plpgsql security definer
set search_path = ''
as $body$
declare
    altered pg_catalog.record; -- a bare name of a type is looked up in pg_temp first, which is the caller's
begin
    for altered in
        select distinct c.queue, c.name
        from pg_catalog.pg_event_trigger_ddl_commands() d
        join pgflume.captured c on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.source = d.objid
        where (c.definition ->> 'evolve')::pg_catalog.bool
    loop
        execute pg_catalog.format('insert into pgmq.%I (vt, message) values (pg_catalog.clock_timestamp(), $1)', 'q_' || altered.queue)
            using pg_catalog.jsonb_build_object('v', 1, 'table', altered.name, 'keys', '[]'::pg_catalog.jsonb);
    end loop;
exception when others then
    -- DDL never fails because of this
    raise warning 'pgflume was not told of this change, and sees it with its next call (SQLSTATE %)', sqlstate;
end
$body$;
revoke all on function pgflume.note_altered_tables() from public;
do $trigger$
begin
    if not exists (select from pg_catalog.pg_event_trigger where evtname = 'pgflume_altered_tables') then
        create event trigger pgflume_altered_tables on ddl_command_end when tag in ('ALTER TABLE')
            execute function pgflume.note_altered_tables();
    end if;
end
$trigger$;
