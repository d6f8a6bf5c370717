-- Whether cron would know where to post, and with which secret; and which queues there are beside $1.
select pgflume.get_libsql_sync_url() is not null, pgflume.get_libsql_webhook_signature() is not null,
    (select pg_catalog.string_agg(distinct c.queue, ', ' order by c.queue) from pgflume.captured c where c.queue <> $1)
