//! `pgflume nuke`: asks, then [`crate::sync::pairing::nuke`].

use super::outcome::CommandResult;
use super::output::say;
use super::pulls;
use crate::config::{Chosen, GlobalOptions};
use crate::core::config_error::ConfigError;
use crate::pull::Pull;
use crate::sync::pairing::Nuked;
use crate::sync::{Worker, pairing};
use std::error::Error;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

/// Drop and recreate the replicated tables of the replica at LIBSQL_URL, and pair the queue with it
#[derive(Debug, clap::Args)]
pub(super) struct NukeArgs {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Leave the tables empty: do not fill them from Postgres
    #[arg(long)]
    no_refill: bool,
    /// The replica and the queue of this sync of pgflume.json
    #[arg(long, value_name = "NAME")]
    sync: Option<String>,
}

pub(super) async fn run(args: NukeArgs, options: &GlobalOptions) -> CommandResult {
    let replica = args.sync.as_ref().map_or("at LIBSQL_URL".into(), |name| format!("of the sync {name:?}"));
    let worker = match options.chosen(args.sync.as_deref())? {
        Chosen::Queued(config) => Worker::new(*config),
        Chosen::Pulled(pair) => return pulled(&args, &pulls::pull(&pair)).await,
    };
    let what = format!("all replicated tables {replica}, and pair queue {} with this replica", worker.queue().as_str());
    if !args.yes && !confirmed(&what)? {
        say("Nothing was changed.")?;
        return Ok(ExitCode::FAILURE);
    }
    let done = pairing::nuke(&worker, None, !args.no_refill).await?;
    debug_assert_eq!(done, Nuked::Done, "no request has an id here");
    let next = if args.no_refill { "stay empty" } else { "are filled from Postgres by the next drains" };
    say(format_args!("The replica's tables were made anew, and {next}."))?;
    Ok(ExitCode::SUCCESS)
}

/// The same of a sync that pulls.
async fn pulled(args: &NukeArgs, pull: &Pull) -> CommandResult {
    if args.no_refill {
        let problem =
            format!("the sync {:?} pulls, and its next pass fills the tables: leave out --no-refill", pull.name());
        return Err(ConfigError(problem).into());
    }
    if !args.yes && !confirmed(&format!("all tables of the sync {:?} in its replica", pull.name()))? {
        say("Nothing was changed.")?;
        return Ok(ExitCode::FAILURE);
    }
    pull.nuke(None).await?;
    say(format_args!(
        "The replica's tables were made anew, and are filled by the next pass (`pgflume sync {}`).",
        pull.name()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn confirmed(what: &str) -> Result<bool, Box<dyn Error + Send + Sync>> {
    if !std::io::stdin().is_terminal() {
        return Err(Box::new(ConfigError(
            "nuke asks before it empties anything, and there is no terminal: add --yes".into(),
        )));
    }
    let mut out = std::io::stdout().lock();
    write!(out, "Empty {what}? Readers see them empty until they are filled again. [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
