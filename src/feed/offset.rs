//! Where a client is: the `offset` of a request. Text that clients keep and give back.

use std::fmt;

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offset {
    /// It has nothing.
    Start,
    /// It wants only what comes from now on.
    Now,
    /// It has what there was at this cut, as far as it has walked.
    At(i64, Walked),
}

/// How far through a table's rows, as they were at a cut, a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walked {
    /// It has them all, and knows which it has.
    Done,
    /// Up to this rowid.
    To(i64),
    /// To the last one. Those that were touched behind the cut it may have, or not.
    ToEnd,
}

/// Above all numbers that rowids become.
const END: u128 = 1 << 65;

impl Offset {
    /// As a client writes it: `-1`, `now`, or two numbers with a `_` between.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "-1" => return Some(Self::Start),
            "now" => return Some(Self::Now),
            _ => {}
        }
        let (cut, place) = text.split_once('_')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(cut) || !is_number(place) {
            return None;
        }
        let walked = match place.parse::<u128>().ok()? {
            0 => Walked::Done,
            END => Walked::ToEnd,
            place => Walked::To(i64::try_from(i128::try_from(place).ok()? - 1 + i128::from(i64::MIN)).ok()?),
        };
        Some(Self::At(cut.parse().ok()?, walked))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("-1"),
            Self::Now => f.write_str("now"),
            Self::At(cut, Walked::Done) => write!(f, "{cut}_0"),
            Self::At(cut, Walked::To(rowid)) => write!(f, "{cut}_{}", i128::from(*rowid) - i128::from(i64::MIN) + 1),
            Self::At(cut, Walked::ToEnd) => write!(f, "{cut}_{END}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_read_as_it_is_written() {
        let walked =
            [Walked::Done, Walked::ToEnd, Walked::To(0), Walked::To(i64::MIN), Walked::To(i64::MAX), Walked::To(-1)];
        let at = walked.into_iter().map(|walked| Offset::At(1_790_000_000_000 << 20, walked));
        for offset in [Offset::Start, Offset::Now].into_iter().chain(at) {
            assert_eq!(Offset::parse(&offset.to_string()), Some(offset), "{offset}");
        }
    }

    #[test]
    fn what_is_no_offset_is_none() {
        let huge = format!("1_{}", u128::MAX);
        for text in
            ["", "_", "1", "1_", "_1", "1_-1", "-1_0", "a_0", "1_0_0", "9223372036854775808_0", "+1_0", "1_+1", &huge]
        {
            assert_eq!(Offset::parse(text), None, "{text}");
        }
    }
}
