grant usage on schema {{schema}} to pgflume_worker;
grant select on {{source}} to pgflume_worker;
