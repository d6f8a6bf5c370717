//! The keys of the rows that an event of a row binlog is about. Column names and signs are those of the catalog: MariaDB
//! sends neither. No IO.

use super::image::{
    BIT, BLOB, DATE, DATETIME2, DECIMAL, DIGIT_BYTES, ENUM, Format, INT24, Image, LONG, LONGLONG, SET, SHORT, STRING,
    TIME2, TIMESTAMP2, TINY, VARCHAR, YEAR,
};
use crate::core::message::MarkedKey;
use crate::core::schema::ColumnType;
use crate::mysql::types::{Family, MyType};
use crate::mysql::values;
use mysql_async::Value;
use mysql_async::binlog::events::{RowsEventData, TableMapEvent};
use std::collections::BTreeSet;

/// How rows of a table stand in the log.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The types of all columns, in the table's order.
    pub columns: Vec<MyType>,
    /// Positions of the key's columns, in the key's order, with their types in the replica; none where the rows do not
    /// matter.
    pub key: Vec<(usize, ColumnType)>,
    /// Positions of columns that others refer to.
    pub referred: BTreeSet<usize>,
}

/// What an event touches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Keys before and after; the same one may come twice.
    pub keys: Vec<MarkedKey>,
    /// Rows went.
    pub deletes: bool,
    /// What others refer to has changed.
    pub changes_referred: bool,
}

/// Whether images with a column of this type can be walked over.
pub(crate) fn is_walkable(of: &MyType) -> bool {
    // Times of MariaDB 5.3, and compressed columns, do not say how long they are.
    !["mariadb-5.3", "compressed"].iter().any(|mark| of.declared.to_lowercase().contains(mark))
}

/// Why keys of this type cannot be read from a log.
pub(crate) fn key_obstacle(of: &MyType) -> Option<String> {
    let is_known = match of.family {
        Family::Int
        | Family::BigUnsigned
        | Family::Decimal
        | Family::Bit
        | Family::Enum
        | Family::Set
        | Family::Bytes
        | Family::Date
        | Family::DateTime
        | Family::Timestamp
        | Family::Time => true,
        Family::Printed => of.declared == "uuid",
        Family::Text => matches!(charset(of), "utf8mb4" | "utf8mb3" | "utf8" | "ascii" | "latin1"),
        Family::Float | Family::Double | Family::Json | Family::Unknown => false,
    };
    let is_geometry = of.family == Family::Bytes && !is_bytes(of);
    (!is_known || is_geometry).then(|| {
        let charset = of.charset.as_ref().map(|(charset, _)| format!(" in {charset}")).unwrap_or_default();
        format!("a key of type {}{charset} is not read from it", of.declared)
    })
}

fn is_bytes(of: &MyType) -> bool {
    of.declared.contains("binary") || of.declared.contains("blob")
}

fn charset(of: &MyType) -> &str {
    of.charset.as_ref().map_or("", |(charset, _)| charset)
}

impl Layout {
    /// What an event touches; `None` where that cannot be told.
    pub fn touched(&self, rows: &RowsEventData<'_>, map: &TableMapEvent<'_>) -> Option<Touched> {
        // In it JSON may stand in part.
        if matches!(rows, RowsEventData::PartialUpdateRowsEvent(_)) {
            return None;
        }
        let formats = Format::all(map)?;
        // Hidden columns come behind the others.
        if formats.len() < self.columns.len() || formats.len() as u64 != rows.num_columns() {
            return None;
        }
        let has_before: Option<Vec<bool>> =
            rows.columns_before_image().map(|bits| bits.iter().map(|bit| *bit).collect());
        let has_after: Option<Vec<bool>> = rows.columns_after_image().map(|bits| bits.iter().map(|bit| *bit).collect());
        let (mut touched, mut data) = (Touched::default(), rows.rows_data());
        while !data.is_empty() {
            let before = match &has_before {
                Some(has) => Some(Image::read(&mut data, &formats, has)?),
                None => None,
            };
            let after = match &has_after {
                Some(has) => Some(Image::read(&mut data, &formats, has)?),
                None => None,
            };
            touched.deletes |= after.is_none();
            if !self.key.is_empty() {
                if let Some(before) = &before {
                    touched.keys.push(self.key(&formats, before, None)?);
                }
                if let Some(after) = &after {
                    let key = self.key(&formats, after, before.as_ref())?;
                    // An update mostly leaves its key as it was.
                    if before.is_none() || touched.keys.last() != Some(&key) {
                        touched.keys.push(key);
                    }
                }
            }
            if let (Some(before), Some(after)) = (&before, &after) {
                let has_changed = |&at: &usize| after.get(at).is_some_and(|after| before.get(at) != Some(after));
                touched.changes_referred |= self.referred.iter().any(has_changed);
            }
        }
        Some(touched)
    }

    /// The key of an image; what it lacks is as it was.
    fn key(&self, formats: &[Format], image: &Image<'_>, before: Option<&Image<'_>>) -> Option<MarkedKey> {
        let text = |&(at, kind): &(usize, ColumnType)| {
            let bytes = image.get(at).or_else(|| before?.get(at))??;
            let of = &self.columns[at];
            text(of, kind, sent(of, formats[at], bytes)?)
        };
        self.key.iter().map(text).collect()
    }
}

/// The text of a value of a key, as a row's would be.
fn text(of: &MyType, kind: ColumnType, value: Value) -> Option<String> {
    let cell = values::cell(of, kind, value.clone());
    let cell = cell.or_else(|_| values::cell(of, of.default_type(), value)).ok()?;
    cell.to_postgres_text()
}

/// A value as a prepared statement would send it; `None` where that cannot be told.
fn sent(of: &MyType, format: Format, bytes: &[u8]) -> Option<Value> {
    let text = |text: String| Some(Value::Bytes(text.into_bytes()));
    match (of.family, format.kind) {
        (Family::Int, YEAR) => {
            let year = i64::from(*bytes.first()?);
            Some(Value::Int(if year == 0 { 0 } else { 1900 + year }))
        }
        (Family::Int | Family::BigUnsigned, TINY | SHORT | INT24 | LONG | LONGLONG) => {
            let number = little(bytes);
            Some(match of.declared.contains("unsigned") {
                true => Value::UInt(number),
                false => Value::Int(signed(number, bytes.len())),
            })
        }
        (Family::Decimal, DECIMAL) => text(decimal(format.meta, bytes)?),
        (Family::Bit, BIT) => Some(Value::Bytes(bytes.to_vec())),
        (Family::Enum, ENUM) => match usize::try_from(little(bytes)).ok()?.checked_sub(1) {
            None => text(String::new()),
            Some(at) => text(of.members.get(at)?.clone()),
        },
        (Family::Set, SET) => {
            let is_in = |(at, _): &(usize, &String)| bytes.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
            let members: Vec<&str> =
                of.members.iter().enumerate().filter(is_in).map(|(_, name)| name.as_str()).collect();
            text(members.join(","))
        }
        (Family::Text, STRING | VARCHAR | BLOB) => match charset(of) {
            "latin1" => text(bytes.iter().copied().map(latin1).collect()),
            _ => Some(Value::Bytes(bytes.to_vec())),
        },
        // Trailing zeros are left out of the log.
        (Family::Bytes, STRING | VARCHAR | BLOB) => {
            let mut bytes = bytes.to_vec();
            if let Some(length) = fixed_length(&of.declared) {
                bytes.resize(length.max(bytes.len()), 0);
            }
            Some(Value::Bytes(bytes))
        }
        (Family::Date, DATE) => {
            let number = u32::try_from(little(bytes)).ok()?;
            let part = |number: u32| u8::try_from(number).ok();
            Some(Value::Date(u16::try_from(number >> 9).ok()?, part(number >> 5 & 15)?, part(number & 31)?, 0, 0, 0, 0))
        }
        (Family::DateTime, DATETIME2) => datetime(bytes),
        (Family::Timestamp, TIMESTAMP2) => timestamp(bytes),
        (Family::Time, TIME2) => time(bytes),
        (Family::Printed, STRING) => text(uuid(bytes)?),
        _ => None,
    }
}

/// The lowest byte first.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The highest byte first.
fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A number of so many bytes whose highest bit is its sign.
fn signed(number: u64, bytes: usize) -> i64 {
    let unused = 64 - 8 * bytes.clamp(1, 8) as u32;
    (number << unused) as i64 >> unused
}

/// Groups of nine digits, the first and the last one of fewer, of a negative number all bits inverted.
fn decimal([precision, scale]: [u8; 2], bytes: &[u8]) -> Option<String> {
    let is_negative = bytes.first()? & 0x80 == 0;
    let mut bytes: Vec<u8> = bytes.iter().map(|byte| if is_negative { !byte } else { *byte }).collect();
    bytes[0] ^= 0x80;
    let (whole, scale) = (usize::from(precision.checked_sub(scale)?), usize::from(scale));
    let mut rest = &bytes[..];
    let mut group = |digits: usize| {
        let (number, behind) = rest.split_at_checked(DIGIT_BYTES[digits])?;
        rest = behind;
        Some(format!("{:0digits$}", big(number)))
    };
    let (mut text, mut fraction) = (String::new(), String::new());
    if whole % 9 > 0 {
        text += &group(whole % 9)?;
    }
    for _ in 0..whole / 9 {
        text += &group(9)?;
    }
    for _ in 0..scale / 9 {
        fraction += &group(9)?;
    }
    if scale % 9 > 0 {
        fraction += &group(scale % 9)?;
    }
    let whole = text.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{}{whole}{point}{fraction}", if is_negative { "-" } else { "" }))
}

/// Microseconds of a fraction of so many bytes.
fn micros(fraction: u64, bytes: usize) -> Option<u32> {
    let scale = [1_000_000, 10_000, 100, 1].get(bytes)?;
    u32::try_from(fraction * scale).ok()
}

/// Year and month in 17 bits, day, hour, minute and second, then a fraction.
fn datetime(bytes: &[u8]) -> Option<Value> {
    let (whole, fraction) = bytes.split_at_checked(5)?;
    let number = big(whole).checked_sub(1 << 39)?;
    let (year_month, day) = (number >> 22, number >> 17 & 31);
    let (hour, minute, second) = (number >> 12 & 31, number >> 6 & 63, number & 63);
    let part = |number: u64| u8::try_from(number).ok();
    Some(Value::Date(
        u16::try_from(year_month / 13).ok()?,
        part(year_month % 13)?,
        part(day)?,
        part(hour)?,
        part(minute)?,
        part(second)?,
        micros(big(fraction), fraction.len())?,
    ))
}

/// Hours, minutes, seconds and a fraction as one number with a sign.
fn time(bytes: &[u8]) -> Option<Value> {
    let fraction_bytes = bytes.len().checked_sub(3)?;
    let bits = 8 * fraction_bytes;
    let number = i64::try_from(big(bytes)).ok()? - (1 << (23 + bits));
    let size = number.unsigned_abs();
    let whole = size >> bits;
    let (hours, minutes, seconds) = (u32::try_from(whole >> 12 & 1023).ok()?, whole >> 6 & 63, whole & 63);
    let part = |number: u64| u8::try_from(number).ok();
    let micros = micros(size & ((1 << bits) - 1), fraction_bytes)?;
    Some(Value::Time(number < 0, hours / 24, (hours % 24) as u8, part(minutes)?, part(seconds)?, micros))
}

/// The `n` of `binary(n)`.
fn fixed_length(declared: &str) -> Option<usize> {
    declared.strip_prefix("binary(")?.split(')').next()?.parse().ok()
}

/// What MySQL's latin1 is: cp1252, whose five holes are control characters.
fn latin1(byte: u8) -> char {
    const HIGH: [u16; 32] = [
        0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039, 0x152, 0x8d, 0x17d,
        0x8f, 0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x2dc, 0x2122, 0x161, 0x203a, 0x153, 0x9d,
        0x17e, 0x178,
    ];
    match byte {
        0x80..=0x9f => char::from_u32(u32::from(HIGH[usize::from(byte - 0x80)])).unwrap_or(char::REPLACEMENT_CHARACTER),
        byte => char::from(byte),
    }
}

/// Seconds since 1970 and a fraction, in UTC.
fn timestamp(bytes: &[u8]) -> Option<Value> {
    let (whole, fraction) = bytes.split_at_checked(4)?;
    let (seconds, micros) = (big(whole), micros(big(fraction), fraction.len())?);
    if seconds == 0 && micros == 0 {
        return Some(Value::Date(0, 0, 0, 0, 0, 0, 0));
    }
    let (days, second) = (seconds / 86_400, u32::try_from(seconds % 86_400).ok()?);
    let (year, month, day) = civil(i64::try_from(days).ok()?);
    let part = |number: u32| u8::try_from(number).ok();
    let (hour, minute, second) = (part(second / 3600)?, part(second / 60 % 60)?, part(second % 60)?);
    Some(Value::Date(u16::try_from(year).ok()?, month, day, hour, minute, second, micros))
}

/// Year, month and day of a day since 1970, in the calendar of today.
fn civil(days: i64) -> (i64, u8, u8) {
    // Years begin in March, so that a leap day is their last.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u8, day as u8)
}

/// Sixteen bytes, trailing zeros left out.
fn uuid(bytes: &[u8]) -> Option<String> {
    let mut all = [0; 16];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(uuid::Uuid::from_bytes(all).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_since_1970_are_a_date() {
        for (seconds, fraction, expected) in [
            (0_u32, &[][..], Value::Date(0, 0, 0, 0, 0, 0, 0)),
            (1, &[], Value::Date(1970, 1, 1, 0, 0, 1, 0)),
            (951_827_696, &[50], Value::Date(2000, 2, 29, 12, 34, 56, 500_000)),
            (951_868_800, &[0, 1], Value::Date(2000, 3, 1, 0, 0, 0, 100)),
            (1_709_164_800, &[0, 0, 1], Value::Date(2024, 2, 29, 0, 0, 0, 1)),
            (u32::MAX, &[], Value::Date(2106, 2, 7, 6, 28, 15, 0)),
        ] {
            let bytes = [&seconds.to_be_bytes()[..], fraction].concat();
            assert_eq!(timestamp(&bytes), Some(expected), "{seconds}");
        }
    }

    #[test]
    fn times_are_numbers_with_a_sign() {
        assert_eq!(time(&[0x80, 0, 0]), Some(Value::Time(false, 0, 0, 0, 0, 0)));
        assert_eq!(time(&[0x7f, 0xff, 0xff, 0xe7]), Some(Value::Time(true, 0, 0, 0, 0, 250_000)), "-00:00:00.25");
        assert_eq!(time(&[0x80, 0x10, 0x83, 0, 0, 5]), Some(Value::Time(false, 0, 1, 2, 3, 5)));
    }

    #[test]
    fn numbers_have_the_sign_of_their_column() {
        assert_eq!((signed(255, 1), signed(127, 1), signed(0xff_ffff, 3)), (-1, 127, -1));
        assert_eq!(signed(u64::MAX, 8), -1);
        assert_eq!(decimal([10, 3], &[0x80, 0, 0, 1, 0, 250]).unwrap(), "1.250");
        assert_eq!(decimal([3, 0], &[0x7c, 0x18]).unwrap(), "-999");
        assert_eq!(decimal([2, 2], &[0x85]).unwrap(), "0.05");
        let all: String = [b'a', 0x80, 0x81, 0x9f, 0xe9, 0xff].into_iter().map(latin1).collect();
        assert_eq!(all, "a€\u{81}Ÿéÿ");
    }
}
