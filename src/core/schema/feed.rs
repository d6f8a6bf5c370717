//! What of a table is fed to clients: the member `feed` of its definition. No IO.

/// Most columns of a key, and columns that may be filtered by: each is written with each change.
pub(super) const MOST_COLUMNS: usize = 16;

/// What clients get of a table, and by what they may narrow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Columns that they get; `None`: all.
    pub columns: Option<Vec<String>>,
    /// Columns that a client's `where` may use.
    pub filter: Vec<String>,
}

/// Whether SQLite takes a column's name for the number of a row (<https://sqlite.org/rowidtable.html>).
pub(super) fn is_rowid(name: &str) -> bool {
    ["rowid", "_rowid_", "oid"].iter().any(|known| name.eq_ignore_ascii_case(known))
}
