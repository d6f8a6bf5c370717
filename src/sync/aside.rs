//! Tables that others have locked: left aside, asked for again after a rest, and told of when it takes long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Rest before a table that was left aside is asked for again, at first; it doubles.
const FIRST_REST: Duration = Duration::from_millis(50);

/// The longest of these rests.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How long a drain waits for tables that others lock, when nothing else is left to do.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Tables that others have locked.
#[derive(Debug, Default)]
pub(super) struct Aside {
    tables: BTreeMap<String, Held>,
    /// Since when steps have met a lock that is of no table of theirs.
    met_at: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    since: Instant,
    again_at: Instant,
    rest: Duration,
    is_told: bool,
}

impl Aside {
    /// Whether any is.
    pub fn is_any(&self) -> bool {
        !self.tables.is_empty()
    }

    /// Whether this table waits for others to let go of it.
    pub fn has(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// Those that are to be asked for again.
    pub fn due(&self) -> Vec<String> {
        let now = Instant::now();
        self.tables.iter().filter(|(_, held)| held.again_at <= now).map(|(name, _)| name.clone()).collect()
    }

    /// Whether a lock that is of no table of the step's is worth another try.
    pub fn is_worth_a_try(&mut self) -> bool {
        self.met_at.get_or_insert_with(Instant::now).elapsed() < PATIENCE
    }

    /// A step has met none.
    pub fn met_none(&mut self) {
        self.met_at = None;
    }

    /// These tables are locked again.
    pub fn take_back(&mut self, locked: &BTreeSet<String>) {
        self.tables.retain(|table, _| !locked.contains(table));
    }

    /// Leaves a table aside, for longer each time.
    pub fn put(&mut self, table: &str) {
        let now = Instant::now();
        let held = self.tables.entry(table.to_owned()).or_insert_with(|| Held {
            since: now,
            again_at: now,
            rest: FIRST_REST,
            is_told: false,
        });
        held.again_at = now + held.rest;
        held.rest = (held.rest * 2).min(LONGEST_REST);
    }

    /// How long to wait until one is to be asked for again.
    pub fn rest(&self) -> Duration {
        let next = self.tables.values().map(|held| held.again_at).min();
        next.map_or(FIRST_REST, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Whether one has not been waited for too long.
    pub fn is_fresh(&self) -> bool {
        self.tables.values().any(|held| held.since.elapsed() < PATIENCE)
    }

    /// Those that have been locked for long, which nobody has been told of yet.
    pub fn untold(&mut self) -> Vec<String> {
        let now = Instant::now();
        let late = self.tables.iter_mut().filter(|(_, held)| !held.is_told && now >= held.since + PATIENCE);
        late.map(|(name, held)| {
            held.is_told = true;
            name.clone()
        })
        .collect()
    }

    /// Those that have been locked for long.
    pub fn late(&self) -> impl Iterator<Item = &String> {
        self.tables.iter().filter(|(_, held)| held.since.elapsed() >= PATIENCE).map(|(name, _)| name)
    }
}
