//! Connections of `PUSH_URL`: few, kept open, each checked once, and cleaned before another request has it.

use super::login;
use crate::core::error::{Error, Result};
use crate::postgres::{Client, PgUrl, Purpose};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Most connections: each is a process of Postgres, and writes of clients are short.
const CONNECTIONS: usize = 8;

/// Most requests that have one or wait for one: each holds a body of up to a mebibyte, and what was read of it.
const WAITING: usize = 64;

/// How long a request waits for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connections.
pub(super) struct Pool {
    url: PgUrl,
    idle: Mutex<Vec<Client>>,
    room: Semaphore,
    slots: Semaphore,
}

/// A connection for one request. One that is not given back is closed, with whatever it was about.
pub(super) struct Taken<'a> {
    client: Client,
    pool: &'a Pool,
    _room: SemaphorePermit<'a>,
    _slot: SemaphorePermit<'a>,
}

impl Pool {
    pub fn new(url: PgUrl) -> Self {
        Self { url, idle: Mutex::default(), room: Semaphore::new(WAITING), slots: Semaphore::new(CONNECTIONS) }
    }

    /// A connection, once there is one.
    pub async fn take(&self) -> Result<Taken<'_>> {
        let busy = || Error::retry("all connections of PUSH_URL are taken: send it again later");
        let room = self.room.try_acquire().map_err(|_| busy())?;
        let slot = tokio::time::timeout(PATIENCE, self.slots.acquire()).await;
        let slot = slot.ok().and_then(|slot| slot.ok()).ok_or_else(busy)?;
        let client = match self.idle() {
            Some(client) => client,
            None => self.open().await?,
        };
        Ok(Taken { client, pool: self, _room: room, _slot: slot })
    }

    fn idle(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }

    async fn open(&self) -> Result<Client> {
        let client = self.url.pinned(Purpose::Push).await.map_err(in_our_words)?;
        login::check(&client).await?;
        Ok(client)
    }
}

/// Remedies for connections name the variable of the worker's.
fn in_our_words(error: Error) -> Error {
    let words = error.to_string().replace("PGMQ_URL", "PUSH_URL");
    error.in_words(words)
}

impl Taken<'_> {
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Gives it back after its transaction has ended. Functions of the operator's may have left settings in the session.
    pub async fn give_back(self) {
        match self.client.run_script("discard all").await {
            Ok(()) => self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.client),
            Err(e) => tracing::debug!(error = %Error::from(e), "a connection of PUSH_URL is given up"),
        }
    }
}
