//! What a run did and found: counted while it goes, printed and written at its end.

use crate::judge::Violation;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Further ones are only counted.
const KEPT_VIOLATIONS: usize = 20;

/// Shared by all actors of one run.
#[derive(Clone, Default)]
pub struct Tally(Arc<Inner>);

#[derive(Default)]
struct Inner {
    faults: Mutex<BTreeMap<String, u64>>,
    /// Commands beside the workers that came to their end.
    commands: Mutex<BTreeMap<&'static str, u64>>,
    violations: Mutex<Vec<Violation>>,
    violations_in_all: AtomicU64,
    pub transactions: AtomicU64,
    pub refused: AtomicU64,
    pub reads: AtomicU64,
    pub versions: AtomicU64,
}

impl Tally {
    pub fn fault(&self, kind: impl Into<String>) {
        self.faults_of(kind, 1);
    }

    pub fn faults_of(&self, kind: impl Into<String>, count: u64) {
        *self.0.faults.lock().unwrap_or_else(PoisonError::into_inner).entry(kind.into()).or_default() += count;
    }

    pub fn command_done(&self, name: &'static str) {
        *self.0.commands.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
    }

    pub fn violation(&self, violation: Violation) {
        self.0.violations_in_all.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.0.violations.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_VIOLATIONS {
            println!("chaos: VIOLATION at {:?}: {}", std::time::SystemTime::now(), violation.0);
            kept.push(violation);
        }
    }

    /// A transaction that was committed, or refused (a lock, a key, a lost connection).
    pub fn transaction(&self, is_committed: bool) {
        let counter = if is_committed { &self.0.transactions } else { &self.0.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A look at one table.
    pub fn read(&self, versions: usize) {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        self.0.versions.fetch_add(versions as u64, Ordering::Relaxed);
    }

    pub fn regressions(&self) -> u64 {
        self.0.violations_in_all.load(Ordering::Relaxed)
    }

    pub fn faults(&self) -> BTreeMap<String, u64> {
        self.0.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How a run ended.
#[derive(Default)]
pub struct End {
    /// Drains that ended well, batches that the replica took, messages that the triggers wrote.
    pub drains: u64,
    pub batches: u64,
    pub messages: u64,
    /// Row versions that Postgres ever had.
    pub row_versions: u64,
    /// Rows on both sides at the end.
    pub rows: u64,
    /// Rows that differ at the end.
    pub differences: u64,
    pub dead_letters: u64,
    /// How often a client that is fed had all, and how often it was compared with what the replica had at that cut.
    pub arrivals: u64,
    pub compared: u64,
    /// How often two sides that had diverged were brought together again, and by what.
    pub healed: BTreeMap<&'static str, u64>,
    /// Why it failed, beside what readers saw.
    pub problems: Vec<String>,
}

/// Prints the report, and appends it to `file` as one line of JSON; whether the run was good.
pub fn publish(run: &serde_json::Value, tally: &Tally, end: &End, file: Option<&std::path::Path>) -> bool {
    let faults = tally.faults();
    let in_all: u64 = faults.values().sum();
    let commands = tally.0.commands.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counts = &tally.0;
    let good = end.problems.is_empty() && tally.regressions() == 0 && end.differences == 0 && in_all > 0;
    let line = json!({
        "run": run, "good": good, "faults": in_all, "by_kind": faults, "commands_done": commands,
        "drains": end.drains, "batches": end.batches, "messages": end.messages,
        "transactions": load(&counts.transactions), "refused": load(&counts.refused),
        "row_versions": end.row_versions, "rows": end.rows,
        "reads": load(&counts.reads), "versions_checked": load(&counts.versions),
        "differences": end.differences, "regressions": tally.regressions(), "dead_letters": end.dead_letters,
        "client_arrivals": end.arrivals, "clients_compared": end.compared,
        "healed": end.healed, "problems": end.problems,
    });
    println!("chaos: {line}");
    if let Some(file) = file {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
        if let Err(error) = opened.and_then(|mut file| writeln!(file, "{line}")) {
            println!("chaos: the report cannot be written to {}: {error}", file.display());
        }
    }
    good
}
