//! `pgflume verify`: compares, and says what differs.

use super::outcome::CommandResult;
use super::output::say;
use super::progress::Progress;
use super::pulls;
use crate::config::{Chosen, GlobalOptions};
use crate::core::config_error::ConfigError;
use crate::core::difference::{TableReport, VerifyReport};
use crate::operate::{resync, verify};
use crate::sync::Worker;
use crate::sync::compare::report::{Counters, VerifyOptions};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Exit code where both sides differ.
const DIFFERENT: u8 = 3;

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// Names in schema.json [default: all of them]
    tables: Vec<String>,
    /// Write what should be there; exit 0 if everything was repaired
    #[arg(long, conflicts_with = "target")]
    repair: bool,
    /// Compare only this share of each table, such as 5%, and go on there the next time
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "target")]
    sample: Option<f64>,
    /// Compare this database, a read replica of LIBSQL_URL, with the same token
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// This sync of pgflume.json
    #[arg(long, value_name = "NAME")]
    sync: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("a share is more than 0% and at most 100%".into()),
    }
}

pub(super) async fn run(args: VerifyArgs, options: &GlobalOptions) -> CommandResult {
    let config = match options.chosen(args.sync.as_deref())? {
        Chosen::Queued(config) => *config,
        Chosen::Pulled(_) if args.sample.is_some() || args.target.is_some() => {
            return Err(ConfigError(
                "a sync that pulls is compared as a whole: leave out --sample and --target".into(),
            )
            .into());
        }
        Chosen::Pulled(pair) => return told(&pulls::pull(&pair).verify(&args.tables, args.repair).await?, args.json),
    };
    let worker = Worker::new(config);
    let tables = resync::tables(worker.schema(), &args.tables).map_err(|e| ConfigError(e.to_string()))?;
    let wanted = VerifyOptions {
        tables: tables.into_iter().map(str::to_owned).collect(),
        repair: args.repair,
        sample: args.sample,
        target: args.target.map(|url| options.target_at(&url)).transpose()?,
    };
    let counters = Arc::new(Counters::default());
    let report = tokio::select! {
        report = verify::verify(&worker, wanted, counters.clone()) => report?,
        () = watch(&counters) => VerifyReport::default(),
    };
    told(&report, args.json)
}

pub(super) fn told(report: &VerifyReport, is_json: bool) -> CommandResult {
    if is_json {
        say(serde_json::to_string_pretty(report)?)?;
    } else {
        report.tables.iter().try_for_each(|(name, table)| print(name, table))?;
    }
    let failed = report.tables.values().any(|t| t.problem.is_some());
    Ok(match report.is_equal() {
        true => ExitCode::SUCCESS,
        false if failed => ExitCode::FAILURE,
        false => ExitCode::from(DIFFERENT),
    })
}

/// Shows how far it is, for ever.
async fn watch(counters: &Counters) {
    let progress = Progress::new();
    loop {
        let (rows, differences) = (counters.rows.load(Ordering::Relaxed), counters.differences.load(Ordering::Relaxed));
        progress.show(&format!("{differences} differences"), rows, None);
        tokio::time::sleep(LOOK).await;
    }
}

fn print(name: &str, table: &TableReport) -> std::io::Result<()> {
    if let Some(problem) = &table.problem {
        say(format_args!("{name}: not compared: {problem}"))?;
        return Ok(());
    }
    let verdict = match (table.differences(), table.dead) {
        (0, 0) => "equal",
        (0, _) => "equal but for dead letters",
        _ => "DIFFERENT",
    };
    let part = if table.is_whole { "" } else { ", a part of the table" };
    let repaired = if table.repaired > 0 { format!("; {} of them repaired", table.repaired) } else { String::new() };
    say(format_args!(
        "{name}: {verdict}, {} rows compared{part}: {} different, {} missing, {} extra{repaired}; {} among the dead letters",
        table.rows, table.different, table.missing, table.extra, table.dead
    ))?;
    for example in &table.examples {
        let columns =
            if example.columns.is_empty() { String::new() } else { format!(" in {}", example.columns.join(", ")) };
        say(format_args!("  {:?}: {:?}{columns}", example.key, example.kind))?;
    }
    Ok(())
}
