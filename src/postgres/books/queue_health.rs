//! How the queue's table bears up: what vacuum has to do there, what keeps it from doing so, and what is kept.

use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::postgres::Client;
use serde::Serialize;
use tokio_postgres::types::Type;

/// How the queue's table bears up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QueueHealth {
    /// Rows of messages that were taken, and that vacuum has not removed yet.
    pub dead_tuples: i64,
    /// Rows of messages, as Postgres last believed.
    pub live_tuples: i64,
    /// Transactions since the oldest one that keeps vacuum from removing rows.
    pub oldest_xmin_age: i64,
    /// Takes of acknowledged messages that are kept for a replica that loses its last batches, and notes of where they led.
    pub retained: i64,
    /// Bytes that those of all queues take on disk.
    pub retained_bytes: i64,
}

/// Asks for it. What a role may not see counts as nothing.
pub(crate) async fn read(client: &Client, queue: &QueueName) -> Result<QueueHealth> {
    let table = format!("q_{}", queue.as_str());
    let parameters = [(&table as _, Type::TEXT), (&queue.as_str() as _, Type::TEXT)];
    let row = client.query_typed_one(include_str!("../../../sql/queue_health.sql"), &parameters).await?;
    Ok(QueueHealth {
        dead_tuples: row.try_get(0)?,
        live_tuples: row.try_get(1)?,
        oldest_xmin_age: row.try_get(2)?,
        retained: row.try_get(3)?,
        retained_bytes: row.try_get(4)?,
    })
}
