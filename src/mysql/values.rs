//! What the driver gives of a column → a cell, and the text of a key → what the driver is asked with. Takes values of
//! prepared statements: those of the text protocol are rounded. No IO.

use super::types::{Family, MyType};
use crate::core::schema::ColumnType;
use crate::core::value::{Cell, Mismatch, from_text};
use mysql_async::Value;

/// The cell of a column of `kind`.
pub(crate) fn cell(of: &MyType, kind: ColumnType, value: Value) -> Result<Cell, Mismatch> {
    let text = match (of.family, value) {
        (_, Value::NULL) => return Ok(Cell::Null),
        (Family::Bit, Value::Bytes(bytes)) if kind == ColumnType::Blob => return Ok(Cell::Blob(bytes)),
        (Family::Bit, Value::Bytes(bytes)) => number_of_bits(&bytes).ok_or(Mismatch::Integer)?.to_string(),
        (Family::Bytes, Value::Bytes(bytes)) if kind == ColumnType::Blob => return Ok(Cell::Blob(bytes)),
        (Family::Bytes, _) => return Err(Mismatch::Blob),
        (_, Value::Bytes(bytes)) => String::from_utf8(bytes).map_err(|_| Mismatch::Format)?,
        (_, Value::Int(i)) if kind == ColumnType::Integer => return Ok(Cell::Integer(i)),
        (_, Value::Int(i)) => i.to_string(),
        (_, Value::UInt(u)) => u.to_string(),
        // The number that the shortest text of the source's own stands for.
        (_, Value::Float(f)) => f.to_string(),
        (_, Value::Double(d)) if kind == ColumnType::Real && d.is_finite() => return Ok(Cell::Real(d)),
        (_, Value::Double(d)) => d.to_string(),
        (family, Value::Date(year, month, day, hour, minute, second, micros)) => {
            let date = format!("{year:04}-{month:02}-{day:02}");
            match family {
                Family::Date => date,
                _ => format!("{date} {hour:02}:{minute:02}:{second:02}{}", fraction(micros, of.digits)),
            }
        }
        (_, Value::Time(is_negative, days, hours, minutes, seconds, micros)) => format!(
            "{}{:02}:{minutes:02}:{seconds:02}{}",
            if is_negative { "-" } else { "" },
            days * 24 + u32::from(hours),
            fraction(micros, of.digits)
        ),
    };
    from_text(kind, &text)
}

/// The digits behind the point of seconds, as many as the column has.
fn fraction(micros: u32, digits: u8) -> String {
    let all = format!("{micros:06}");
    match usize::from(digits.min(6)) {
        0 => String::new(),
        digits => format!(".{}", &all[..digits]),
    }
}

/// Bytes of a `bit`, the highest first.
fn number_of_bits(bytes: &[u8]) -> Option<u64> {
    let mut number = [0; 8];
    let start = 8usize.checked_sub(bytes.len())?;
    number[start..].copy_from_slice(bytes);
    Some(u64::from_be_bytes(number))
}

/// What a key column is compared with: its text, as the replica has it.
pub(crate) fn parameter(of: &MyType, text: &str) -> Value {
    let as_text = || Value::Bytes(text.as_bytes().to_vec());
    let bytes = || text.strip_prefix("\\x").and_then(|digits| hex::decode(digits).ok());
    match of.family {
        Family::Int | Family::BigUnsigned => number(text).unwrap_or_else(as_text),
        // By number it is found in the index, and by text it is not.
        Family::Bit => match bytes().and_then(|bytes| number_of_bits(&bytes)) {
            Some(bits) => Value::UInt(bits),
            None => number(text).unwrap_or_else(as_text),
        },
        Family::Enum if text.is_empty() => Value::UInt(0),
        Family::Enum => match of.members.iter().position(|member| member == text) {
            Some(at) => Value::UInt(at as u64 + 1),
            None => as_text(),
        },
        Family::Set => {
            let bit = |name: &str| of.members.iter().position(|member| member == name).map(|at| 1_u64 << at.min(63));
            let names = text.split(',').filter(|name| !name.is_empty());
            let bits = names.map(bit).try_fold(0, |bits, bit| Some(bits | bit?));
            bits.map_or_else(as_text, Value::UInt)
        }
        Family::Bytes => bytes().map_or_else(as_text, Value::Bytes),
        Family::Decimal
        | Family::Float
        | Family::Double
        | Family::Text
        | Family::Json
        | Family::Date
        | Family::DateTime
        | Family::Timestamp
        | Family::Time
        | Family::Printed
        | Family::Unknown => as_text(),
    }
}

fn number(text: &str) -> Option<Value> {
    let signed = text.parse().ok().map(Value::Int);
    signed.or_else(|| text.parse().ok().map(Value::UInt))
}

/// The SQL of that parameter, of the column's own type: a decimal or a time beside a text would be compared as doubles. It
/// is a text first: a MySQL (9.7) takes a parameter within a cast for a value of that type, and 00:03:20 for 00:00:00.
pub(crate) fn placeholder(of: &MyType) -> String {
    let cast = |to: &str| format!("cast(cast(? as char character set utf8mb4) as {to})");
    match of.family {
        Family::Decimal => cast(of.declared.split(" unsigned").next().unwrap_or(&of.declared)),
        Family::Date => cast("date"),
        Family::DateTime | Family::Timestamp => cast(&format!("datetime({})", of.digits)),
        Family::Time => cast(&format!("time({})", of.digits)),
        // A MySQL would take a number beside them for a text.
        Family::Enum | Family::Set => "cast(? as unsigned)".into(),
        // What the column cannot hold becomes a question mark there, and no row is under it; as a parameter that is converted
        // by itself a MySQL would refuse it.
        Family::Text => match &of.charset {
            Some((charset, collation)) => {
                format!("convert(cast(? as char character set utf8mb4) using {charset}) collate {collation}")
            }
            None => "?".into(),
        },
        _ => "?".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data_type: &str, declared: &str, digits: u8) -> MyType {
        MyType::parse(data_type, declared, digits, 0, false)
    }

    fn bytes(text: &str) -> Value {
        Value::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn values_arrive_to_the_last_digit() {
        use ColumnType::{Blob, Boolean, Decimal, Integer, Real, Text};
        let text = |text: &str| Ok(Cell::Text(text.into()));
        for (of, kind, value, expected) in [
            (of("int", "int(11)", 0), Integer, Value::Int(-5), Ok(Cell::Integer(-5))),
            (of("tinyint", "tinyint(1)", 0), Boolean, Value::Int(1), Ok(Cell::Integer(1))),
            (of("tinyint", "tinyint(1)", 0), Boolean, Value::Int(7), Err(Mismatch::Boolean)),
            (of("bigint", "bigint(20) unsigned", 0), Decimal, Value::UInt(u64::MAX), text("18446744073709551615")),
            (of("bigint", "bigint(20) unsigned", 0), Integer, Value::UInt(u64::MAX), Err(Mismatch::Integer)),
            (of("decimal", "decimal(5,2)", 0), Decimal, bytes("1.10"), text("1.10")),
            (of("float", "float", 0), Real, Value::Float(0.1), Ok(Cell::Real(0.1))),
            (of("float", "float", 0), Real, Value::Float(16_777_217.0), Ok(Cell::Real(16_777_216.0))),
            (of("double", "double", 0), Real, Value::Double(5e-324), Ok(Cell::Real(5e-324))),
            (of("bit", "bit(9)", 0), Integer, Value::Bytes(vec![1, 2]), Ok(Cell::Integer(258))),
            (of("bit", "bit(64)", 0), Blob, Value::Bytes(vec![255; 8]), Ok(Cell::Blob(vec![255; 8]))),
            (of("binary", "binary(3)", 0), Blob, Value::Bytes(vec![1, 0, 0]), Ok(Cell::Blob(vec![1, 0, 0]))),
            (of("binary", "binary(3)", 0), Text, Value::Bytes(vec![1]), Err(Mismatch::Blob)),
            (of("date", "date", 0), Text, Value::Date(0, 0, 0, 0, 0, 0, 0), text("0000-00-00")),
            (of("date", "date", 0), Text, Value::Date(2026, 0, 0, 0, 0, 0, 0), text("2026-00-00")),
            (
                of("datetime", "datetime(3)", 3),
                Text,
                Value::Date(2026, 1, 2, 3, 4, 5, 60_000),
                text("2026-01-02 03:04:05.060"),
            ),
            (of("timestamp", "timestamp", 0), Text, Value::Date(1970, 1, 1, 0, 0, 1, 0), text("1970-01-01 00:00:01")),
            (of("time", "time(1)", 1), Text, Value::Time(true, 34, 22, 59, 59, 500_000), text("-838:59:59.5")),
            (of("time", "time", 0), Text, Value::Time(false, 0, 0, 0, 0, 0), text("00:00:00")),
            (of("varchar", "varchar(9)", 0), Text, bytes("ß"), text("ß")),
            (of("varchar", "varchar(9)", 0), Text, Value::NULL, Ok(Cell::Null)),
            (of("year", "year(4)", 0), Integer, Value::UInt(2155), Ok(Cell::Integer(2155))),
        ] {
            assert_eq!(cell(&of, kind, value.clone()), expected, "{} {kind:?} {value:?}", of.declared);
        }
    }

    #[test]
    fn keys_are_asked_for_by_what_they_are() {
        assert_eq!(parameter(&of("bigint", "bigint unsigned", 0), "18446744073709551615"), Value::UInt(u64::MAX));
        assert_eq!(parameter(&of("int", "int", 0), "-3"), Value::Int(-3));
        assert_eq!(parameter(&of("binary", "binary(2)", 0), "\\x0a00"), Value::Bytes(vec![10, 0]));
        assert_eq!(parameter(&of("enum", "enum('a','b')", 0), "b"), Value::UInt(2));
        assert_eq!(parameter(&of("set", "set('a','b','c')", 0), "a,c"), Value::UInt(5));
        assert_eq!(parameter(&of("bit", "bit(64)", 0), "\\x0000000000000102"), Value::UInt(258));
        let cast = |to: &str| format!("cast(cast(? as char character set utf8mb4) as {to})");
        assert_eq!(placeholder(&of("decimal", "decimal(9,4) unsigned", 0)), cast("decimal(9,4)"));
        assert_eq!(placeholder(&of("time", "time(6)", 6)), cast("time(6)"));
    }
}
