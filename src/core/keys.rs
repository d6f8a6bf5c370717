//! Keys as the replica has them, and as the text that the source casts into them. No IO.

use crate::core::schema::{Column, Table};
use crate::core::value::{Cell, Key, from_text};

/// A key of the replica as text; `None` where it has a NULL, which no key of the source has.
pub fn texts_of(key: &Key) -> Option<Vec<String>> {
    key.iter().map(Cell::to_postgres_text).collect()
}

/// The same back again.
pub fn key_of(table: &Table, texts: &[String]) -> Key {
    let cell =
        |(column, text): (&Column, &String)| from_text(column.kind, text).unwrap_or_else(|_| Cell::Text(text.clone()));
    table.key_columns().zip(texts).map(cell).collect()
}
