//! `pgflume resync`: asks for tables to be rebuilt, then drains until they are.

use super::outcome::CommandResult;
use super::output::say;
use super::progress::Progress;
use super::{pulls, verify};
use crate::config::{Chosen, GlobalOptions};
use crate::core::config_error::ConfigError;
use crate::operate::resync;
use crate::postgres::Purpose;
use crate::postgres::books::rebuilds;
use crate::postgres::books::rebuilds::RebuildReport;
use crate::pull::Asked;
use crate::sync::Worker;
use std::process::ExitCode;
use std::time::Duration;

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(500);

/// No caller waits for one drain.
const BUDGET: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, clap::Args)]
pub(super) struct ResyncArgs {
    /// Names in schema.json [default: all of them]
    tables: Vec<String>,
    /// Only ask for it: the next drains of the worker do it
    #[arg(long)]
    detach: bool,
    /// Of this sync of pgflume.json; one that pulls compares all rows, and writes what differs
    #[arg(long, value_name = "NAME")]
    sync: Option<String>,
}

pub(super) async fn run(args: ResyncArgs, options: &GlobalOptions) -> CommandResult {
    let config = match options.chosen(args.sync.as_deref())? {
        Chosen::Queued(config) => *config,
        Chosen::Pulled(pair) if args.detach => {
            let names = match pulls::pull(&pair).ask_to_compare(&args.tables, None).await? {
                Asked::Tables(names) => names,
                Asked::Unknown(problem) => return Err(ConfigError(problem).into()),
                Asked::Replayed => Vec::new(), // by a request of an id, which this has not
            };
            say(format_args!("compared, and repaired, after the next pass: {}", names.join(", ")))?;
            return Ok(ExitCode::SUCCESS);
        }
        Chosen::Pulled(pair) => return verify::told(&pulls::pull(&pair).verify(&args.tables, true).await?, false),
    };
    let worker = Worker::new(config).ending_caught_up();
    let schema = worker.schema().clone();
    let names = resync::tables(&schema, &args.tables).map_err(|e| ConfigError(e.to_string()))?;
    resync::request(&worker, &names).await?;
    if args.detach {
        say(format_args!("the next drains rebuild: {}", names.join(", ")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let done = tokio::select! {
        done = rebuild(&worker, &names) => done?,
        () = watch(&worker, &names) => Vec::new(),
    };
    for report in &done {
        let outcome = match &report.problem {
            Some(problem) => format!("waits: {problem}"),
            None if report.phase != rebuilds::Phase::Done => "waits, see the log".into(),
            None => format!("{} rows copied, {} removed", report.rows, report.removed),
        };
        say(format_args!("{}: {outcome}", report.name))?;
    }
    let all = done.iter().all(|r| r.phase == rebuilds::Phase::Done) && done.len() == names.len();
    if done.len() < names.len() {
        say("a nuke came in between: what it left out is not rebuilt")?;
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Drains until the tables are rebuilt or cannot be; another drain that runs is waited for.
async fn rebuild(worker: &Worker, names: &[&str]) -> crate::core::error::Result<Vec<RebuildReport>> {
    loop {
        let drained = worker.drain(BUDGET).await?;
        // A connection of its own each time: one that waits for a drain may be ended (idle_session_timeout).
        let mut reports = rebuilds::reports(&worker.postgres().pinned(Purpose::Resync).await?, worker.queue()).await?;
        reports.retain(|r| names.contains(&r.name.as_str()));
        let is_over = |r: &RebuildReport| {
            !matches!(r.phase, rebuilds::Phase::Copy | rebuilds::Phase::Sweep) || drained.stuck.contains(&r.name)
        };
        if reports.iter().all(is_over) {
            return Ok(reports);
        }
        // Whoever drains rebuilds them as well.
        tokio::time::sleep(LOOK).await;
    }
}

/// Shows how far it is, for ever. Whether the rebuild goes on is not for this look to say.
async fn watch(worker: &Worker, names: &[&str]) {
    let progress = Progress::new();
    let mut client = None;
    loop {
        if client.is_none() {
            client = worker.postgres().pinned(Purpose::Resync).await.ok();
        }
        let reports = match &client {
            Some(client) => rebuilds::reports(client, worker.queue()).await.ok(),
            None => None,
        };
        match reports {
            Some(reports) => show(&progress, &reports, names),
            None => client = None,
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn show(progress: &Progress, reports: &[RebuildReport], names: &[&str]) {
    let mut current = reports.iter().filter(|r| names.contains(&r.name.as_str()));
    if let Some(report) = current.find(|r| r.phase != rebuilds::Phase::Done && r.rows > 0) {
        let rows = |rows: i64| u64::try_from(rows).unwrap_or_default();
        progress.show(&report.name, rows(report.rows), report.estimated_rows.map(rows));
    }
}
