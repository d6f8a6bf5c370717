do $rights$
begin
    -- only what is missing: a grant that is there already would stand in the way of a migration of the same table
    if not pg_catalog.has_schema_privilege('pgflume_worker', {{ schema_text }}, 'usage') then
        grant usage on schema {{ schema }} to pgflume_worker;
    end if;
    if not pg_catalog.has_table_privilege('pgflume_worker', {{ source_text }}, 'select') then
        grant select on {{ source }} to pgflume_worker;
    end if;
end
$rights$;
