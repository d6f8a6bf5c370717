//! What Postgres says of each queue and its tables; while it does not answer, what it said last.

use super::families::{Labels, Queue, Value, of_queues, with};
use crate::operate::status::{Status, TableStatus};
use crate::postgres::books::rebuilds::{Phase, RebuildReport};
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

pub(super) fn register(registry: &mut Registry, queues: &[Queue<'_>]) {
    of_queue(registry, queues);
    of_tables(registry, queues);
}

fn of_queue(registry: &mut Registry, queues: &[Queue<'_>]) {
    let of = |value: fn(&Status) -> f64| of_queues(queues, |queue| queue.status.as_ref().map(value));
    // What waits grows older while nobody can look.
    let lag = of_queues(queues, |queue| {
        let lag = queue.status.as_ref()?.lag_seconds;
        Some(lag.map_or(0.0, |lag| lag + queue.age.as_secs_f64()))
    });
    let gauges = [
        ("queue_messages", "Messages on the queue, hidden ones included", of(|s| s.queued as f64)),
        ("queue_lag_seconds", "Age of the oldest message", lag),
        ("dead_letters", "Dead letters that wait", of(|s| s.dead as f64)),
        ("batch_seq", "Batches acknowledged since the sides were paired", of(|s| s.last_sync.seq as f64)),
        (
            "drift",
            "Things that are no longer as they were set up and that somebody has to fix",
            of(|s| s.drift.iter().filter(|d| d.kind.is_fault()).count() as f64),
        ),
        ("tables_rebuilding", "Tables that are being rebuilt or wait for it", of(|s| count(s, is_rebuilding))),
        ("tables_stuck", "Tables whose rebuild waits for somebody to act", of(|s| count(s, is_stuck))),
        (
            "healed",
            "Whether the two sides have diverged and were healed",
            of(|s| f64::from(s.last_sync.healed_at.is_some())),
        ),
        (
            "queue_dead_tuples",
            "Rows of taken messages that vacuum has not removed yet",
            of(|s| s.queue_health.dead_tuples as f64),
        ),
        (
            "oldest_xmin_age",
            "Transactions since the oldest one that keeps vacuum from removing rows",
            of(|s| s.queue_health.oldest_xmin_age as f64),
        ),
        (
            "retained_takes",
            "Takes of acknowledged messages that are kept, and notes of where they led",
            of(|s| s.queue_health.retained as f64),
        ),
        (
            "retained_bytes",
            "What acknowledged messages of all queues take on disk",
            of(|s| s.queue_health.retained_bytes as f64),
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

fn is_stuck(table: &TableStatus) -> bool {
    table.resync.as_ref().is_some_and(|r| r.problem.is_some())
}

fn of_tables(registry: &mut Registry, queues: &[Queue<'_>]) {
    let by = |value: &dyn Fn(&TableStatus) -> Option<f64>| {
        let family = Family::<Labels, Value>::default();
        for queue in queues {
            for (name, table) in queue.status.iter().flat_map(|status| &status.tables) {
                if let Some(value) = value(table) {
                    family.get_or_create(&with(&queue.labels, &[("table", name)])).set(value);
                }
            }
        }
        family
    };
    let resync = |of: fn(&RebuildReport) -> Option<f64>| move |t: &TableStatus| t.resync.as_ref().and_then(of);
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
