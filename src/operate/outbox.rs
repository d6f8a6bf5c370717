//! Events of a queue that wait in its Postgres to be delivered.

use crate::core::error::Result;
use crate::core::event::{Event, Waiting};
use crate::core::queue_name::QueueName;
use crate::postgres::books::{outbox, progress};
use crate::postgres::{Client, Purpose};
use crate::sync::Worker;

/// Events that are asked for at once.
const PAGE: i64 = 50;

/// The outbox of one queue, over a connection of its own.
pub(crate) struct Outbox {
    client: Client,
    queue: QueueName,
}

impl Outbox {
    /// Opens it.
    pub async fn open(worker: &Worker) -> Result<Self> {
        let client = worker.postgres().pinned(Purpose::Events).await?;
        progress::ensure(&client, worker.queue()).await?;
        let queue = worker.queue().clone();
        let pruned = outbox::prune(&client, &queue).await?;
        if pruned > 0 {
            tracing::error!(events = pruned, "EVENTS_URL has not taken events for so long that the oldest are dropped");
        }
        Ok(Self { client, queue })
    }

    /// Adds one that belongs to no transaction.
    pub async fn keep(&self, event: Event) -> Result<()> {
        outbox::add(&self.client, &self.queue, &[event]).await
    }

    /// The oldest that wait.
    pub async fn oldest(&self) -> Result<Vec<Waiting>> {
        outbox::oldest(&self.client, &self.queue, PAGE).await
    }

    /// This one has arrived.
    pub async fn delivered(&self, id: i64) -> Result<()> {
        outbox::delivered(&self.client, id).await
    }
}
