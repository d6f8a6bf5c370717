-- Roles belong to the whole cluster: they go only if no other database needs them.
do $roles$
declare
    me constant name := current_user;
    role_name name;
begin
    foreach role_name in array array['pgflume_worker', 'pgflume_capture']::pg_catalog.name[] loop
        continue when not exists (select from pg_catalog.pg_roles where rolname = role_name);
        -- what is left in this database: rights on source tables and schemas
        if not (select rolsuper from pg_catalog.pg_roles where rolname = me) and not pg_catalog.pg_has_role(role_name, 'usage') then
            execute pg_catalog.format('grant %I to %I', role_name, me);
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
