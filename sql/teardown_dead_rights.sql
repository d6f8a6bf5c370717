do $rights$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'pgflume_worker') then
        revoke all on {{ dead }} from pgflume_worker;
    end if;
end
$rights$;
