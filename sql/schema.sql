-- The schema of all that is ours, and a table without rows: its lock lets one installation run at a time, and
-- nobody else may take it.
do $schema$
begin
    -- opening a catalog table makes this session see a schema that another one has just created
    perform from pg_catalog.pg_namespace limit 1;
    -- looked up first: creating asks for a right that is not needed where it is there
    if pg_catalog.to_regclass('pgflume.setups') is null then
        create schema if not exists pgflume;
        revoke all on schema pgflume from public;
        create table if not exists pgflume.setups ();
    end if;
end
$schema$;
