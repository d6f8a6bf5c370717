-- Messages that somebody else takes off the queue (a purge, a delete by hand, another consumer) are changes that
-- the replica misses: the next step sees the note and resyncs. One note a transaction; the worker's own steps are
-- told by their setting.
create or replace function pgflume.note_loss() returns trigger
language plpgsql security definer set search_path = '' as $note$
declare
    -- a temporary schema comes first in looking for types
    me constant pg_catalog.text := pg_catalog.pg_current_xact_id()::pg_catalog.text;
begin
    if pg_catalog.current_setting('pgflume.noted', true) is distinct from me then
        insert into pgflume.losses (queue, by, who) values (tg_argv[0], tg_op, session_user);
        perform pg_catalog.set_config('pgflume.noted', me, true);
    end if;
    return null;
end
$note$;
grant create on schema pgflume to pgflume_capture;
alter function pgflume.note_loss() owner to pgflume_capture;
revoke create on schema pgflume from pgflume_capture;
revoke all on function pgflume.note_loss() from public;
do $guard$
declare
    name pg_catalog.text;
begin
    foreach name in array array['pgflume_deleted', 'pgflume_truncated'] loop
        if exists (select from pg_catalog.pg_trigger
                   where tgrelid = {{queue_text}}::pg_catalog.regclass and tgname = name and tgenabled = 'O') then
            continue;
        end if;
        execute pg_catalog.format('drop trigger if exists %I on {{queue}}', name);
        if name = 'pgflume_deleted' then
            create trigger pgflume_deleted after delete on {{queue}} for each row
                when (pg_catalog.current_setting('pgflume.step', true) is distinct from 'on')
                execute function pgflume.note_loss({{queue_name}});
        else
            create trigger pgflume_truncated after truncate on {{queue}} for each statement
                execute function pgflume.note_loss({{queue_name}});
        end if;
    end loop;
end
$guard$;
