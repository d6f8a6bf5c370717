//! What a worker that is called keeps from one call to the next: its connection to Postgres, and what that has read of the
//! catalog. A new session plans every question anew, which takes ten times as long as a call that finds nothing. Of the
//! replica nothing stays open: between two calls others may copy its file.

use crate::core::error::Result;
use crate::postgres::Purpose;
use crate::postgres::drift::Drift;
use crate::postgres::link::{Connect, Known, Link};
use crate::replica::inventory::Inventory;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Without a call for so long, the connection is closed: pg_cron may call once a minute.
pub(super) const KEPT: Duration = Duration::from_secs(75);

/// After so long all is read anew, by another connection.
const LIFETIME: Duration = Duration::from_secs(300);

/// A connection, and what it has read.
pub(super) struct Connected {
    pub link: Box<dyn Link>,
    pub known: Known,
    /// What has drifted, and what the replica had then.
    pub drift: Option<(Inventory, Vec<Drift>)>,
    /// When it was opened.
    pub since: Instant,
    /// An earlier drain had it.
    pub is_kept: bool,
}

impl Connected {
    /// A new one.
    pub async fn new(source: &dyn Connect) -> Result<Self> {
        let (link, since) = (source.connect(Purpose::Step).await?, Instant::now());
        link.ensure().await?;
        let known = link.known().await?;
        Ok(Self { link, known, drift: None, since, is_kept: false })
    }
}

/// One that waits, and the task that closes it.
struct Waiting {
    connected: Connected,
    closing: AbortHandle,
}

/// Where the connection of the last call waits for the next one.
#[derive(Default)]
pub(super) struct Kept {
    /// How long; `None`: it is closed with the call.
    time: Option<Duration>,
    place: Arc<Mutex<Option<Waiting>>>,
}

impl Kept {
    /// For so long.
    pub fn lasting(time: Duration) -> Self {
        Self { time: Some(time), place: Arc::default() }
    }

    /// The connection of the last call, where that was not long ago. Whether the catalog has changed since, its first step
    /// finds out as any other does.
    pub fn take(&self) -> Option<Connected> {
        let Waiting { connected, closing } = lock(&self.place).take()?;
        closing.abort();
        (connected.since.elapsed() < LIFETIME).then_some(connected)
    }

    /// Keeps it for the next call.
    pub fn put(&self, connected: Connected) {
        let Some(time) = self.time else { return };
        let mut waiting = lock(&self.place);
        let place = Arc::downgrade(&self.place);
        let closing = tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if let Some(place) = place.upgrade() {
                lock(&place).take();
            }
        });
        *waiting = Some(Waiting { connected, closing: closing.abort_handle() });
    }

    /// Closes it.
    pub fn clear(&self) {
        drop(self.take());
    }
}

fn lock(place: &Mutex<Option<Waiting>>) -> MutexGuard<'_, Option<Waiting>> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}
