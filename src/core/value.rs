//! The place where a Postgres value becomes a SQLite value: from the text that Postgres gives for
//! a column under pinned settings or in [`binary`] (marks), or from the JSON that `to_jsonb` made of it (images).

pub mod binary;
mod lent;

pub(crate) use lent::Lender;
pub use lent::Lent;

use crate::core::schema::ColumnType;
use serde_json::value::RawValue;
use std::cmp::Ordering;

/// One SQLite value.
#[derive(Debug, Clone)]
pub enum Cell {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL: never NaN nor infinite, those are text.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BLOB.
    Blob(Vec<u8>),
    /// TEXT or BLOB that stays where it came, because it is large.
    Lent(Lent),
}

/// A key: the primary key's cells in `schema.json`'s order.
pub type Key = Vec<Cell>;

impl Cell {
    /// Size for budgets, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
            Self::Lent(lent) => lent.bytes().len(),
        }
    }

    /// Its text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Lent(lent) => lent.text(),
            _ => None,
        }
    }

    /// Its bytes, if it is a BLOB.
    pub(crate) fn as_blob(&self) -> Option<&[u8]> {
        match self {
            Self::Blob(bytes) => Some(bytes),
            Self::Lent(lent) if !lent.is_text() => Some(lent.bytes()),
            _ => None,
        }
    }

    /// The text that Postgres casts back into the value, for keys read from the replica.
    pub fn to_postgres_text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Integer(i) => Some(i.to_string()),
            Self::Real(r) => Some(r.to_string()),
            Self::Text(text) => Some(text.clone()),
            Self::Blob(bytes) => Some(format!("\\x{}", hex::encode(bytes))),
            Self::Lent(lent) => Some(match lent.text() {
                Some(text) => text.to_owned(),
                None => format!("\\x{}", hex::encode(lent.bytes())),
            }),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Integer(_) => 1,
            Self::Real(_) => 2,
            Self::Text(_) => 3,
            Self::Blob(_) => 4,
            Self::Lent(lent) => 3 + u8::from(!lent.is_text()),
        }
    }
}

impl Ord for Cell {
    /// A total order, near SQLite's own, so that a batch sorted by it writes neighbouring pages.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Real(a), Self::Real(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Blob(a), Self::Blob(b)) => a.cmp(b),
            (a, b) if a.rank() == b.rank() => (a.as_text(), a.as_blob()).cmp(&(b.as_text(), b.as_blob())),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl PartialOrd for Cell {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Cell {}

/// A value that its column's type cannot hold. Says the type and the remedy, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Not a 64-bit integer.
    #[error("is not a 64-bit integer; declare the column DECIMAL, REAL or TEXT")]
    Integer,
    /// Not a double.
    #[error("is not a number that a double can hold; declare the column DECIMAL or TEXT")]
    Real,
    /// Not a boolean.
    #[error("is not a boolean; declare the column INTEGER or TEXT")]
    Boolean,
    /// Not bytea.
    #[error("is not bytea in hex; declare the column TEXT")]
    Blob,
    /// Bytes that are no such value.
    #[error("came in a form that this version does not know; declare the column TEXT and say so to the makers")]
    Format,
    /// An array that does not begin at 1.
    #[error("has lower bounds other than 1, which JSON cannot hold; declare the column TEXT")]
    Bounds,
}

/// What the SQL for a column gives for a JSON column in place of an array whose lower bounds JSON would
/// lose. It is no JSON, so no value can be taken for it.
pub(crate) const OTHER_BOUNDS: &str = "!bounds";

/// Converts what Postgres gives as text for a column under pinned settings.
pub fn from_text(kind: ColumnType, text: &str) -> Result<Cell, Mismatch> {
    match kind {
        ColumnType::Json if text == OTHER_BOUNDS => Err(Mismatch::Bounds),
        ColumnType::Text | ColumnType::Json | ColumnType::Decimal => Ok(Cell::Text(text.to_owned())),
        ColumnType::Integer => integer(text),
        ColumnType::Real => real(text),
        ColumnType::Boolean => boolean(text),
        ColumnType::Blob => blob(text),
    }
}

/// Converts what `to_jsonb` made of a value, digit for digit. JSON null is SQL NULL: `to_jsonb` does
/// not tell them apart.
pub fn from_json(kind: ColumnType, raw: &RawValue) -> Result<Cell, Mismatch> {
    let json = raw.get();
    if json == "null" {
        return Ok(Cell::Null);
    }
    if kind == ColumnType::Json {
        return Ok(Cell::Text(json.to_owned()));
    }
    if let Some(text) = unescaped(json) {
        return from_text(kind, text);
    }
    match serde_json::from_str::<String>(json) {
        Ok(text) => from_text(kind, &text),
        Err(_) => from_text(kind, json), // a number, true, false, an object or an array as it stands
    }
}

/// The content of a JSON string that has no escapes, as most have none.
pub(crate) fn unescaped(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"').filter(|text| !text.as_bytes().contains(&b'\\'))
}

fn integer(text: &str) -> Result<Cell, Mismatch> {
    if let Ok(i) = text.parse::<i64>() {
        return Ok(Cell::Integer(i));
    }
    match text {
        "true" | "t" => Ok(Cell::Integer(1)),
        "false" | "f" => Ok(Cell::Integer(0)),
        // numeric(10,2) writes 5 as 5.00
        _ => match text.split_once('.') {
            Some((whole, zeros)) if zeros.bytes().all(|b| b == b'0') => {
                whole.parse().map(Cell::Integer).map_err(|_| Mismatch::Integer)
            }
            _ => Err(Mismatch::Integer),
        },
    }
}

fn real(text: &str) -> Result<Cell, Mismatch> {
    if let "NaN" | "Infinity" | "-Infinity" = text {
        return Ok(Cell::Text(text.to_owned()));
    }
    match text.parse::<f64>() {
        Ok(r) if r.is_finite() => Ok(Cell::Real(r)),
        _ => Err(Mismatch::Real),
    }
}

fn boolean(text: &str) -> Result<Cell, Mismatch> {
    match text {
        "true" | "t" | "1" => Ok(Cell::Integer(1)),
        "false" | "f" | "0" => Ok(Cell::Integer(0)),
        _ => Err(Mismatch::Boolean),
    }
}

fn blob(text: &str) -> Result<Cell, Mismatch> {
    let digits = text.strip_prefix("\\x").ok_or(Mismatch::Blob)?;
    hex::decode(digits).map(Cell::Blob).map_err(|_| Mismatch::Blob)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ColumnType::{Blob, Boolean, Decimal, Integer, Json, Real, Text};
    use proptest::prelude::*;

    fn json(kind: ColumnType, text: &str) -> Result<Cell, Mismatch> {
        from_json(kind, &RawValue::from_string(text.to_owned()).unwrap())
    }

    fn text(t: &str) -> Result<Cell, Mismatch> {
        Ok(Cell::Text(t.into()))
    }

    #[test]
    fn text_becomes_what_its_column_says() {
        let digits = "1234567890".repeat(100);
        let cases = [
            (Integer, "9223372036854775807", Ok(Cell::Integer(i64::MAX))),
            (Integer, "-9223372036854775808", Ok(Cell::Integer(i64::MIN))),
            (Integer, "5.00", Ok(Cell::Integer(5))),
            (Integer, "5.5", Err(Mismatch::Integer)),
            (Integer, "9223372036854775808", Err(Mismatch::Integer)),
            (Integer, "", Err(Mismatch::Integer)),
            (Integer, "true", Ok(Cell::Integer(1))),
            (Real, "1e-320", Ok(Cell::Real(1e-320))),
            (Real, "NaN", text("NaN")),
            (Real, "-Infinity", text("-Infinity")),
            (Real, "1e999", Err(Mismatch::Real)),
            (Real, "inf", Err(Mismatch::Real)),
            (Boolean, "true", Ok(Cell::Integer(1))),
            (Boolean, "f", Ok(Cell::Integer(0))),
            (Boolean, "yes", Err(Mismatch::Boolean)),
            (Decimal, "1.10", text("1.10")),
            (Decimal, &digits, text(&digits)),
            (Json, "null", text("null")),
            (Json, OTHER_BOUNDS, Err(Mismatch::Bounds)),
            (Text, OTHER_BOUNDS, text(OTHER_BOUNDS)),
            (Text, "", text("")),
            (Blob, "\\x00ff", Ok(Cell::Blob(vec![0, 255]))),
            (Blob, "abc", Err(Mismatch::Blob)),
        ];
        for (kind, given, expected) in cases {
            assert_eq!(from_text(kind, given), expected, "{kind:?} {given}");
        }
    }

    /// What lends its own bytes.
    struct Bytes(Vec<u8>);

    impl Lender for Bytes {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn cells_are_sorted_as_sqlite_does_and_what_is_lent_like_what_is_owned() {
        let lender = |bytes: &[u8]| std::sync::Arc::new(Bytes(bytes.to_vec()));
        let sorted = [
            Cell::Null,
            Cell::Integer(-1),
            Cell::Integer(2),
            Cell::Real(-0.5),
            Cell::Real(3.0),
            Cell::Text("B".into()),
            Cell::Lent(Lent::as_text(lender(b"a")).unwrap()),
            Cell::Text("b".into()),
            Cell::Blob(vec![0]),
            Cell::Lent(Lent::as_blob(lender(&[1]))),
            Cell::Blob(vec![2]),
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
        let text = Cell::Lent(Lent::as_text(lender(b"lent")).unwrap());
        let blob = Cell::Lent(Lent::as_blob(lender(&[7, 8])));
        assert_eq!((&text, &blob), (&Cell::Text("lent".into()), &Cell::Blob(vec![7, 8])));
        assert_eq!((text.bytes(), text.as_text(), text.as_blob()), (4, Some("lent"), None));
        assert_eq!((blob.bytes(), blob.as_text(), blob.as_blob()), (2, None, Some(&[7, 8][..])));
        let told: Vec<_> = sorted.iter().map(Cell::to_postgres_text).collect();
        let expected = ["-1", "2", "-0.5", "3", "B", "a", "b", "\\x00", "\\x01", "\\x02"];
        assert_eq!(told, [None].into_iter().chain(expected.map(|t| Some(t.to_owned()))).collect::<Vec<_>>());
    }

    #[test]
    fn json_is_taken_over_digit_for_digit() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let cases = [
            (Integer, "9007199254740993", Ok(Cell::Integer(9_007_199_254_740_993))),
            (Integer, "true", Ok(Cell::Integer(1))),
            (Integer, r#""12""#, Ok(Cell::Integer(12))),
            (Boolean, "false", Ok(Cell::Integer(0))),
            (Decimal, "1.10", text("1.10")),
            (Decimal, r#""NaN""#, text("NaN")),
            (Text, r#""a\"\u00e9\ud83d\ude00\n""#, text("a\"é😀\n")),
            (Text, "12.50", text("12.50")),
            (Text, "true", text("true")),
            (Text, r#"{"a": [1, 2.0]}"#, text(r#"{"a": [1, 2.0]}"#)),
            (Json, r#"{"a": 1.00}"#, text(r#"{"a": 1.00}"#)),
            (Json, r#""x""#, text(r#""x""#)),
            (Json, deep.as_str(), text(&deep)),
            (Json, "null", Ok(Cell::Null)),
            (Text, "null", Ok(Cell::Null)),
            (Blob, r#""\\x6162""#, Ok(Cell::Blob(b"ab".to_vec()))),
            (Real, "0.1", Ok(Cell::Real(0.1))),
        ];
        for (kind, given, expected) in cases {
            assert_eq!(json(kind, given), expected, "{kind:?} {given}");
        }
    }

    proptest! {
        #[test]
        fn every_double_survives_its_shortest_text(bits in any::<u64>()) {
            let given = f64::from_bits(bits);
            prop_assume!(given.is_finite());
            let Ok(Cell::Real(back)) = from_text(Real, &given.to_string()) else { panic!("not real") };
            prop_assert_eq!(back.to_bits(), given.to_bits());
        }

        #[test]
        fn no_text_panics(kind in 0..7usize, given in any::<String>()) {
            let kind = [Integer, Real, Text, Boolean, Json, Blob, Decimal][kind];
            from_text(kind, &given).ok();
        }
    }
}
