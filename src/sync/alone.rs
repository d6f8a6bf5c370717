//! Work on the replica that takes long, while no step of anybody runs: a server takes a transaction away that another
//! one waits for.

use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::postgres::awake::awake;
use crate::postgres::books::progress;
use crate::postgres::{Client, rows};
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// How long to wait for the step of another worker before tables or indexes are made.
const MAKING_PATIENCE: Duration = Duration::from_secs(10);

/// Does `work` under the single flight.
pub(super) async fn alone<T>(client: &Client, queue: &QueueName, work: impl Future<Output = Result<T>>) -> Result<T> {
    rows::begin_waiting(client, MAKING_PATIENCE).await?;
    progress::wait_for_lock(client, queue).await.map_err(|e| match e.sql_state() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => Error::retry(
            "the replica lacks tables or indexes, and another worker's step takes long; it will be tried again",
        ),
        _ => e,
    })?;
    let made = awake(client, work).await?;
    client.commit().await?;
    Ok(made)
}
