//! Goes on rebuilding tables between calls: a call's budget is too short for a large one. Begins when a
//! drain leaves some behind, when somebody asks for a resync, and at the start; ends when nothing is left
//! that can be done, or when it fails: the next call tries again.

use super::App;
use crate::error::Result;
use crate::progress;
use crate::resyncs;
use crate::sync::{CALL_BUDGET, Worker};
use std::sync::Arc;
use std::time::Duration;

/// While another worker drains: when to look again.
const BUSY_PAUSE: Duration = Duration::from_secs(5);

/// Runs until the task is dropped.
pub(super) async fn run(app: Arc<App>) {
    match is_waiting(&app.worker).await {
        Ok(true) => app.go_on.notify_one(),
        Ok(false) => {}
        Err(e) => tracing::warn!(error = %e, "whether tables wait to be rebuilt is seen with the next call"),
    }
    loop {
        app.go_on.notified().await;
        while !app.worker.is_stopping() {
            // What went wrong is in the log already.
            let Ok(done) = app.worker.call(CALL_BUDGET).await else { break };
            if done.rebuilding <= done.stuck.len() as u64 && !done.busy {
                break;
            }
            if done.busy {
                tokio::time::sleep(BUSY_PAUSE).await;
                if !matches!(is_waiting(&app.worker).await, Ok(true)) {
                    break;
                }
            }
        }
    }
}

/// Takes no message: only a call may do so where nothing is left behind.
async fn is_waiting(worker: &Worker) -> Result<bool> {
    let client = worker.postgres().pinned().await?;
    progress::ensure(&client, worker.queue()).await?;
    Ok(resyncs::waiting(&client, worker.queue(), worker.schema()).await? > 0)
}
