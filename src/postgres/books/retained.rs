//! All SQL of `pgflume.kept`: acknowledged messages, kept for a while with the position of the replica at which
//! they were taken. A replica that lost its last batches is caught up from them. Takes a client inside a step's
//! transaction; knows nothing of the replica.

use crate::core::error::Result;
use crate::core::position::Head;
use crate::core::queue_name::QueueName;
use crate::core::reconcile::RetainedStep;
use crate::postgres::{Client, queue};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_postgres::types::Type;

/// Keeps the positions that a step led to, and the tables of which it wrote rows that no message names; forgets
/// what is older than `window`.
pub async fn record(
    client: &Client,
    queue: &QueueName,
    after: &Head,
    tokens: &[String],
    copied: &BTreeSet<String>,
    window: Duration,
) -> Result<()> {
    let copied: Vec<&str> = copied.iter().map(String::as_str).collect();
    let sql = "insert into pgflume.kept (queue, epoch, after_seq, after_token, tokens, copied)
               values ($1, $2, $3, $4, $5, $6)";
    let parameters = [
        (&queue.as_str() as _, Type::TEXT),
        (&after.epoch as _, Type::TEXT),
        (&after.seq as _, Type::INT8),
        (&after.token as _, Type::TEXT),
        (&tokens as _, Type::TEXT_ARRAY),
        (&copied as _, Type::TEXT_ARRAY),
    ];
    client.execute_typed(sql, &parameters).await?;
    // Whole steps only: a row of messages may be older than that of their positions by the time of a step.
    let old =
        "delete from pgflume.kept where queue = $1 and at < pg_catalog.now() - $2 * interval '1 s' and after_seq < $3";
    let seconds = window.as_secs_f64();
    let parameters = [(&queue.as_str() as _, Type::TEXT), (&seconds as _, Type::FLOAT8), (&after.seq as _, Type::INT8)];
    client.execute_typed(old, &parameters).await?;
    Ok(())
}

/// The steps that are kept of `epoch`, oldest first.
pub async fn steps(client: &Client, queue: &QueueName, epoch: &str) -> Result<Vec<RetainedStep>> {
    let sql = "select after_seq, after_token, tokens, copied from pgflume.kept
               where queue = $1 and epoch = $2 and tokens <> '{}' order by after_seq, id";
    let rows = client.query_typed(sql, &[(&queue.as_str(), Type::TEXT), (&epoch, Type::TEXT)]).await?;
    let step = |row: &tokio_postgres::Row| {
        let after = Head { epoch: epoch.to_owned(), seq: row.try_get(0)?, token: row.try_get(1)? };
        Ok(RetainedStep { after, tokens: row.try_get(2)?, copied: row.try_get(3)? })
    };
    rows.iter().map(step).collect()
}

/// Most messages that are put back: with more, copying the tables is quicker, and one statement would not do.
const MOST_PUT_BACK: i64 = 500_000;

/// Whether what was taken at `seq` or later can have its places on the queue again.
pub async fn can_put_back(client: &Client, queue: &QueueName, epoch: &str, seq: i64) -> Result<bool> {
    let sql = "select coalesce(pg_catalog.sum(pg_catalog.cardinality(msg_ids)), 0)::bigint, coalesce(pg_catalog.max((select pg_catalog.max(i) from pg_catalog.unnest(msg_ids) i)), 0)
               from pgflume.kept where queue = $1 and epoch = $2 and after_seq >= $3";
    let parameters = [(&queue.as_str() as _, Type::TEXT), (&epoch as _, Type::TEXT), (&seq as _, Type::INT8)];
    let row = client.query_typed_one(sql, &parameters).await?;
    let (messages, last): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    // Above the last id, the queue would give the same out again to a writer.
    Ok(messages <= MOST_PUT_BACK && last <= queue::last_id(client, queue).await?)
}

/// Puts all messages that were taken at `seq` or later back in their places on the queue; how many.
pub async fn put_back(client: &Client, queue: &QueueName, epoch: &str, seq: i64) -> Result<u64> {
    let sql = format!(
        "with kept as (delete from pgflume.kept where queue = $1 and epoch = $2 and after_seq >= $3
                       returning msg_ids, messages)
         insert into {} (msg_id, vt, message) overriding system value
         select m.id, pg_catalog.clock_timestamp(), m.text::pg_catalog.jsonb from kept, rows from (pg_catalog.unnest(msg_ids), pg_catalog.unnest(messages)) m(id, text) order by 1
         on conflict do nothing",
        queue.table()
    );
    let parameters = [(&queue.as_str() as _, Type::TEXT), (&epoch as _, Type::TEXT), (&seq as _, Type::INT8)];
    Ok(client.execute_typed(&sql, &parameters).await?)
}
