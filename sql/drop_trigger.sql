do $drop$
begin
    -- looked up first: dropping a trigger locks out readers too, even if there is none
    if exists (select from pg_catalog.pg_trigger where tgrelid = {{ on_text }}::pg_catalog.regclass and tgname = {{ trigger_text }}) then
        drop trigger {{ trigger }} on {{ on }};
    end if;
end
$drop$;
