//! What makes rows of a table of the replica unique.

use crate::core::value::Cell;
use std::collections::BTreeSet;

/// A unique index over all rows of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unique {
    /// In lower case; `None` for an expression.
    pub(super) columns: BTreeSet<Option<String>>,
    /// It tells apart whatever differs in a byte.
    pub(super) is_exact: bool,
    /// It is that of the declared primary key.
    pub(super) is_primary: bool,
    /// It ends with the rowid, so that the table has one.
    pub(super) has_rowid: bool,
}

impl Unique {
    /// Adds a column of the index, as the inventory reads it.
    pub fn add(&mut self, origin: &Cell, column: &Cell, number: &Cell, collation: &Cell, in_key: &Cell) {
        if *in_key != Cell::Integer(1) {
            self.has_rowid |= *number == Cell::Integer(-1);
            return;
        }
        let is_binary = matches!(collation, Cell::Text(name) if name.eq_ignore_ascii_case("binary"));
        self.is_exact = is_binary && (self.is_exact || self.columns.is_empty());
        self.is_primary = matches!(origin, Cell::Text(origin) if origin == "pk");
        self.columns.insert(if let Cell::Text(name) = column { Some(name.to_lowercase()) } else { None });
    }

    pub(super) fn is_over(&self, columns: &BTreeSet<Option<String>>) -> bool {
        self.is_exact && self.columns == *columns
    }
}
