//! `GET /metrics`: the figures of `status` and this process's counters as Prometheus text. No keys and no row
//! values; the replica is not asked, because hosted libSQL bills requests. Anybody may ask, so the answer is
//! kept for a while.

use super::app::App;
use super::lane::Lane;
use crate::operate::status;
use crate::operate::status::{Status, TableStatus};
use crate::postgres::books::rebuilds::Phase;
use crate::pull::Report;
use crate::sync::Totals;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The content type of the answer.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Value = Gauge<f64, AtomicU64>;
/// None for the queue of the variables.
type Labels = Vec<(&'static str, String)>;

/// The text, at most [`KEPT`] old; `None` if it cannot be written.
pub(super) async fn text(app: &Arc<App>) -> Option<String> {
    let asked = app.clone();
    app.metrics.get(|| async move { written(&asked).await.ok() }).await.flatten()
}

/// A queue, with its labels and what its Postgres says.
struct Queue<'a> {
    labels: Labels,
    lane: &'a Lane,
    status: Option<Status>,
}

async fn written(app: &App) -> Result<String, fmt::Error> {
    let unnamed = app.lane.iter().map(|lane| (Labels::new(), lane));
    let named = app.named.iter().map(|(name, lane)| (vec![("sync", name.clone())], lane));
    let asked = unnamed.chain(named).map(|(labels, lane)| async move {
        let status = status::of_source(&lane.worker).await.ok();
        Queue { labels, lane, status }
    });
    let queues = futures_util::future::join_all(asked).await;
    let mut registry = Registry::with_prefix("pgflume");
    if !queues.is_empty() {
        process(&mut registry, &queues);
        let up = of_queues(&queues, |queue| Some(f64::from(queue.status.is_some())));
        registry.register("source_up", "Whether Postgres answers", up);
        source(&mut registry, &queues);
        tables(&mut registry, &queues);
    }
    syncs(&mut registry, &app.service.reports());
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text.lines().map(|line| unlabelled(line) + "\n").collect())
}

/// A line without the braces of no labels.
fn unlabelled(line: &str) -> String {
    match line.split_once("{} ") {
        Some((name, value)) if !name.contains(['{', ' ']) => format!("{name} {value}"),
        _ => line.to_owned(),
    }
}

/// One figure of each queue.
fn of_queues(queues: &[Queue<'_>], value: impl Fn(&Queue<'_>) -> Option<f64>) -> Family<Labels, Value> {
    let family = Family::<Labels, Value>::default();
    for queue in queues {
        if let Some(value) = value(queue) {
            family.get_or_create(&queue.labels).set(value);
        }
    }
    family
}

/// What this process did since it started.
fn process(registry: &mut Registry, queues: &[Queue<'_>]) {
    let counter = |of: fn(&Totals) -> u64| {
        let family = Family::<Labels, Counter>::default();
        for queue in queues {
            family.get_or_create(&queue.labels).inc_by(of(&queue.lane.worker.totals()));
        }
        family
    };
    let counters = [
        ("drains", "Drains that ended well", counter(|t| t.drains)),
        ("drain_failures", "Drains that failed", counter(|t| t.failures)),
        ("messages_processed", "Messages taken off the queue", counter(|t| t.processed)),
        ("rows_applied", "Keys written or deleted in the replica", counter(|t| t.rows)),
        ("batches_applied", "libSQL transactions", counter(|t| t.batches)),
        ("messages_skipped", "Messages for tables that are not replicated", counter(|t| t.skipped)),
        ("dead_letters_written", "Dead letters written", counter(|t| t.dead)),
    ];
    for (name, help, family) in counters {
        registry.register(name, help, family);
    }
    let open = of_queues(queues, |queue| Some(f64::from(!queue.lane.worker.circuit().report().is_closed())));
    registry.register("circuit_open", "Whether a side is taken for down and calls are refused", open);
}

/// Each sync that pulls.
fn syncs(registry: &mut Registry, reports: &BTreeMap<String, Report>) {
    if reports.is_empty() {
        return;
    }
    let gauge = |of: &dyn Fn(&Report) -> Option<f64>| {
        let family = Family::<Labels, Value>::default();
        for (name, report) in reports {
            if let Some(value) = of(report) {
                family.get_or_create(&vec![("sync", name.clone())]).set(value);
            }
        }
        family
    };
    let families = [
        (
            "sync_up",
            "Whether its last pass ended well",
            gauge(&|r| (r.passes + r.failures > 0).then(|| f64::from(r.failures_in_a_row == 0))),
        ),
        ("sync_passes", "Passes that ended well", gauge(&|r| Some(r.passes as f64))),
        ("sync_failures", "Passes that failed", gauge(&|r| Some(r.failures as f64))),
        ("sync_rows", "Rows written or deleted in the replica", gauge(&|r| Some((r.rows + r.removed) as f64))),
        ("sync_batches", "libSQL transactions", gauge(&|r| Some(r.batches as f64))),
        ("sync_dead_letters", "Dead letters written", gauge(&|r| Some(r.dead as f64))),
        ("sync_problem_tables", "Tables that are left as they are", gauge(&|r| Some(r.problems.len() as f64))),
        ("sync_last_success_timestamp_seconds", "When its last pass ended well", gauge(&|r| r.succeeded_at)),
    ];
    for (name, help, family) in families {
        registry.register(name, help, family);
    }
    let promises = Family::<[(&'static str, String); 2], Value>::default();
    for (name, report) in reports {
        if let Some(promise) = report.promise {
            promises.get_or_create(&[("sync", name.clone()), ("promise", promise.to_owned())]).set(1.0);
        }
    }
    registry.register("sync_promise", "What a pass promises, of the table of which it promises least", promises);
}

fn source(registry: &mut Registry, queues: &[Queue<'_>]) {
    let of = |value: fn(&Status) -> f64| of_queues(queues, |queue| queue.status.as_ref().map(value));
    let gauges = [
        ("queue_messages", "Messages on the queue, hidden ones included", of(|s| s.queued as f64)),
        ("queue_lag_seconds", "Age of the oldest message", of(|s| s.lag_seconds.unwrap_or_default())),
        ("dead_letters", "Dead letters that wait", of(|s| s.dead as f64)),
        ("batch_seq", "Batches acknowledged since the sides were paired", of(|s| s.last_sync.seq as f64)),
        (
            "drift",
            "Things that are no longer as they were set up and that somebody has to fix",
            of(|s| s.drift.iter().filter(|d| d.kind.is_fault()).count() as f64),
        ),
        ("tables_rebuilding", "Tables that are being rebuilt or wait for it", of(|s| count(s, is_rebuilding))),
        (
            "tables_stuck",
            "Tables whose rebuild waits for somebody to act",
            of(|s| count(s, |t| t.resync.as_ref().is_some_and(|r| r.problem.is_some()))),
        ),
        (
            "healed",
            "Whether the two sides have diverged and were healed",
            of(|s| f64::from(s.last_sync.healed_at.is_some())),
        ),
    ];
    for (name, help, family) in gauges {
        registry.register(name, help, family);
    }
}

fn count(status: &Status, is_such: fn(&TableStatus) -> bool) -> f64 {
    status.tables.values().filter(|table| is_such(table)).count() as f64
}

fn is_rebuilding(table: &TableStatus) -> bool {
    table.resync.as_ref().is_some_and(|r| r.phase != Phase::Done)
}

fn tables(registry: &mut Registry, queues: &[Queue<'_>]) {
    let by = |value: &dyn Fn(&TableStatus) -> Option<f64>| {
        let family = Family::<Labels, Value>::default();
        for queue in queues {
            for (name, table) in queue.status.iter().flat_map(|status| &status.tables) {
                let labels = queue.labels.iter().cloned().chain([("table", name.clone())]).collect();
                if let Some(value) = value(table) {
                    family.get_or_create(&labels).set(value);
                }
            }
        }
        family
    };
    let resync = |of: fn(&crate::postgres::books::rebuilds::RebuildReport) -> Option<f64>| {
        move |t: &TableStatus| t.resync.as_ref().and_then(of)
    };
    let families = [
        ("table_captured", "Whether triggers mark its changes", by(&|t| Some(f64::from(t.captured)))),
        ("resync_running", "Whether it is being rebuilt or waits for it", by(&|t| Some(f64::from(is_rebuilding(t))))),
        ("resync_rows", "Rows copied by its last rebuild", by(&resync(|r| Some(r.rows as f64)))),
        (
            "resync_estimated_rows",
            "Rows to copy, by the planner's statistics",
            by(&resync(|r| r.estimated_rows.map(|n| n as f64))),
        ),
        ("resync_rows_per_second", "How fast its last rebuild copied", by(&resync(|r| r.rows_per_second))),
        ("resync_eta_seconds", "How long its copy still takes", by(&resync(|r| r.eta_seconds))),
        (
            "verified_within_seconds",
            "Every row was compared within so many seconds",
            by(&|t| t.verified.as_ref().and_then(|v| v.every_row_within_seconds)),
        ),
        (
            "verified_different_rows",
            "Rows that differed in its last whole comparison",
            by(&|t| t.verified.as_ref().and_then(|v| v.last_different).map(|n| n as f64)),
        ),
    ];
    for (name, help, family) in families {
        registry.register(name, help, family);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_braces_of_no_labels_go() {
        for (line, expected) in [
            ("pgflume_drains_total{} 1", "pgflume_drains_total 1"),
            ("pgflume_drains_total{sync=\"a{} b\"} 1", "pgflume_drains_total{sync=\"a{} b\"} 1"),
            ("# HELP x a{} b", "# HELP x a{} b"),
        ] {
            assert_eq!(unlabelled(line), expected);
        }
    }
}
