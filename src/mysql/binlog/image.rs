//! Where in a row's image each column lies: by the types that stand before the rows, none of which has to be understood for
//! its neighbours to be found. Formats as MySQL's and MariaDB's sources write them (`log_event.h`, `field.cc`). No IO.

use mysql_async::binlog::events::TableMapEvent;

/// How values of a column stand in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// The server's number of the type.
    pub kind: u8,
    /// What it adds: lengths, digits.
    pub meta: [u8; 2],
}

pub(super) const TINY: u8 = 1;
pub(super) const SHORT: u8 = 2;
pub(super) const LONG: u8 = 3;
const FLOAT: u8 = 4;
const DOUBLE: u8 = 5;
const TIMESTAMP: u8 = 7;
pub(super) const LONGLONG: u8 = 8;
pub(super) const INT24: u8 = 9;
pub(super) const DATE: u8 = 10;
const TIME: u8 = 11;
const DATETIME: u8 = 12;
pub(super) const YEAR: u8 = 13;
const NEWDATE: u8 = 14;
pub(super) const VARCHAR: u8 = 15;
pub(super) const BIT: u8 = 16;
pub(super) const TIMESTAMP2: u8 = 17;
pub(super) const DATETIME2: u8 = 18;
pub(super) const TIME2: u8 = 19;
const VECTOR: u8 = 242;
const JSON: u8 = 245;
pub(super) const DECIMAL: u8 = 246;
pub(super) const ENUM: u8 = 247;
pub(super) const SET: u8 = 248;
const BLOBS: [u8; 4] = [249, 250, 251, 252];
pub(super) const BLOB: u8 = 252;
pub(super) const STRING: u8 = 254;
const GEOMETRY: u8 = 255;

impl Format {
    /// Of all columns of a table; `None` where one is of a type that nobody knows.
    pub fn all(map: &TableMapEvent<'_>) -> Option<Vec<Self>> {
        let one = |at: usize| {
            let kind = map.get_raw_column_type(at).ok()?? as u8;
            let meta = map.get_column_metadata(at)?;
            let meta = [meta.first().copied().unwrap_or(0), meta.get(1).copied().unwrap_or(0)];
            // An enum and a set are written as strings that say what they are.
            Some(match (kind, meta[0]) {
                (STRING, real @ (ENUM | SET)) => Self { kind: real, meta },
                _ => Self { kind, meta },
            })
        };
        (0..usize::try_from(map.columns_count()).ok()?).map(one).collect()
    }

    /// The bytes of a value, and how many there are with their length before them.
    pub fn value<'a>(&self, data: &'a [u8]) -> Option<(&'a [u8], usize)> {
        let (prefix, length) = match self.kind {
            TINY | YEAR => (0, 1),
            SHORT => (0, 2),
            INT24 | DATE | NEWDATE | TIME => (0, 3),
            LONG | FLOAT | TIMESTAMP => (0, 4),
            LONGLONG | DOUBLE | DATETIME => (0, 8),
            TIME2 => (0, 3 + fraction(self.meta[0])),
            TIMESTAMP2 => (0, 4 + fraction(self.meta[0])),
            DATETIME2 => (0, 5 + fraction(self.meta[0])),
            BIT => (0, usize::from(self.meta[1]) + usize::from(self.meta[0] > 0)),
            ENUM | SET => (0, usize::from(self.meta[1])),
            DECIMAL => (0, decimal_bytes(self.meta)?),
            VARCHAR => prefixed(data, if u16::from_le_bytes(self.meta) > 255 { 2 } else { 1 })?,
            STRING => {
                // The two highest bits of a length of more than 255 hide in the type, inverted.
                let high = usize::from((self.meta[0] & 0x30) ^ 0x30) << 4;
                prefixed(data, if high | usize::from(self.meta[1]) > 255 { 2 } else { 1 })?
            }
            JSON | VECTOR | GEOMETRY => prefixed(data, usize::from(self.meta[0]))?,
            kind if BLOBS.contains(&kind) => prefixed(data, usize::from(self.meta[0]))?,
            _ => return None,
        };
        Some((data.get(prefix..prefix.checked_add(length)?)?, prefix + length))
    }
}

/// Bytes of a fraction of a second with so many digits.
fn fraction(digits: u8) -> usize {
    usize::from(digits).div_ceil(2)
}

fn prefixed(data: &[u8], bytes: usize) -> Option<(usize, usize)> {
    let mut length = [0; 8];
    length.get_mut(..bytes).filter(|_| bytes <= 4)?.copy_from_slice(data.get(..bytes)?);
    Some((bytes, usize::try_from(u64::from_le_bytes(length)).ok()?))
}

/// Nine digits take four bytes, fewer fewer.
pub(super) const DIGIT_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

fn decimal_bytes([precision, scale]: [u8; 2]) -> Option<usize> {
    let part = |digits: usize| digits / 9 * 4 + DIGIT_BYTES[digits % 9];
    Some(part(usize::from(precision.checked_sub(scale)?)) + part(usize::from(scale)))
}

/// One row of an event: the bytes of each column, none where it is NULL or the image does not have it.
pub(super) struct Image<'a> {
    columns: Vec<Option<&'a [u8]>>,
    has: &'a [bool],
}

impl<'a> Image<'a> {
    /// Reads one off the front of an event's rows.
    pub fn read(data: &mut &'a [u8], formats: &[Format], has: &'a [bool]) -> Option<Self> {
        let count = has.iter().filter(|has| **has).count();
        let (nulls, mut rest) = data.split_at_checked(count.div_ceil(8))?;
        let mut columns = vec![None; has.len()];
        let there = formats.iter().enumerate().filter(|(column, _)| has.get(*column) == Some(&true));
        for (at, (column, format)) in there.enumerate() {
            if nulls[at / 8] >> (at % 8) & 1 == 0 {
                let (value, taken) = format.value(rest)?;
                columns[column] = Some(value);
                rest = &rest[taken..];
            }
        }
        *data = rest;
        Some(Self { columns, has })
    }

    /// A column's bytes, `None` where it is NULL; the whole is `None` where the image does not have it.
    pub fn get(&self, column: usize) -> Option<Option<&'a [u8]>> {
        self.has.get(column).filter(|has| **has).map(|_| self.columns.get(column).copied().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_long_as_they_say() {
        let format = |kind, meta| Format { kind, meta };
        let data = [2, 0, b'a', b'b', 5, 6, 7, 8, 9, 10, 11, 12, 13];
        for (format, taken, length) in [
            (format(TINY, [0, 0]), 1, 1),
            (format(VARCHAR, [255, 0]), 3, 2),
            (format(VARCHAR, [0, 1]), 4, 2),
            (format(STRING, [254, 20]), 3, 2),
            (format(STRING, [0xee, 20]), 4, 2),
            (format(BLOB, [2, 0]), 4, 2),
            (format(DECIMAL, [10, 3]), 6, 6),
            (format(DECIMAL, [9, 0]), 4, 4),
            (format(TIME2, [2, 0]), 4, 4),
            (format(DATETIME2, [5, 0]), 8, 8),
            (format(BIT, [1, 1]), 2, 2),
            (format(BIT, [0, 1]), 1, 1),
            (format(SET, [248, 3]), 3, 3),
        ] {
            let (value, all) = format.value(&data).unwrap();
            assert_eq!((all, value.len()), (taken, length), "{format:?}");
        }
        assert_eq!(format(BLOB, [1, 0]).value(&[3, 1]), None);
        assert_eq!(format(BLOB, [9, 0]).value(&data), None);
        assert_eq!(format(77, [0, 0]).value(&data), None);
    }

    #[test]
    fn an_image_has_only_what_its_bits_say() {
        let formats = [
            Format { kind: TINY, meta: [0; 2] },
            Format { kind: SHORT, meta: [0; 2] },
            Format { kind: TINY, meta: [0; 2] },
        ];
        let mut data: &[u8] = &[0b10, 7, 0b01, 9];
        let has = [true, false, true];
        let first = Image::read(&mut data, &formats, &has).unwrap();
        assert_eq!((first.get(0), first.get(1), first.get(2)), (Some(Some(&[7][..])), None, Some(None)));
        let second = Image::read(&mut data, &formats, &has).unwrap();
        assert_eq!((second.get(0), second.get(2)), (Some(None), Some(Some(&[9][..]))));
        assert!(data.is_empty() && Image::read(&mut data, &formats, &has).is_none());
    }
}
