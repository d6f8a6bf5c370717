//! `pgflume sync`: one drain, for system cron or a Kubernetes CronJob.

use super::outcome::CommandResult;
use super::output::say;
use crate::config::GlobalOptions;
use crate::sync::Worker;
use std::process::ExitCode;
use std::time::Duration;

/// The command has no caller that waits: it drains until nothing is left at a step's snapshot.
const BUDGET: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, clap::Args)]
pub(super) struct SyncArgs {}

pub(super) async fn run(_: SyncArgs, options: &GlobalOptions) -> CommandResult {
    let drained = Worker::new(options.config()?).ending_caught_up().drain(BUDGET).await?;
    say(serde_json::to_string(&drained)?)?;
    // Tables that wait for somebody are an error that the log has named.
    let waits = !drained.paused.is_empty() || !drained.stuck.is_empty();
    Ok(if waits { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
