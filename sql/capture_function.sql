create or replace function {{function}}() returns trigger
language plpgsql security definer
{{settings}}
as {{body}};
alter function {{function}}() owner to pgflume_capture;
revoke all on function {{function}}() from public;
