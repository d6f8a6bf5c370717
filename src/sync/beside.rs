//! What goes on beside a step on a second connection: commits of their own, and a look at who waits for what the step
//! holds. A step that is at work ends early for them; one that waits for the replica is given up. Either way the next
//! one takes its locks behind theirs.

use crate::core::error::{Error, Result};
use crate::postgres::Purpose;
use crate::postgres::link::{Connect, Link};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Between two looks, and before the first: most steps are over by then. Whoever is seen twice waits for too long.
const LOOK: Duration = Duration::from_secs(1);

/// The second connection of a session, opened when it is first needed.
pub(super) struct Beside<'a> {
    source: &'a dyn Connect,
    link: OnceCell<Box<dyn Link>>,
    is_waited_for: AtomicBool,
}

impl<'a> Beside<'a> {
    pub fn new(source: &'a dyn Connect) -> Self {
        Self { source, link: OnceCell::new(), is_waited_for: AtomicBool::new(false) }
    }

    pub async fn link(&self) -> Result<&dyn Link> {
        Ok(self.link.get_or_try_init(|| self.source.connect(Purpose::Beside)).await?.as_ref())
    }

    /// A step begins.
    pub fn begin(&self) {
        self.is_waited_for.store(false, Ordering::Relaxed);
    }

    /// Whether somebody was seen who waits for the step.
    pub fn is_waited_for(&self) -> bool {
        self.is_waited_for.load(Ordering::Relaxed)
    }

    /// Does a part of the step whose transaction is `xid`, unless others wait for it too long. What the replica has
    /// applied of it is in its ledger, and what it may still apply is fenced: as after any answer that is lost.
    pub async fn unless_waited_for<T>(&self, xid: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.waited_for(xid) => Err(Error::unknown(
                "the step is given up, because a session waits for a table that it holds (see pg_locks) and it would take longer; what is not acknowledged is still queued",
            )),
        }
    }

    /// Comes back when somebody has been seen twice.
    async fn waited_for(&self, xid: &str) {
        loop {
            tokio::time::sleep(LOOK).await;
            let is_any = self.look(xid).await.unwrap_or_else(|e| {
                tracing::debug!(error = %e, "who waits for the step cannot be seen");
                false
            });
            if self.is_waited_for.swap(is_any, Ordering::Relaxed) && is_any {
                return;
            }
        }
    }

    async fn look(&self, xid: &str) -> Result<bool> {
        self.link().await?.is_waited_for(xid).await
    }
}
