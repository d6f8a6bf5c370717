//! What of a table is fed to clients: the member `feed` of its definition. No IO.

use super::table::{Column, ColumnType, Table};

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

impl Feed {
    /// The positions of the columns that clients get, in the table's order: its key always.
    pub fn positions(&self, table: &Table) -> Vec<usize> {
        let is_fed = |i: &usize| {
            let named = self.columns.as_ref().is_none_or(|columns| columns.contains(&table.columns[*i].name));
            named || table.key.contains(i)
        };
        (0..table.columns.len()).filter(is_fed).collect()
    }

    /// The positions of the columns by which they may filter, in the order of the definition.
    pub fn filters(&self, table: &Table) -> Vec<usize> {
        self.filter.iter().filter_map(|name| table.position(name)).collect()
    }
}

/// Whether the values of a column can be filtered by: text and whole numbers, which JSON keeps to the last digit.
pub(super) fn can_filter(column: &Column) -> bool {
    matches!(column.kind, ColumnType::Integer | ColumnType::Boolean | ColumnType::Text | ColumnType::Decimal)
}
