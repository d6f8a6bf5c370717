//! What to compare, and what was found.

use crate::replica::target::Target;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most keys that a report shows of one table.
pub const EXAMPLES: usize = 5;

/// What to compare, and what to do about it.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Names in `schema.json`.
    pub tables: Vec<String>,
    /// Write what should be there.
    pub repair: bool,
    /// Compare only this share of each table (0 to 1), going on where the last such check ended.
    pub sample: Option<f64>,
    /// Look at this database instead of the replica: a read replica of it.
    pub target: Option<Target>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// By table.
    pub tables: BTreeMap<String, TableReport>,
}

impl VerifyReport {
    /// Whether every row that was compared is what it should be, or is now.
    pub fn is_equal(&self) -> bool {
        self.tables.values().all(|t| t.problem.is_none() && t.differences() == t.repaired)
    }
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TableReport {
    /// Rows of the source that were compared.
    pub rows: u64,
    /// Rows that the replica has otherwise.
    pub different: u64,
    /// Rows that it does not have.
    pub missing: u64,
    /// Rows that only it has.
    pub extra: u64,
    /// Rows that cannot be what they should, and whose dead letter says so.
    pub dead: u64,
    /// Keys of the replica at which Postgres fails.
    #[serde(skip)]
    pub doubtful: u64,
    /// Differences that were repaired.
    pub repaired: u64,
    /// Whether the whole table was compared: not so by a sample.
    pub is_whole: bool,
    /// The first few differences.
    pub examples: Vec<Example>,
    /// Why it could not be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl TableReport {
    /// Rows that are not what they should be, dead letters aside.
    pub fn differences(&self) -> u64 {
        self.different + self.missing + self.extra
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The key, as text.
    pub key: Vec<String>,
    /// What is wrong.
    pub kind: DifferenceKind,
    /// The columns that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DifferenceKind {
    /// The replica has it otherwise.
    Different,
    /// The replica does not have it.
    Missing,
    /// Only the replica has it.
    Extra,
    /// It has a value that does not fit its column, and no dead letter says so.
    Unfit,
}

/// How far a check is, for whoever watches.
#[derive(Debug, Default)]
pub struct Counters {
    /// Rows compared.
    pub rows: AtomicU64,
    /// Differences found.
    pub differences: AtomicU64,
}

impl Counters {
    pub(super) fn add(&self, rows: u64, differences: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.differences.fetch_add(differences, Ordering::Relaxed);
    }
}
