//! Values as Postgres sends them in binary, where that is cheaper for both sides than text, and says the same.
//! The formats are those of the types' send functions (`src/backend/utils/adt`); what comes out is what
//! [`from_text`] makes of the same value's text.

use super::{Cell, Mismatch, from_text};
use crate::core::schema::ColumnType;
use tokio_postgres::types::Type;

/// How a column's values come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// As the text that the SQL for the column gives.
    Text,
    /// As they are: text.
    Plain,
    /// int2, int4, int8.
    Integer,
    /// float8.
    Float8,
    /// bool.
    Bool,
    /// bytea.
    Bytes,
    /// uuid.
    Uuid,
    /// numeric.
    Numeric,
    /// date.
    Date,
    /// timestamp; timestamptz if so.
    Timestamp {
        /// Whether it ends in an offset.
        has_zone: bool,
    },
    /// jsonb.
    Jsonb,
}

impl Wire {
    /// The cheapest way for values of a type to a column of a kind.
    pub fn of(kind: ColumnType, base: &Type) -> Self {
        let is = |types: &[Type]| types.contains(base);
        match kind {
            ColumnType::Integer if is(&[Type::INT2, Type::INT4, Type::INT8]) => Self::Integer,
            ColumnType::Real if is(&[Type::FLOAT8]) => Self::Float8,
            ColumnType::Boolean if is(&[Type::BOOL]) => Self::Bool,
            ColumnType::Blob if is(&[Type::BYTEA]) => Self::Bytes,
            ColumnType::Decimal if is(&[Type::NUMERIC]) => Self::Numeric,
            ColumnType::Json if is(&[Type::JSON]) => Self::Plain,
            ColumnType::Json if is(&[Type::JSONB]) => Self::Jsonb,
            // Not bpchar: as text it has no trailing blanks.
            ColumnType::Text if is(&[Type::TEXT, Type::VARCHAR]) => Self::Plain,
            ColumnType::Text if is(&[Type::UUID]) => Self::Uuid,
            ColumnType::Text if is(&[Type::DATE]) => Self::Date,
            ColumnType::Text if is(&[Type::TIMESTAMP]) => Self::Timestamp { has_zone: false },
            ColumnType::Text if is(&[Type::TIMESTAMPTZ]) => Self::Timestamp { has_zone: true },
            _ => Self::Text,
        }
    }

    /// The value as Postgres itself writes it, where `raw` tells that at once: for keys.
    pub fn key_text(self, raw: &[u8]) -> Option<String> {
        match self {
            Self::Text | Self::Plain => std::str::from_utf8(raw).ok().map(str::to_owned),
            Self::Integer => integer(raw).map(|i| i.to_string()),
            Self::Uuid => uuid(raw),
            _ => None,
        }
    }

    /// Whether [`key_text`](Self::key_text) tells it.
    pub fn has_key_text(self) -> bool {
        matches!(self, Self::Text | Self::Plain | Self::Integer | Self::Uuid)
    }
}

/// Converts a value that is not NULL.
pub(crate) fn from_wire(kind: ColumnType, wire: Wire, raw: &[u8]) -> Result<Cell, Mismatch> {
    let text = || std::str::from_utf8(raw).map_err(|_| Mismatch::Format);
    let format = Mismatch::Format;
    match wire {
        Wire::Text => from_text(kind, text()?),
        Wire::Plain => Ok(Cell::Text(text()?.to_owned())),
        Wire::Integer => integer(raw).map(Cell::Integer).ok_or(format),
        Wire::Float8 => Ok(float8(f64::from_be_bytes(raw.try_into().map_err(|_| format)?))),
        Wire::Bool => raw.first().map(|byte| Cell::Integer(i64::from(*byte != 0))).ok_or(format),
        Wire::Bytes => Ok(Cell::Blob(raw.to_vec())),
        Wire::Uuid => uuid(raw).map(Cell::Text).ok_or(format),
        Wire::Numeric => numeric(raw).map(Cell::Text).ok_or(format),
        Wire::Date => date(i32::from_be_bytes(raw.try_into().map_err(|_| format)?)),
        Wire::Timestamp { has_zone } => timestamp(i64::from_be_bytes(raw.try_into().map_err(|_| format)?), has_zone),
        // A byte for the version, then text.
        Wire::Jsonb => match text()?.strip_prefix('\u{1}') {
            Some(json) => Ok(Cell::Text(json.to_owned())),
            None => Err(format),
        },
    }
}

fn integer(raw: &[u8]) -> Option<i64> {
    match raw.len() {
        2 => Some(i64::from(i16::from_be_bytes(raw.try_into().ok()?))),
        4 => Some(i64::from(i32::from_be_bytes(raw.try_into().ok()?))),
        8 => Some(i64::from_be_bytes(raw.try_into().ok()?)),
        _ => None,
    }
}

/// NaN and the infinities have no place among SQLite's doubles.
fn float8(real: f64) -> Cell {
    match real {
        r if r.is_nan() => Cell::Text("NaN".into()),
        f64::INFINITY => Cell::Text("Infinity".into()),
        f64::NEG_INFINITY => Cell::Text("-Infinity".into()),
        r => Cell::Real(r),
    }
}

fn uuid(raw: &[u8]) -> Option<String> {
    let digits = (raw.len() == 16).then(|| hex::encode(raw))?;
    Some([&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-"))
}

/// Number of digits, weight of the first, sign, digits after the point; then digits to the base of 10,000.
fn numeric(raw: &[u8]) -> Option<String> {
    let (head, digits) = raw.split_at_checked(8)?;
    let word = |i: usize| u16::from_be_bytes([head[2 * i], head[2 * i + 1]]);
    let (weight, sign, scale) = (i32::from(word(1) as i16), word(2), usize::from(word(3)));
    match sign {
        0xC000 => return Some("NaN".into()),
        0xD000 => return Some("Infinity".into()),
        0xF000 => return Some("-Infinity".into()),
        0 | 0x4000 if digits.len() == 2 * usize::from(word(0)) => {}
        _ => return None,
    }
    let digit = |i: i32| {
        let at = usize::try_from(i).unwrap_or(usize::MAX);
        digits.chunks_exact(2).nth(at).map_or(0, |d| u16::from_be_bytes([d[0], d[1]]))
    };
    let mut text = String::with_capacity(2 * digits.len() + scale + 8);
    if sign == 0x4000 {
        text.push('-');
    }
    text.push_str(&digit(if weight < 0 { i32::MAX } else { 0 }).to_string());
    for i in 1..=weight {
        push_padded(&mut text, u32::from(digit(i)), 4);
    }
    if scale > 0 {
        text.push('.');
        let end = text.len() + scale;
        let mut i = weight + 1;
        while text.len() < end {
            push_padded(&mut text, u32::from(digit(i)), 4);
            i += 1;
        }
        text.truncate(end);
    }
    Some(text)
}

fn push_padded(text: &mut String, number: u32, width: u32) {
    for place in (0..width).rev() {
        text.push(char::from(b'0' + (number / 10_u32.pow(place) % 10) as u8));
    }
}

/// Days from 1970-01-01 to 2000-01-01, where Postgres begins to count.
const EPOCH_DAYS: i64 = 10_957;

const DAY_US: i64 = 86_400_000_000;

/// Days as ISO 8601, as `to_jsonb` writes them.
fn date(days: i32) -> Result<Cell, Mismatch> {
    Ok(Cell::Text(match days {
        i32::MAX => "infinity".into(),
        i32::MIN => "-infinity".into(),
        days => {
            let mut text = String::with_capacity(10);
            let is_bc = push_date(&mut text, i64::from(days));
            if is_bc { text + " BC" } else { text }
        }
    }))
}

fn timestamp(us: i64, has_zone: bool) -> Result<Cell, Mismatch> {
    Ok(Cell::Text(match us {
        i64::MAX => "infinity".into(),
        i64::MIN => "-infinity".into(),
        us => {
            let mut text = String::with_capacity(32);
            let is_bc = push_date(&mut text, us.div_euclid(DAY_US));
            let us = us.rem_euclid(DAY_US);
            let seconds = (us / 1_000_000) as u32;
            for (before, number) in [('T', seconds / 3600), (':', seconds / 60 % 60), (':', seconds % 60)] {
                text.push(before);
                push_padded(&mut text, number, 2);
            }
            let fraction = (us % 1_000_000) as u32;
            if fraction > 0 {
                text.push('.');
                push_padded(&mut text, fraction, 6);
                text.truncate(text.trim_end_matches('0').len());
            }
            if has_zone {
                text.push_str("+00:00"); // the step's time zone is UTC
            }
            if is_bc {
                text.push_str(" BC");
            }
            text
        }
    }))
}

/// Year, month and day of a day since 2000-01-01 in the proleptic Gregorian calendar; whether before Christ. Counted
/// in eras of 400 years that begin in March, so that a leap day comes last.
fn push_date(text: &mut String, days: i64) -> bool {
    const ERA_DAYS: i64 = 146_097;
    let days = days + EPOCH_DAYS + 719_468; // since 0000-03-01
    let (era, day) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (day - day / 1_460 + day / 36_524 - day / (ERA_DAYS - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // from March
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year + i64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 });
    let is_bc = year <= 0;
    let year = if is_bc { 1 - year } else { year };
    if year < 10_000 {
        push_padded(text, year as u32, 4)
    } else {
        text.push_str(&year.to_string())
    }
    for number in [month, day] {
        text.push('-');
        push_padded(text, number as u32, 2);
    }
    is_bc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(cell: Result<Cell, Mismatch>) -> String {
        let Ok(Cell::Text(text)) = cell else { panic!("{cell:?}") };
        text
    }

    #[test]
    fn values_come_in_binary_where_that_says_the_same_as_their_text() {
        use ColumnType::{Blob, Boolean, Decimal, Integer, Json, Real, Text};
        let cases = [
            (Integer, &[Type::INT2, Type::INT4, Type::INT8][..], Wire::Integer),
            (Real, &[Type::FLOAT8], Wire::Float8),
            (Boolean, &[Type::BOOL], Wire::Bool),
            (Blob, &[Type::BYTEA], Wire::Bytes),
            (Decimal, &[Type::NUMERIC], Wire::Numeric),
            (Json, &[Type::JSON], Wire::Plain),
            (Json, &[Type::JSONB], Wire::Jsonb),
            (Text, &[Type::TEXT, Type::VARCHAR], Wire::Plain),
            (Text, &[Type::UUID], Wire::Uuid),
            (Text, &[Type::DATE], Wire::Date),
            (Text, &[Type::TIMESTAMP], Wire::Timestamp { has_zone: false }),
            (Text, &[Type::TIMESTAMPTZ], Wire::Timestamp { has_zone: true }),
            // A real's digits depend on its four bytes, a character's on its blanks, and a number is no text.
            (Real, &[Type::FLOAT4, Type::NUMERIC], Wire::Text),
            (Text, &[Type::BPCHAR, Type::INT4, Type::BOOL, Type::BYTEA], Wire::Text),
            (Integer, &[Type::NUMERIC, Type::BOOL], Wire::Text),
        ];
        for (kind, types, wire) in cases {
            types.iter().for_each(|base| assert_eq!(Wire::of(kind, base), wire, "{kind:?} of {base}"));
        }
    }

    #[test]
    fn a_key_is_told_as_postgres_writes_it_or_not_at_all() {
        let uuid = [0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11];
        let cases = [
            (Wire::Integer, &[0xff, 0xfe][..], Some("-2")),
            (Wire::Integer, &[0, 0, 1, 0], Some("256")),
            (Wire::Plain, "ß".as_bytes(), Some("ß")),
            (Wire::Text, b"7", Some("7")),
            (Wire::Text, &[0xff], None),
            (Wire::Uuid, &uuid, Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
            (Wire::Bool, &[1], None),
        ];
        for (wire, raw, text) in cases {
            assert_eq!(wire.key_text(raw).as_deref(), text, "{wire:?}");
            assert_eq!(wire.has_key_text(), wire != Wire::Bool);
        }
    }

    #[test]
    fn calendars_agree_at_their_corners() {
        let days = [
            (0, "2000-01-01"),
            (-1, "1999-12-31"),
            (59, "2000-02-29"),
            (60, "2000-03-01"),
            (-730_119, "0001-01-01"),
            (-730_120, "0001-12-31 BC"),
            (2_921_940, "10000-01-01"),
            (i32::MAX, "infinity"),
        ];
        for (day, expected) in days {
            assert_eq!(text(date(day)), expected);
        }
        assert_eq!(text(timestamp(-1, false)), "1999-12-31T23:59:59.999999");
        assert_eq!(text(timestamp(1_500_000, true)), "2000-01-01T00:00:01.5+00:00");
        assert_eq!(text(timestamp(i64::MIN, true)), "-infinity");
    }

    #[test]
    fn numbers_have_all_their_digits() {
        let sent = |weight: i16, sign: u16, scale: u16, digits: &[u16]| {
            let words = [digits.len() as u16, weight as u16, sign, scale];
            numeric(&words.iter().chain(digits).flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>())
        };
        assert_eq!(sent(0, 0, 2, &[12, 3400]).as_deref(), Some("12.34"));
        assert_eq!(sent(1, 0x4000, 0, &[1, 2]).as_deref(), Some("-10002"));
        assert_eq!(sent(1, 0, 0, &[7]).as_deref(), Some("70000"));
        assert_eq!(sent(-2, 0, 10, &[5]).as_deref(), Some("0.0000000500"));
        assert_eq!(sent(0, 0, 3, &[]).as_deref(), Some("0.000"));
        assert_eq!(sent(0, 0xC000, 0, &[]).as_deref(), Some("NaN"));
        assert_eq!(sent(0, 0x8000, 0, &[]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind in 0..7usize, wire in 0..12usize, raw in prop::collection::vec(any::<u8>(), 0..40)) {
            let kinds = [ColumnType::Integer, ColumnType::Real, ColumnType::Text, ColumnType::Boolean, ColumnType::Json, ColumnType::Blob, ColumnType::Decimal];
            let wires = [Wire::Text, Wire::Plain, Wire::Integer, Wire::Float8, Wire::Bool, Wire::Bytes, Wire::Uuid, Wire::Numeric,
                Wire::Date, Wire::Timestamp { has_zone: true }, Wire::Timestamp { has_zone: false }, Wire::Jsonb];
            from_wire(kinds[kind], wires[wire], &raw).ok();
            wires[wire].key_text(&raw);
        }
    }
}
