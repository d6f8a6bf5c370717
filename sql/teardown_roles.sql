-- Roles belong to the whole cluster: they go only if no other database needs them.
do $roles$
declare
    me constant pg_catalog.name := current_user;
    role_name pg_catalog.name;
begin
    foreach role_name in array array['pgflume_worker', 'pgflume_capture', 'pgflume_push']::pg_catalog.name[] loop
        continue when not exists (select from pg_catalog.pg_roles where rolname = role_name);
        -- what is left in this database: rights on source tables and schemas
        if not (select rolsuper from pg_catalog.pg_roles where rolname = me) and not pg_catalog.pg_has_role(role_name, 'usage') then
            begin
                execute pg_catalog.format('grant %I to %I', role_name, me);
            exception when insufficient_privilege then
                raise notice 'role % stays: it was granted to others only', role_name;
                continue;
            end;
        end if;
        -- this would drop what somebody has handed over to the role: a table, say
        if exists (
            select from pg_catalog.pg_shdepend s
            where s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and s.deptype = 'o'
                and s.refobjid = (select r.oid from pg_catalog.pg_roles r where r.rolname = role_name)
                and s.dbid in (0, (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()))
        ) then
            raise notice 'role % stays: it owns something', role_name;
            continue;
        end if;
        execute pg_catalog.format('drop owned by %I', role_name);
        begin
            execute pg_catalog.format('drop role %I', role_name);
        exception when dependent_objects_still_exist or insufficient_privilege then
            raise notice 'role % stays', role_name;
        end;
    end loop;
end
$roles$;
