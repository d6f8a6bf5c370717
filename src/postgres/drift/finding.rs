//! What has moved apart, in words.

use crate::core::words;
use serde::Serialize;

/// One thing that is no longer as it was set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// The table's name in `schema.json`.
    pub table: String,
    /// The column, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Of which kind.
    pub kind: DriftKind,
    /// What is different.
    pub problem: String,
    /// What to do about it.
    #[serde(rename = "mend")]
    pub remedy: String,
}

/// The kinds of drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// The source lacks a column that is replicated.
    ColumnMissing,
    /// A column of the source has another type.
    ColumnRetyped,
    /// The source has a new column that is not replicated.
    ColumnAdded,
    /// The source's rows are no longer identified by the key.
    KeyChanged,
    /// The source is gone.
    TableMissing,
    /// The source has another name.
    TableRenamed,
    /// Triggers are missing, or do not fire for every change.
    CaptureMissing,
    /// The source is such that its rows can change without a mark.
    SourceUnsafe,
    /// The queue, which is `table`, is not as it was set up: marks may get lost, or writes fail.
    Queue,
    /// `schema.json` differs from what was set up.
    SchemaChanged,
    /// The replica lacks what the next drain adds.
    ReplicaLacks,
    /// A table of the replica differs so that batches cannot be applied faithfully.
    ReplicaDiffers,
    /// The replica still has what was replicated once.
    ReplicaExtra,
}

impl DriftKind {
    /// Whether somebody has to act; the rest is for information.
    pub fn is_fault(self) -> bool {
        !matches!(self, Self::ColumnAdded | Self::ReplicaLacks)
    }
}

impl Drift {
    /// Table, problem and remedy in one line.
    pub fn line(&self) -> String {
        let column = self.column.as_ref().map(|c| format!(".{c}")).unwrap_or_default();
        // Names of columns and types are those of whoever owns the table.
        words::clean(&format!("{}{column}: {}: {}", self.table, self.problem, self.remedy), words::ERROR_CHARS)
    }
}
