-- Two roles that nobody can log in as. Roles belong to the whole cluster, so they may be here already.
--   pgflume_capture  owns the capture functions and may do one thing: add to a queue
--   pgflume_worker   what a worker needs; hand it out with: grant pgflume_worker to <login role>
do $roles$
declare
    me constant pg_catalog.name := current_user;
    modern constant boolean := pg_catalog.current_setting('server_version_num')::integer >= 160000;
    member boolean;
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'pgflume_capture') then
        begin
            create role pgflume_capture nologin;
        exception when duplicate_object or unique_violation then
            null; -- another database's set-up was faster
        end;
    end if;
    if not exists (select from pg_catalog.pg_roles where rolname = 'pgflume_worker') then
        begin
            create role pgflume_worker nologin;
        exception when duplicate_object or unique_violation then
            null; -- another database's set-up was faster
        end;
    end if;

    -- Handing functions over to pgflume_capture takes membership in it; superusers need none.
    if (select rolsuper from pg_catalog.pg_roles where rolname = me) then
        return;
    end if;
    if modern then
        execute $q$select pg_catalog.pg_has_role('pgflume_capture', 'usage') and pg_catalog.pg_has_role('pgflume_capture', 'set')$q$
            into member;
        if not member then
            execute pg_catalog.format('grant pgflume_capture to %I with inherit true, set true', me);
        end if;
    elsif not pg_catalog.pg_has_role('pgflume_capture', 'usage') then
        execute pg_catalog.format('grant pgflume_capture to %I', me);
    end if;
end
$roles$;
