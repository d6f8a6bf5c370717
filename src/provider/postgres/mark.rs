//! What a pull keeps of Postgres between two views: marks, places and positions, as JSON. No IO.

use crate::core::failpoint::PullRule;
use crate::postgres::rows::versions::Leaves;
use crate::provider::Follows;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All that was committed is before it: versions that a later view sees and this one did not were written by
/// transactions that are not older than `xid`, or came along with a leaf that is not among these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The oldest transaction that was open, a full transaction id.
    pub xid: u64,
    /// The relations that had the table's rows, and their files.
    pub leaves: BTreeMap<u32, u32>,
}

/// A mark whose transaction is so many older is renewed though nothing has changed: ids of 32 bits wrap around.
const FAR: u64 = 1 << 24;

impl Mark {
    /// Of a view.
    pub fn of(xid: u64, leaves: &Leaves) -> Self {
        Self { xid, leaves: leaves.files.clone() }
    }

    /// As it was kept; what cannot be read is none.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The leaves that it does not know.
    pub fn new_leaves(&self, leaves: &Leaves) -> Vec<u32> {
        if !PullRule::NewLeaves.holds() {
            return Vec::new();
        }
        leaves.files.keys().filter(|leaf| !self.leaves.contains_key(leaf)).copied().collect()
    }

    /// Whether it is time to keep `now` in its place.
    pub fn is_far_from(&self, now: &Self) -> bool {
        now.xid.saturating_sub(self.xid) >= FAR || !self.leaves.keys().eq(now.leaves.keys())
    }
}

/// How far a pass over several views is. It may go on only where no row has moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The block that is next, of each leaf.
    pub block: u32,
    /// The leaves and their files.
    pub leaves: BTreeMap<u32, u32>,
}

/// Which Postgres it is, and where in its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Its system identifier.
    pub system: String,
    /// The database's OID.
    pub database: String,
    /// Its timeline: a promotion or a restore begins another.
    pub timeline: String,
    /// WAL up to the view.
    pub lsn: u64,
    /// Whether it is a standby.
    pub is_standby: bool,
}

impl Position {
    /// How it stands to an earlier one. On a standby less WAL is only late; a primary with less has lost some.
    pub fn follows(&self, before: &Self) -> Follows {
        let is_other = |why: &str| Follows::Other(why.to_owned());
        if self.system != before.system || self.database != before.database {
            is_other("it is another database")
        } else if self.timeline != before.timeline {
            is_other("it was promoted or restored")
        } else if self.lsn >= before.lsn {
            Follows::Same
        } else if self.is_standby {
            Follows::Older
        } else {
            is_other("it was put back to an older state")
        }
    }
}

/// JSON of what always can be written.
pub(super) fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_standby_may_be_late() {
        let position = |system: &str, database: &str, timeline: &str, lsn, is_standby| Position {
            system: system.into(),
            database: database.into(),
            timeline: timeline.into(),
            lsn,
            is_standby,
        };
        let before = position("1", "5", "1", 100, false);
        for (now, expected) in [
            (position("1", "5", "1", 100, false), Some(Follows::Same)),
            (position("1", "5", "1", 101, true), Some(Follows::Same)),
            (position("1", "5", "1", 99, true), Some(Follows::Older)),
            (position("1", "5", "1", 99, false), None),
            (position("1", "5", "2", 200, false), None),
            (position("1", "6", "1", 200, false), None),
            (position("2", "5", "1", 200, true), None),
        ] {
            let follows = now.follows(&before);
            match expected {
                Some(expected) => assert_eq!(follows, expected, "{now:?}"),
                None => assert!(matches!(follows, Follows::Other(_)), "{now:?}"),
            }
        }
    }

    #[test]
    fn a_mark_is_renewed_before_ids_wrap_around_and_where_leaves_came_or_went() {
        let mark = |xid, leaves: &[u32]| Mark { xid, leaves: leaves.iter().map(|leaf| (*leaf, 7)).collect() };
        let old = mark(5, &[1, 2]);
        assert!(!old.is_far_from(&mark(4 + FAR, &[1, 2])) && old.is_far_from(&mark(5 + FAR, &[1, 2])));
        assert!(old.is_far_from(&mark(5, &[1])) && old.is_far_from(&mark(5, &[1, 2, 3])));
        assert_eq!(Mark::read(&text(&old)), Some(old));
        assert_eq!(Mark::read("{}"), None);
    }
}
