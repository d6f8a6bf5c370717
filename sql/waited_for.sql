-- Whether somebody waits for a table of the transaction $1 (xid8), or for its snapshot to be gone. Whoever waits for a
-- row of it is another worker, who waits as long as he wants.
select exists (
    select
    from pg_catalog.pg_locks own
    join pg_catalog.pg_locks waiting
        on not waiting.granted and waiting.locktype in ('relation', 'virtualxid')
        and own.pid = any (pg_catalog.pg_blocking_pids(waiting.pid))
    where own.locktype = 'transactionid' and own.granted and own.mode = 'ExclusiveLock'
        and own.transactionid = $1::pg_catalog.text::pg_catalog.xid8::pg_catalog.xid)
