
begin
    -- one that is right stays as it is: workers take another one for one that was away
    if exists (
        select from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where g.tgrelid = {{ on_text }}::pg_catalog.regclass and g.tgname = {{ trigger_text }} and g.tgenabled = 'A'
            and n.nspname = 'pgflume' and p.proname = {{ function_text }} and g.tgtype = {{ type }}
            and g.tgoldtable is not distinct from {{ "'old_rows'" if sees_old else "null" }}
            and g.tgnewtable is not distinct from {{ "'new_rows'" if sees_new else "null" }}
            and g.tgqual is null and pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) = 0
    ) then
        return;
    end if;
    create or replace trigger {{ trigger }} after {{ event }} on {{ on }}
{% if sees_old or sees_new %}
        referencing{{ " old table as old_rows" if sees_old }}{{ " new table as new_rows" if sees_new }}
{% endif %}
        for each {{ level }} execute function {{ function }}();
    alter table {{ on }} enable always trigger {{ trigger }};
end
