-- one installation at a time
do $alone$
begin
    if pg_catalog.to_regclass('pgflume.setups') is not null
        and pg_catalog.has_table_privilege('pgflume.setups', 'update') then
        lock table pgflume.setups in exclusive mode;
    end if;
end
$alone$;
