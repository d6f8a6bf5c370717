create or replace function {{ function }}() returns trigger
language plpgsql security definer
set search_path = ''
{% for setting in settings %}
set {{ setting }}
{% endfor %}
as {{ body }};
alter function {{ function }}() owner to pgflume_capture;
revoke all on function {{ function }}() from public;
