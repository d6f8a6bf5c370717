//! Goes on rebuilding tables between calls: a call's budget is too short for a large one. Begins when a
//! drain leaves some behind, when somebody asks for a resync, and at the start; ends when nothing is left
//! that can be done. Where it fails it tries again, as often as the circuit lets it.

use super::lane::Lane;
use crate::core::error::Result;
use crate::postgres::Purpose;
use crate::postgres::books::{progress, rebuilds};
use crate::sync::{CALL_BUDGET, Worker};
use std::sync::Arc;
use std::time::Duration;

/// While another worker drains: when to look again.
const BUSY_PAUSE: Duration = Duration::from_secs(5);

/// After a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(10);

/// Time for Postgres to say whether tables wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs until the task is dropped.
pub(super) async fn run(lane: Arc<Lane>) {
    loop {
        while let Some(pause) = rebuild(&lane).await {
            tokio::time::sleep(pause).await;
        }
        lane.go_on.notified().await;
    }
}

/// Drains for as long as tables wait that can be rebuilt; when to try again where it is not known.
async fn rebuild(lane: &Lane) -> Option<Duration> {
    match tokio::time::timeout(ANSWER_TIMEOUT, is_waiting(&lane.worker)).await {
        Ok(Ok(false)) => return None,
        Ok(Ok(true)) => {}
        Ok(Err(e)) => {
            tracing::warn!(error = %e, "whether tables wait to be rebuilt is not known, and is asked again");
            return Some(FAILED_PAUSE);
        }
        Err(_) => return Some(FAILED_PAUSE),
    }
    while !lane.worker.is_stopping() {
        // What went wrong is in the log already.
        let Ok(done) = lane.worker.call(CALL_BUDGET).await else { return Some(FAILED_PAUSE) };
        if done.busy {
            return Some(BUSY_PAUSE);
        }
        if done.rebuilding <= done.stuck.len() as u64 {
            break;
        }
    }
    None
}

/// Takes no message: only a call may do so where nothing is left behind.
async fn is_waiting(worker: &Worker) -> Result<bool> {
    let client = worker.postgres().pinned(Purpose::Rebuild).await?;
    progress::ensure(&client, worker.queue()).await?;
    Ok(rebuilds::waiting(&client, worker.queue(), worker.schema()).await? > 0)
}
