//! `pgflume demo`: see [`crate::demo`].

use super::outcome::CommandResult;
use crate::demo;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Leave Postgres running and the replica in place
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(args: DemoArgs) -> CommandResult {
    let equal = demo::run(args.keep).await?;
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
