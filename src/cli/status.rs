//! `pgflume status`: how things stand, for people or machines.

use super::outcome::CommandResult;
use super::output::{Reader, say};
use super::pulls;
use crate::config::{GlobalOptions, Pair};
use crate::core::error::Error;
use crate::operate::feed::{FedSync, FedTable, FeedState};
use crate::operate::status;
use crate::operate::status::Status;
use crate::postgres::bell::Wakeup;
use crate::postgres::books::comparisons::Coverage;
use crate::postgres::books::rebuilds::{Phase, RebuildReport};
use crate::pull::{PullStatus, TableStatus};
use crate::sync::Worker;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// Show queue depth, lag, last sync, tables and dead letters; with pgflume.json a line a sync
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// This sync of pgflume.json, with its tables
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print again every two seconds
    #[arg(long)]
    watch: bool,
}

/// Seconds after which a writer's transaction that a follower does not sleep because of, or behind, is worth a word.
const LONG_WRITER: f64 = 5.0;

/// Between two prints of `--watch`.
const WATCH: Duration = Duration::from_secs(2);

pub(super) async fn run(args: StatusArgs, options: &GlobalOptions) -> CommandResult {
    let file = options.file()?;
    let names: Vec<String> = args.name.iter().cloned().collect();
    let pairs = options.pairs(&file, &names)?;
    let has_pair = args.name.is_none() && (file.syncs.is_empty() || options.names_a_pair(&file)?);
    let worker = if has_pair { Some(Worker::new(options.config()?)) } else { None };
    loop {
        let seen = Seen::ask(worker.as_ref(), &pairs).await?;
        let shown =
            if args.json { serde_json::to_string_pretty(&seen.json()?)? } else { seen.text(args.name.is_some()) };
        let reader = say(shown)?;
        if !args.watch || reader == Reader::Gone {
            return Ok(if seen.answers() || args.watch { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(WATCH).await;
    }
}

/// What was seen of one sync.
enum Sync {
    Pulled(Box<PullStatus>, Option<FeedState>),
    Queued(Result<Box<Status>, String>),
}

/// What was seen of all.
struct Seen<'a> {
    pair: Option<Status>,
    syncs: Vec<(&'a Pair, Sync)>,
}

impl<'a> Seen<'a> {
    async fn ask(worker: Option<&Worker>, pairs: &'a [Pair]) -> Result<Self, Error> {
        let pair = match worker {
            Some(worker) => Some(status::status(worker).await?),
            None => None,
        };
        let asked = pairs.iter().map(async |pair| match &pair.config {
            Some(config) => {
                let status = status::status(&Worker::new(config.clone())).await;
                (pair, Sync::Queued(status.map(Box::new).map_err(|e| e.to_string())))
            }
            None => {
                let pull = pulls::pull(pair);
                let feed = match FedSync::of_pull(&pull) {
                    Some(fed) => fed.state().await.ok(),
                    None => None,
                };
                (pair, Sync::Pulled(Box::new(pull.status().await), feed))
            }
        });
        Ok(Self { pair, syncs: futures_util::future::join_all(asked).await })
    }

    /// Whether every side does.
    fn answers(&self) -> bool {
        let answers = |sync: &Sync| match sync {
            Sync::Pulled(status, _) => status.answers(),
            Sync::Queued(status) => status.as_ref().is_ok_and(|status| status.replica.error.is_none()),
        };
        self.pair.as_ref().is_none_or(|pair| pair.replica.error.is_none())
            && self.syncs.iter().all(|(_, sync)| answers(sync))
    }

    fn json(&self) -> serde_json::Result<Value> {
        let mut json = self.pair.as_ref().map_or_else(|| Ok(json!({})), serde_json::to_value)?;
        if !self.syncs.is_empty() {
            let mut syncs = serde_json::Map::new();
            for (pair, sync) in &self.syncs {
                let status = match sync {
                    Sync::Pulled(status, feed) => {
                        let mut status = serde_json::to_value(status)?;
                        if let Some(feed) = feed {
                            status["feed"] = serde_json::to_value(feed)?;
                        }
                        status
                    }
                    Sync::Queued(Ok(status)) => serde_json::to_value(status)?,
                    Sync::Queued(Err(e)) => json!({"error": e}),
                };
                syncs.insert(pair.definition.name.clone(), status);
            }
            json["syncs"] = syncs.into();
        }
        Ok(json)
    }

    fn text(&self, is_detailed: bool) -> String {
        let mut lines: Vec<String> = self.pair.iter().map(text).collect();
        for (pair, sync) in &self.syncs {
            let name = &pair.definition.name;
            match sync {
                Sync::Queued(Err(e)) => lines.push(format!("{name}: {e}")),
                Sync::Queued(Ok(status)) if is_detailed => lines.push(text(status)),
                Sync::Queued(Ok(status)) => {
                    let lag = status.lag_seconds.map_or("none".into(), |s| format!("{s:.0} s"));
                    lines.push(format!(
                        "{name}: {} messages queued, lag {lag}, {} dead letters",
                        status.queued, status.dead
                    ));
                }
                Sync::Pulled(status, feed) => {
                    lines.push(format!("{name}: {}", line(status, pair)));
                    if is_detailed {
                        lines.extend(feed.as_ref().map(|feed| format!("  feed: {}", fed(feed))));
                        lines.extend(
                            status.tables.iter().map(|(name, table)| format!("  {name}: {}", table_line(table))),
                        );
                    }
                }
            }
        }
        lines.join("\n")
    }
}

fn line(status: &PullStatus, pair: &Pair) -> String {
    let lag = status.lag_seconds.map(|lag| format!(" ({lag:.0} s ago)")).unwrap_or_default();
    let caught_up =
        status.caught_up_at.as_ref().map_or("never caught up".into(), |at| format!("caught up at {at}{lag}"));
    let rows: i64 = status.tables.values().filter_map(|table| table.rows).sum();
    let waiting = status.tables.values().filter(|table| table.problem.is_some()).count();
    let mut parts = vec![
        caught_up,
        format!("every {}", pair.definition.every.text),
        format!("{} tables, {rows} rows, {} dead letters", status.tables.len(), status.dead),
    ];
    parts
        .extend((waiting > 0).then(|| format!("{waiting} tables wait: see `pgflume status {}`", pair.definition.name)));
    parts.extend(status.promise.clone());
    parts.extend(status.found_by.as_ref().map(|by| format!("changes are found by {by}")));
    parts.extend(status.source_error.iter().map(|e| format!("the source: {e}")));
    parts.extend(status.replica_error.iter().map(|e| format!("the replica: {e}")));
    parts.join("; ")
}

fn table_line(table: &TableStatus) -> String {
    let rows = table.rows.map(|rows| format!(", {rows} rows")).unwrap_or_default();
    let compared = table.compared_at.as_ref().map(|at| format!(", compared at {at}")).unwrap_or_default();
    let problem = table.problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
    let promise =
        table.promise.as_ref().filter(|_| table.problem.is_none()).map(|p| format!(", {p}")).unwrap_or_default();
    format!("{}{rows}{compared}{promise}{problem}", table.state)
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
        format!("follower   {}", follower(&status.wakeup)),
    ];
    lines.extend(status.feed.as_ref().map(|feed| format!("feed       {}", fed(feed))));
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

fn fed(feed: &FeedState) -> String {
    let names = |of: fn(&FedTable) -> bool| -> Vec<&str> {
        feed.tables.iter().filter(|(_, table)| of(table)).map(|(name, _)| name.as_str()).collect()
    };
    let (held, unready) = (names(|table| table.held), names(|table| !table.whole));
    let rows: i64 = feed.tables.values().map(|table| table.log_rows).sum();
    let cut = feed.cut_age_seconds.map_or("never at a cut".into(), |age| format!("last cut {age:.0} s ago"));
    let mut parts = vec![
        format!("{} tables, {cut}", feed.tables.len()),
        format!("clients are {:.0} s behind", feed.lag_seconds),
        format!("{rows} keys in the log"),
    ];
    parts.extend((!held.is_empty()).then(|| format!("held: {}", held.join(", "))));
    parts.extend((!unready.is_empty()).then(|| format!("not whole yet: {}", unready.join(", "))));
    parts.join("; ")
}

fn follower(wakeup: &Wakeup) -> String {
    let way = match (&wakeup.looks_because, wakeup.is_asleep) {
        (Some(why), _) => format!("would look for changes, and not be told of them: {why}"),
        (None, true) => "sleeps until it is told of a change".into(),
        (None, false) => "is told of changes while it sleeps; none sleeps now".into(),
    };
    let long = wakeup.kept_awake_seconds.filter(|seconds| *seconds > LONG_WRITER);
    let how = if wakeup.is_asleep { "behind" } else { "kept awake by" };
    let kept = long.map(|seconds| format!(", {how} a writer's transaction of {seconds:.0} s"));
    way + &kept.unwrap_or_default()
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
    let within = Duration::from_secs(coverage.every_row_within_seconds?.ceil() as u64);
    let different = coverage.last_different.unwrap_or_default();
    Some(format!("every row compared within {}, {different} differences", humantime::format_duration(within)))
}
