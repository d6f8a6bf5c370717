//! What a pass has done.

use crate::core::difference::TableReport;
use crate::core::token::Seen;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a pass has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// Rows written.
    pub rows: u64,
    /// Rows deleted.
    pub removed: u64,
    /// libSQL transactions.
    pub batches: u64,
    /// New dead letters.
    pub dead: u64,
    /// What comparisons found that were due.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub compared: BTreeMap<String, TableReport>,
    /// Tables that were left as they are, and why, with the remedy.
    pub problems: BTreeMap<String, String>,
    /// Tables that the source no longer has, or that are no longer asked for: they stay as they are.
    pub kept: BTreeSet<String>,
    /// What the pass promises, of the table of which it promises least: `exact`, `exact_but`, `stamped` or `compared`.
    pub promise: Option<&'static str>,
    /// The source's clock at the view that all tables equal; `None` where some could not be read.
    pub caught_up_at: Option<String>,
    /// Which transactions that view sees, where the source can tell.
    #[serde(skip)]
    pub(crate) seen: Option<Seen>,
    /// Whether the source tells of changes as they come.
    #[serde(skip)]
    pub(crate) tells: bool,
    /// Until the job that this was for is tried again.
    #[serde(skip)]
    pub(super) job_rest: Option<std::time::Duration>,
}

impl Passed {
    /// Adds what a further try has done.
    pub(super) fn add(&mut self, more: Self) {
        self.rows += more.rows;
        self.removed += more.removed;
        self.batches += more.batches;
        self.dead += more.dead;
        self.compared.extend(more.compared);
        (self.problems, self.kept, self.caught_up_at) = (more.problems, more.kept, more.caught_up_at);
        self.seen = more.seen;
        self.tells = more.tells;
        self.promise = more.promise.or(self.promise);
    }
}
