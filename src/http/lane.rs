//! A queue that is drained, with what goes on beside its calls.

use super::kept::Kept;
use crate::operate::status::{self, Status};
use crate::sync::Worker;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

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
    /// Whether the replica answers.
    target_up: Kept<bool>,
    /// What Postgres said last, and when.
    status: Mutex<Option<(Instant, Status)>>,
    /// Since when it is behind.
    behind_since: Mutex<Option<Instant>>,
}

impl Lane {
    /// Of a worker.
    pub fn new(worker: Worker, is_following: bool) -> Self {
        let target_up = Kept::new(status::asked_every(worker.target()));
        // One that follows has its connections.
        let worker = if is_following { worker } else { worker.keeping_its_connection() };
        Self {
            target_up,
            worker,
            go_on: Notify::new(),
            is_following,
            status: Mutex::default(),
            behind_since: Mutex::default(),
        }
    }

    /// From when on the queue is behind, where nothing else is asked for.
    pub(super) fn usual_lag(&self) -> Duration {
        if self.is_following { status::FOLLOWED_LAG } else { status::USUAL_LAG }
    }

    /// Whether it has been behind for so long, by what is seen here: the begin of a long transaction is long ago when it
    /// commits, and a worker that follows is not behind for that.
    pub(super) fn is_behind(&self, is_now: bool, limit: Duration) -> bool {
        let mut since = self.behind_since.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_now {
            *since = None;
            return false;
        }
        let since = *since.get_or_insert_with(Instant::now);
        !self.is_following || since.elapsed() >= limit
    }

    /// Whether the replica answers; a crowd that asks costs no more than one.
    pub(super) async fn target_answers(self: &Arc<Self>) -> bool {
        let lane = self.clone();
        let ask = || async move { status::target_answers(lane.worker.target()).await };
        self.target_up.get(ask).await.unwrap_or_default()
    }

    /// What Postgres says, or said last, and how long ago.
    pub(super) fn last_status(&self, now: Option<Status>) -> (Option<Status>, Duration) {
        let mut last = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = now {
            *last = Some((Instant::now(), now));
        }
        last.as_ref().map_or((None, Duration::ZERO), |(at, status)| (Some(status.clone()), at.elapsed()))
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
