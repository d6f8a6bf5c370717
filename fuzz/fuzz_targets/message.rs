//! Any text as a queue message: what comes out has the shape that the drain relies on, and a reason never
//! quotes the message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgflume::core::batch::Change;
use pgflume::core::message::{MarkedKey, Message, parse};
use pgflume::core::schema::{Schema, Table};
use pgflume::core::value::Cell;
use std::sync::LazyLock;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::parse(
        r#"{"t": {"primaryKey": "id", "columns": {"id": "INTEGER", "a": "TEXT", "j": "JSON"}},
            "c": {"primaryKey": ["y", "x"], "columns": {"x": "TEXT", "y": "BLOB", "r": "REAL", "b": "BOOLEAN", "d": "DECIMAL"}}}"#,
    )
    .expect("the schema of this target is right")
});

/// Longest reason: fixed words and a column's name.
const REASON_BYTES: usize = 300;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(text, &SCHEMA) {
        Ok(Message::Marks(table, keys)) => {
            assert!(keys.iter().all(|key| is_key_of(&table, key) && !key.iter().any(|part| part.contains('\0'))));
            let again = serde_json::json!({"v": 1, "table": table.name, "keys": keys}).to_string();
            assert_eq!(parse(&again, &SCHEMA), Ok(Message::Marks(table, keys)));
        }
        Ok(Message::Truncate(table)) => assert!(SCHEMA.get(&table.name).is_some()),
        Ok(Message::Image(table, change, marks)) => image(&table, &change, &marks),
        Ok(Message::Skipped(name)) => assert!(SCHEMA.get(&name).is_none()),
        Err(problem) => {
            assert!(problem.table.is_none_or(|name| SCHEMA.get(&name).is_some()));
            assert!(problem.reason.len() < REASON_BYTES, "{}", problem.reason);
        }
    }
});

fn is_key_of(table: &Table, key: &MarkedKey) -> bool {
    key.len() == table.key.len()
}

fn image(table: &Table, change: &Change, marks: &[MarkedKey]) {
    assert!(!marks.is_empty() && marks.len() <= 2 && marks.iter().all(|key| is_key_of(table, key)));
    assert!(change.gone.is_some() || change.row.is_some());
    let keys = change.gone.iter().chain(change.row.iter().map(|(key, _, _)| key));
    for key in keys {
        assert!(key.len() == table.key.len() && !key.contains(&Cell::Null));
    }
    let Some((key, columns, cells)) = &change.row else { return };
    assert_ne!(change.gone.as_ref(), Some(key), "a row is there or gone");
    assert_eq!(columns.len(), cells.len());
    assert!(columns.is_sorted_by(|a, b| a < b) && columns.iter().all(|&i| i < table.columns.len()));
    for (position, cell) in table.key.iter().zip(key) {
        let at = columns.iter().position(|i| i == position).expect("the key's columns are among the row's");
        assert_eq!(&cells[at], cell);
    }
}
