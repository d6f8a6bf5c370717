//! A queue that is drained, with what goes on beside its calls.

use crate::sync::Worker;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// After following broke off by a fault of its own.
const FOLLOW_AGAIN: Duration = Duration::from_secs(10);

/// One queue.
pub struct Lane {
    /// Does the work.
    pub worker: Worker,
    /// Tables are left to be rebuilt.
    pub(super) go_on: Notify,
    /// Changes are applied as they come.
    pub(super) is_following: bool,
}

impl Lane {
    /// Of a worker.
    pub fn new(worker: Worker, is_following: bool) -> Self {
        Self { worker, go_on: Notify::new(), is_following }
    }

    /// Follows in a task of its own, for the life of the server.
    pub(super) async fn follow(self: Arc<Self>) {
        while self.is_following && !self.worker.is_stopping() {
            let followed = self.clone();
            if let Err(e) = tokio::spawn(async move { followed.worker.follow().await }).await {
                tracing::error!(error = %e, "following broke off, and begins again in ten seconds: please report this");
                tokio::time::sleep(FOLLOW_AGAIN).await;
            }
        }
        std::future::pending().await
    }
}
