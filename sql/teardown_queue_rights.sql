-- The rights on a queue that stays.
drop trigger if exists pgflume_deleted on {{ queue }};
drop trigger if exists pgflume_changed on {{ queue }};
drop trigger if exists pgflume_truncated on {{ queue }};
drop trigger if exists pgflume_bell on {{ queue }};
do $rights$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'pgflume_capture') then
        drop policy if exists pgflume_capture on {{ queue }};
        revoke all on {{ queue }} from pgflume_capture;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'pgflume_worker') then
        revoke all on {{ queue }} from pgflume_worker;
    end if;
end
$rights$;
