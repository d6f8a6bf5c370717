-- Who puts something on the queue rings, but only while the follower sleeps: a notification takes a lock of the whole
-- server at commit. The follower that sleeps holds the lock of its queue alone. Whoever gets it shared, for his
-- transaction, keeps it awake until what he wrote can be seen. Nothing is remembered between two statements: a rollback
-- to a savepoint gives the lock back.
do $bell$
declare
    body constant pg_catalog.text := $ring$
begin
    -- a transaction that has notified cannot be prepared
    if pg_catalog.current_setting('max_prepared_transactions') <> '0' then
        return null;
    end if;
    -- who lost the right to one of them writes on, and is found by looking
    if not (pg_catalog.has_function_privilege(3096::pg_catalog.oid, 'execute') and pg_catalog.has_function_privilege(3036::pg_catalog.oid, 'execute')) then
        return null;
    end if;
    if not pg_catalog.pg_try_advisory_xact_lock_shared({{ class }}, tg_argv[1]::pg_catalog.int4) then
        perform pg_catalog.pg_notify(tg_argv[0], '');
    end if;
    return null;
end
$ring$;
begin
    if not exists (
        select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'pgflume' and p.proname = 'ring' and p.pronargs = 0 and p.prosrc = body and p.prosecdef
            and p.prolang = (select l.oid from pg_catalog.pg_language l where l.lanname = 'plpgsql')
            and p.proconfig = array['search_path=""']
            and pg_catalog.pg_get_userbyid(p.proowner) = 'pgflume_capture'
            and not pg_catalog.has_function_privilege('public', p.oid, 'execute')
    ) then
        execute pg_catalog.format('create or replace function pgflume.ring() returns trigger '
            'language plpgsql security definer set search_path = '''' as %L', body);
        grant create on schema pgflume to pgflume_capture;
        alter function pgflume.ring() owner to pgflume_capture;
        revoke create on schema pgflume from pgflume_capture;
        revoke all on function pgflume.ring() from public;
    end if;
    if not exists (select from pg_catalog.pg_trigger
                   where tgrelid = {{ queue_text }}::pg_catalog.regclass and tgname = 'pgflume_bell' and tgenabled = 'A') then
        drop trigger if exists pgflume_bell on {{ queue }};
        create trigger pgflume_bell after insert on {{ queue }} for each statement
            execute function pgflume.ring({{ channel }}, {{ key }});
        alter table {{ queue }} enable always trigger pgflume_bell;
    end if;
end
$bell$;
