//! A place in a binlog. No IO.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Between two events: how many bytes of which file lie before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub file: String,
    pub at: u64,
}

impl Place {
    /// Its log, and which file of it: `binlog.000012`.
    fn file(&self) -> (&str, u64) {
        let (log, number) = self.file.rsplit_once('.').unwrap_or((&self.file, ""));
        (log, number.parse().unwrap_or(0))
    }

    /// Whether both are of one log, as far as its name tells.
    pub fn is_of_log(&self, other: &Self) -> bool {
        self.file().0 == other.file().0
    }

    /// Where an event ends that says so in 32 bits.
    pub fn advance(&mut self, end: u32) {
        const WRAP: u64 = 1 << 32;
        let end = self.at / WRAP * WRAP + u64::from(end);
        match self.at.checked_sub(end) {
            None | Some(0) => self.at = end,
            Some(back) if back > WRAP / 2 => self.at = end + WRAP,
            Some(_) => {} // one that was read before
        }
    }

    /// Whether a server can be asked to begin there.
    pub fn can_begin(&self) -> bool {
        u32::try_from(self.at).is_ok()
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.file().1, self.at, &self.file).cmp(&(other.file().1, other.at, &other.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(file: &str, at: u64) -> Place {
        Place { file: file.into(), at }
    }

    #[test]
    fn files_follow_one_another_by_their_numbers() {
        assert!(at("b.999999", 9) < at("b.1000000", 4));
        assert!(at("b.000002", 4) < at("b.000002", 5));
        assert!(at("b.1", 4).is_of_log(&at("b.2", 4)) && !at("b.1", 4).is_of_log(&at("c.1", 4)));
    }

    #[test]
    fn a_file_may_be_longer_than_its_positions_tell() {
        let mut place = at("b.1", 4);
        place.advance(u32::MAX);
        assert!(place.can_begin());
        place.advance(100);
        assert_eq!(place.at, (1 << 32) + 100);
        place.advance(90);
        assert_eq!(place.at, (1 << 32) + 100);
        assert!(!place.can_begin());
    }
}
