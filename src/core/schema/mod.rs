//! What is replicated. [`model`] is `schema.json` after all checks, [`ddl`] what SQLite is told,
//! [`fit`] which type holds what.

pub mod ddl;
pub mod fit;
mod json;
pub mod model;

pub use model::{Column, ColumnType, Schema, SchemaError, SourceName, Table, is_machinery};

/// Quotes an identifier for Postgres and SQLite alike.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string literal (no backslash is special: `standard_conforming_strings` is on).
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `"a", "b"` for the named columns.
pub fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}
