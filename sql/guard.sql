-- Messages that somebody else takes off the queue (a purge, a delete by hand, another consumer) or rewrites are changes
-- that the replica misses: the next step sees the note and resyncs. One note a transaction; the worker's own steps are
-- told by their setting, which holds for their transaction only. What is right stays as it is: workers take another function for one that was away.
do $guard$
declare
    body constant pg_catalog.text := $note$
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
    name pg_catalog.text;
begin
    if not exists (
        select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'pgflume' and p.proname = 'note_loss' and p.pronargs = 0 and p.prosrc = body and p.prosecdef
            and p.prolang = (select l.oid from pg_catalog.pg_language l where l.lanname = 'plpgsql')
            and p.proconfig = array['search_path=""']
            and pg_catalog.pg_get_userbyid(p.proowner) = 'pgflume_capture'
            and not pg_catalog.has_function_privilege('public', p.oid, 'execute')
    ) then
        execute pg_catalog.format('create or replace function pgflume.note_loss() returns trigger '
            'language plpgsql security definer set search_path = '''' as %L', body);
        grant create on schema pgflume to pgflume_capture;
        alter function pgflume.note_loss() owner to pgflume_capture;
        revoke create on schema pgflume from pgflume_capture;
        revoke all on function pgflume.note_loss() from public;
    end if;
    foreach name in array array['pgflume_deleted', 'pgflume_changed', 'pgflume_truncated'] loop
        if exists (select from pg_catalog.pg_trigger
                   where tgrelid = {{ queue_text }}::pg_catalog.regclass and tgname = name and tgenabled = 'A') then
            continue;
        end if;
        execute pg_catalog.format('drop trigger if exists %I on {{ queue }}', name);
        if name = 'pgflume_deleted' then
            create trigger pgflume_deleted after delete on {{ queue }} for each row
                when (pg_catalog.current_setting('pgflume.takes', true) is distinct from pg_catalog.pg_current_xact_id()::pg_catalog.text)
                execute function pgflume.note_loss({{ queue_name }});
        elsif name = 'pgflume_changed' then
            -- PGMQ itself writes when a message may be read, and how often it was
            create trigger pgflume_changed after update of msg_id, message on {{ queue }} for each row
                execute function pgflume.note_loss({{ queue_name }});
        else
            create trigger pgflume_truncated after truncate on {{ queue }} for each statement
                execute function pgflume.note_loss({{ queue_name }});
        end if;
        execute pg_catalog.format('alter table {{ queue }} enable always trigger %I', name);
    end loop;
end
$guard$;
