//! `pgflume teardown`: asks, then [`crate::postgres::capture::teardown`].

use super::outcome::CommandResult;
use super::output::{print, say};
use crate::config::GlobalOptions;
use crate::core::config_error::ConfigError;
use crate::core::queue_name::QueueName;
use crate::postgres::capture;
use crate::postgres::capture::TeardownOptions;
use std::error::Error;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

/// Remove what setup made. The queue stays unless --queue
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TeardownArgs {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Drop the queue and its dead letters too, with everything that is on them
    #[arg(long)]
    pub queue: bool,
}

/// Runs the command.
pub async fn run(args: TeardownArgs, options: &GlobalOptions) -> CommandResult {
    let postgres = options.postgres()?;
    let queue = QueueName::parse(&options.queue_name)?;
    if !args.yes && !confirmed(&queue, args.queue)? {
        say("Nothing was changed.")?;
        return Ok(ExitCode::FAILURE);
    }
    let report = capture::teardown(&postgres, &queue, TeardownOptions { drop_queue: args.queue }).await?;
    print(report)?;
    Ok(ExitCode::SUCCESS)
}

fn confirmed(queue: &QueueName, drop_queue: bool) -> Result<bool, Box<dyn Error + Send + Sync>> {
    if !std::io::stdin().is_terminal() {
        return Err(Box::new(ConfigError(
            "teardown asks before it removes anything, and there is no terminal: add --yes".into(),
        )));
    }
    let and = if drop_queue { ", and drop the queue with all its messages" } else { "" };
    let mut out = std::io::stdout().lock();
    write!(
        out,
        "Remove the capture of queue {}{and}? Changes from then on are not replicated. [y/N] ",
        queue.as_str()
    )?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
