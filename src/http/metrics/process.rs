//! What this process did since it started.

use super::families::{Queue, counted, histogram, of_queues, with};
use crate::sync::{TableCounts, Totals};
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;

pub(super) fn register(registry: &mut Registry, queues: &[Queue<'_>]) {
    counters(registry, queues);
    of_tables(registry, queues);
    histograms(registry, queues);
    let open = of_queues(queues, |queue| Some(f64::from(!queue.lane.worker.circuit().report().is_closed())));
    registry.register("circuit_open", "Whether a side is taken for down and calls are refused", open);
    let paused = of_queues(queues, |queue| Some(queue.lane.worker.paused().len() as f64));
    registry.register("tables_paused", "Tables whose changes wait on the queue for somebody to act", paused);
}

fn counters(registry: &mut Registry, queues: &[Queue<'_>]) {
    let of = |of: fn(&Totals) -> u64| {
        counted(queues.iter().map(|queue| (queue.labels.clone(), of(&queue.lane.worker.totals()))))
    };
    let counters = [
        ("drains", "Drains that ended well", of(|t| t.drains)),
        ("drain_failures", "Drains that failed", of(|t| t.failures)),
        ("messages_processed", "Messages taken off the queue", of(|t| t.processed)),
        ("rows_applied", "Keys written or deleted in the replica", of(|t| t.rows)),
        ("batches_applied", "libSQL transactions", of(|t| t.batches)),
        ("messages_skipped", "Messages for tables that are not replicated", of(|t| t.skipped)),
        ("dead_letters_written", "Dead letters written", of(|t| t.dead)),
        (
            "drain_retries",
            "Drains that failed and were tried again at once",
            counted(queues.iter().map(|queue| (queue.labels.clone(), queue.counts.retries))),
        ),
        (
            "follow_failures",
            "How often following broke off",
            counted(queues.iter().map(|queue| (queue.labels.clone(), queue.counts.follow_failures))),
        ),
    ];
    for (name, help, family) in counters {
        registry.register(name, help, family);
    }
}

/// A count, and of what kind it is where there are several.
type Kinded = (Option<&'static str>, u64);

fn of_tables(registry: &mut Registry, queues: &[Queue<'_>]) {
    // Each table from the start: a counter that appears with its first count hides that from rates.
    let all = queues.iter().map(|queue| {
        let names = queue.lane.worker.schema().tables().map(|table| table.name.clone());
        let mut tables: BTreeMap<String, TableCounts> = names.map(|name| (name, TableCounts::default())).collect();
        tables.extend(queue.counts.tables.clone());
        (&queue.labels, tables)
    });
    let all: Vec<_> = all.collect();
    let each = |of: fn(&TableCounts) -> Vec<Kinded>| {
        let of = &of;
        counted(all.iter().flat_map(|(labels, tables)| {
            tables.iter().flat_map(move |(name, counts)| {
                of(counts).into_iter().map(move |(kind, count)| {
                    let kind = kind.map(|kind| ("kind", kind));
                    let more: Vec<_> = [("table", name.as_str())].into_iter().chain(kind).collect();
                    (with(labels, &more), count)
                })
            })
        }))
    };
    registry.register(
        "table_rows",
        "Rows written or deleted in the replica, by table and kind",
        each(|counts| vec![(Some("upsert"), counts.upserts), (Some("delete"), counts.deletes)]),
    );
    registry.register(
        "table_bytes",
        "Bytes of the values that were written, by table",
        each(|counts| vec![(None, counts.bytes)]),
    );
    registry.register(
        "table_dead_letters",
        "Keys and messages that became dead letters, by table; an empty name where none is known",
        each(|counts| vec![(None, counts.dead)]),
    );
}

fn histograms(registry: &mut Registry, queues: &[Queue<'_>]) {
    histogram(
        registry,
        queues,
        "commit_to_applied_seconds",
        "From when a change was put on the queue (the begin of its transaction) until it was readable in the replica",
        |counts| counts.commit_to_applied,
    );
    histogram(registry, queues, "step_seconds", "Steps that were acknowledged", |counts| counts.step);
    histogram(registry, queues, "take_seconds", "Taking messages off the queue", |counts| counts.take);
    histogram(
        registry,
        queues,
        "read_seconds",
        "Reading the rows that messages mark, until the writer had them",
        |counts| counts.read,
    );
    histogram(registry, queues, "apply_seconds", "Transactions on the replica", |counts| counts.apply);
}
