//! A column type and a text: what is accepted is stored exactly, and its text is accepted as the same value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgflume::core::schema::ColumnType;
use pgflume::core::value::{Cell, from_json, from_text};
use serde_json::value::RawValue;

fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = data.split_first() else { return };
    let kinds: Vec<_> = ColumnType::all().collect();
    let kind = kinds[usize::from(*kind) % kinds.len()];
    let Ok(text) = std::str::from_utf8(text) else { return };
    as_text(kind, text);
    as_json(kind, text);
});

fn as_text(kind: ColumnType, text: &str) {
    let Ok(cell) = from_text(kind, text) else { return };
    let written = cell.to_postgres_text().expect("no text is NULL");
    assert_eq!(from_text(kind, &written).as_ref(), Ok(&cell), "{kind:?} {written:?}");
    match (kind, &cell) {
        (ColumnType::Text | ColumnType::Json | ColumnType::Decimal, Cell::Text(kept)) => assert_eq!(kept, text),
        (ColumnType::Integer, Cell::Integer(i)) => {
            let whole = text.split('.').next().unwrap_or_default();
            assert!(whole.parse() == Ok(*i) || matches!((whole, i), ("true" | "t", 1) | ("false" | "f", 0)), "{text}");
        }
        (ColumnType::Boolean, Cell::Integer(0 | 1)) => {}
        (ColumnType::Real, Cell::Real(r)) => assert!(r.is_finite()),
        (ColumnType::Real, Cell::Text(kept)) => {
            assert!(kept == text && ["NaN", "Infinity", "-Infinity"].contains(&text))
        }
        (ColumnType::Blob, Cell::Blob(_)) => assert!(written.eq_ignore_ascii_case(text)),
        (kind, cell) => panic!("{kind:?} became {cell:?}"),
    }
}

fn as_json(kind: ColumnType, text: &str) {
    // A text that travels as a JSON string is the text itself, escapes or not.
    let string = serde_json::value::to_raw_value(text).expect("a string is JSON");
    if kind != ColumnType::Json {
        assert_eq!(from_json(kind, &string), from_text(kind, text));
    }
    let Ok(raw) = serde_json::from_str::<&RawValue>(text) else { return };
    match from_json(kind, raw) {
        Ok(Cell::Null) => assert_eq!(raw.get(), "null"),
        Ok(Cell::Text(kept)) if kind == ColumnType::Json => assert_eq!(kept, raw.get()),
        Ok(Cell::Text(kept)) if !raw.get().starts_with('"') => assert_eq!(kept, raw.get(), "digit for digit"),
        Ok(_) | Err(_) => {}
    }
}
