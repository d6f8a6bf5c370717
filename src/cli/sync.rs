//! `pgflume sync`: one drain, for system cron or a Kubernetes CronJob.

use super::CommandResult;
use crate::config::Options;
use crate::sync::Worker;
use std::process::ExitCode;
use std::time::Duration;

/// The command has no caller that waits: it drains until the queue is empty.
const BUDGET: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, clap::Args)]
pub(super) struct SyncArgs {}

pub(super) async fn run(_: SyncArgs, options: &Options) -> CommandResult {
    // Marks that wait for a table are an error that the log has named.
    let drained = Worker::new(options.config()?).drain(BUDGET).await?;
    println!("{}", serde_json::to_string(&drained)?);
    Ok(if drained.paused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
