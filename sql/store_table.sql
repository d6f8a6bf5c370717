-- Stores a setting: $1 name, $2 value. A row comes back if that changed something.
insert into pgflume.settings as s (name, value)
values ($1, $2)
on conflict (name) do update set value = excluded.value where s.value is distinct from excluded.value
returning 'changed'
