//! `pgflume status`: how things stand, for people or machines.

use super::outcome::CommandResult;
use super::output::{Reader, say};
use crate::config::GlobalOptions;
use crate::operate::status;
use crate::operate::status::Status;
use crate::postgres::books::comparisons::Coverage;
use crate::postgres::books::rebuilds::{Phase, RebuildReport};
use crate::sync::Worker;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print again every two seconds
    #[arg(long)]
    watch: bool,
}

/// Between two prints of `--watch`.
const WATCH: Duration = Duration::from_secs(2);

pub(super) async fn run(args: StatusArgs, options: &GlobalOptions) -> CommandResult {
    let worker = Worker::new(options.config()?);
    loop {
        let status = status::status(&worker).await?;
        let shown = if args.json { serde_json::to_string_pretty(&status)? } else { text(&status) };
        let reader = say(shown)?;
        if !args.watch || reader == Reader::Gone {
            let answers = status.replica.error.is_none();
            return Ok(if answers || args.watch { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(WATCH).await;
    }
}

fn text(status: &Status) -> String {
    let or_never = |text: &Option<String>| text.clone().unwrap_or_else(|| "never".into());
    let lag = status.lag_seconds.map_or("none".into(), |s| format!("{s:.0} s"));
    let replica = match &status.replica.error {
        Some(error) => error.clone(),
        None => format!(
            "caught up at {}, last applied at {}",
            or_never(&status.replica.caught_up_at),
            or_never(&status.replica.applied_at)
        ),
    };
    let mut lines = vec![
        format!("queue      {}: {} messages, lag {lag}, {} dead letters", status.queue, status.queued, status.dead),
        format!("last sync  {}, batch {}", or_never(&status.last_sync.synced_at), status.last_sync.seq),
        format!("replica    {replica}"),
    ];
    for (name, table) in &status.tables {
        let state = match (&table.problem, table.captured) {
            (Some(problem), true) => problem.clone(),
            (_, true) => "captured".into(),
            (_, false) => "not captured (images only, or run `pgflume setup`)".into(),
        };
        lines.push(format!("table      {name}: {state}"));
        lines.extend(table.resync.as_ref().map(|r| format!("           {}", resync(r))));
        lines.extend(table.verified.as_ref().and_then(compared).map(|v| format!("           {v}")));
    }
    if let (Some(at), Some(from)) = (&status.last_sync.healed_at, &status.last_sync.healed_from) {
        lines.push(format!("healed     at {at}: the two sides had diverged ({from}), and all tables are rebuilt"));
    }
    lines.extend(status.drift.iter().map(|d| format!("drift      {}", d.line())));
    lines.join("\n")
}

fn resync(report: &RebuildReport) -> String {
    let of = report.estimated_rows.map(|rows| format!(" of about {rows}")).unwrap_or_default();
    let rate = report.rows_per_second.map(|rate| format!(", {rate:.0} rows/s")).unwrap_or_default();
    let eta = report.eta_seconds.map(|s| format!(", {s:.0} s to go")).unwrap_or_default();
    match (&report.problem, report.phase) {
        (Some(problem), _) => format!("its rebuild ({}) waits: {problem}", report.reason),
        (None, Phase::Done) => {
            let at = report.finished_at.as_deref().unwrap_or_default();
            format!("rebuilt ({}) at {at}: {} rows copied, {} removed", report.reason, report.rows, report.removed)
        }
        (None, Phase::Sweep) => {
            format!("being rebuilt ({}): {} rows copied, what is gone is removed", report.reason, report.rows)
        }
        (None, _) => format!("being rebuilt ({}): {} rows{of}{rate}{eta}", report.reason, report.rows),
    }
}

fn compared(coverage: &Coverage) -> Option<String> {
    let hours = coverage.every_row_within_seconds? / 3600.0;
    let different = coverage.last_different.unwrap_or_default();
    Some(format!("every row compared within {hours:.1} h, {different} differences"))
}
