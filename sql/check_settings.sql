-- Whether cron would know where to post, and with which secret.
select pgflume.get_libsql_sync_url() is not null, pgflume.get_libsql_webhook_signature() is not null
