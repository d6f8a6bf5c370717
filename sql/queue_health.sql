-- How the queue's table bears up. $1 its name in schema pgmq, $2 the queue's.
select coalesce((select s.n_dead_tup from pg_catalog.pg_stat_all_tables s where s.schemaname = 'pgmq' and s.relname = $1), 0),
       coalesce((select s.n_live_tup from pg_catalog.pg_stat_all_tables s where s.schemaname = 'pgmq' and s.relname = $1), 0),
       -- what keeps vacuum from removing what is dead: the oldest transaction that still may look at it
       coalesce((select pg_catalog.max(pg_catalog.age(o.xmin))::pg_catalog.int8 from (
           select a.backend_xmin as xmin from pg_catalog.pg_stat_activity a where a.pid <> pg_catalog.pg_backend_pid()
           union all select r.xmin from pg_catalog.pg_replication_slots r
           union all select p.transaction from pg_catalog.pg_prepared_xacts p) o where o.xmin is not null), 0),
       (select pg_catalog.count(*) from pgflume.kept k where k.queue = $2),
       -- of all queues: to add up one's own means to unpack it
       pg_catalog.pg_total_relation_size('pgflume.kept')
