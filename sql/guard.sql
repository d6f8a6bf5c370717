-- Messages that somebody else takes off the queue (a purge, a delete by hand, another consumer) are changes that
-- the replica misses: the next step sees the note and resyncs. The worker's own steps cost nothing.
create or replace function pgflume.note_loss() returns trigger
language plpgsql security definer set search_path = '' as $note$
begin
    insert into pgflume.losses (queue, by, who) values (tg_argv[0], tg_op, session_user);
    return null;
end
$note$;
grant create on schema pgflume to pgflume_capture;
alter function pgflume.note_loss() owner to pgflume_capture;
revoke create on schema pgflume from pgflume_capture;
grant usage on schema pgflume to pgflume_capture;
revoke all on function pgflume.note_loss() from public;
do $guard$
begin
    if not exists (select from pg_catalog.pg_trigger where tgrelid = {{queue_text}}::pg_catalog.regclass and tgname = 'pgflume_truncated') then
        create trigger pgflume_deleted after delete on {{queue}} for each statement
            when (pg_catalog.current_setting('pgflume.step', true) is distinct from 'on')
            execute function pgflume.note_loss({{queue_name}});
        create trigger pgflume_truncated after truncate on {{queue}} for each statement
            execute function pgflume.note_loss({{queue_name}});
    end if;
end
$guard$;
