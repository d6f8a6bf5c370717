-- what was there before, or changed while nothing captured it: the worker copies it, and removes what is gone
insert into pgflume.resyncs as r (queue, name, reason)
select {{ queue_name }}, n, 'setup' from pg_catalog.unnest(array[{{ names | join(", ") }}]) n
on conflict (queue, name) do update set phase = 'copy', cursor = null, fresh = false, reason = 'setup', problem = null,
    rows = 0, removed = 0, estimated = null, busy_ms = 0, unfit = 0, requested_at = pg_catalog.now(), started_at = null, finished_at = null;
