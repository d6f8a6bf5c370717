//! What drains did.

use serde::Serialize;
use std::collections::BTreeSet;

/// What a worker did since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Drains that ended well, those that found another running left out.
    pub drains: u64,
    /// Drains that failed.
    pub failures: u64,
    /// See [`Drained`].
    pub processed: u64,
    /// See [`Drained`].
    pub rows: u64,
    /// See [`Drained`].
    pub batches: u64,
    /// See [`Drained`].
    pub skipped: u64,
    /// See [`Drained`].
    pub dead: u64,
}

impl Totals {
    pub(super) fn add(&mut self, done: &Drained, is_failed: bool) {
        self.drains += u64::from(!is_failed && !done.busy);
        self.failures += u64::from(is_failed);
        self.processed += done.processed;
        self.rows += done.rows;
        self.batches += done.batches;
        self.skipped += done.skipped;
        self.dead += done.dead;
    }
}

/// What a drain did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Drained {
    /// Messages taken off the queue: applied, skipped or dead.
    pub processed: u64,
    /// Messages still on it, hidden ones included.
    pub queued: i64,
    /// Another drain was running, and will look once more before it ends.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub busy: bool,
    /// Keys written or deleted in the replica.
    pub rows: u64,
    /// libSQL transactions.
    pub batches: u64,
    /// Messages for tables that are not replicated.
    pub skipped: u64,
    /// Dead letters written.
    pub dead: u64,
    /// Tables whose changes stay queued, because they cannot be read or the replica does not take them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub paused: BTreeSet<String>,
    /// Tables that are still to be rebuilt.
    pub rebuilding: u64,
    /// Those of them that somebody has to fix first.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub stuck: BTreeSet<String>,
    /// Duration in milliseconds.
    pub elapsed_ms: u64,
}
