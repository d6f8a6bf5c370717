
declare
    marked pg_catalog.jsonb;
begin
{{statements}}
    return null;
end
