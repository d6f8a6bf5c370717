//! How the log stands that clients of a sync are fed from. Takes a replica, asks it, changes nothing.

use crate::core::error::{Error, Result};
use crate::pull::Pull;
use crate::replica::Replica;
pub use crate::replica::feed_state::{FedTable, FeedState, made_at};
use crate::replica::target::Target;
use crate::sync::Worker;
use std::time::Duration;

/// Time for the replica to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A sync that feeds clients.
#[derive(Debug, Clone)]
pub struct FedSync {
    target: Target,
    /// Its name in the replica.
    sync: String,
    tables: Vec<String>,
}

impl FedSync {
    /// Of a queue; `None` where none of its tables is fed.
    pub fn of_queue(worker: &Worker) -> Option<Self> {
        let fed = worker.schema().tables().filter(|table| table.feed.is_some());
        Self::of(worker.target(), worker.queue().as_str(), fed.map(|table| table.name.clone()).collect())
    }

    /// Of a sync that pulls; `None` where none of its tables is fed.
    pub fn of_pull(pull: &Pull) -> Option<Self> {
        Self::of(pull.target(), pull.name(), pull.fed().iter().map(|table| table.name.clone()).collect())
    }

    fn of(target: &Target, sync: &str, tables: Vec<String>) -> Option<Self> {
        (!tables.is_empty()).then(|| Self { target: target.clone(), sync: sync.to_owned(), tables })
    }

    /// Its replica.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its tables that are fed.
    pub fn tables(&self) -> &[String] {
        &self.tables
    }

    /// How it stands, by its replica.
    pub async fn state(&self) -> Result<FeedState> {
        let asked = async {
            let state = match Replica::existing(&self.target).await? {
                Some(replica) => replica.feed_state(&self.sync).await?,
                None => FeedState::default(),
            };
            Ok(state.with(self.tables.iter().cloned()))
        };
        let late = || Error::retry(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
        tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| Err(late()))
    }
}
