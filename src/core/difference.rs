//! What a comparison of both sides has found. No IO.

use serde::Serialize;
use std::collections::BTreeMap;

/// Most keys that a report shows of one table.
pub const EXAMPLES: usize = 5;

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
