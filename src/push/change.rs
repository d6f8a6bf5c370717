//! One change of one row, checked: its names are those of the schema, its values are JSON as the client wrote them. No IO.

use crate::core::schema::{Op, Table, Writable};
use std::sync::Arc;

/// One change of one row.
#[derive(Debug)]
pub struct Change {
    pub table: Arc<Table>,
    pub writable: Writable,
    pub op: Op,
    /// The columns that it sets.
    pub set: Vec<String>,
    /// The key and the values that it sets, as a JSON object.
    pub row: String,
    /// What the client knew, if it says so.
    pub base: Option<Base>,
}

/// A row as a client knew it.
#[derive(Debug)]
pub struct Base {
    /// The columns that it knew, without those of the key.
    pub columns: Vec<String>,
    /// Their values, as a JSON object.
    pub json: String,
}

/// The columns that clients of a table know: its key, what they are fed, and what they may set.
pub fn known_columns<'a>(table: &'a Table, writable: &Writable) -> Vec<&'a str> {
    let fed = table.fed_columns();
    let is_known = |(i, name): &(usize, &'a str)| {
        table.key.contains(i) || fed.contains(i) || writable.columns.iter().any(|column| column == name)
    };
    let named = table.columns.iter().map(|column| column.name.as_str()).enumerate();
    named.filter(is_known).map(|(_, name)| name).collect()
}
