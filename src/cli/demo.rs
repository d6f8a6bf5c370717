//! `pgflume demo`: see [`crate::demo`].

use super::outcome::CommandResult;
use crate::demo;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Leave Postgres running and the replica in place
    #[arg(long)]
    keep: bool,
    /// A pull in place of triggers and a queue: nothing is installed, and the login may only read
    #[arg(long, conflicts_with = "keep")]
    pull: bool,
}

pub(super) async fn run(args: DemoArgs) -> CommandResult {
    let equal = if args.pull { demo::pull::run().await? } else { demo::run(args.keep).await? };
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
