//! Which server it is, and where in its history: what a pull keeps of it between two views, as JSON. No IO.

use crate::mysql::binlog::Place;
use crate::provider::Follows;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a view stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// `@@server_uuid` of a MySQL, which no other server has; of a MariaDB `@@server_id`.
    pub server: String,
    /// The database.
    pub database: String,
    /// What was committed, by domain: MariaDB's `@@gtid_binlog_pos`, where it has a binlog.
    pub gtids: BTreeMap<u32, u64>,
    /// Whether it replays another server's log.
    pub is_replica: bool,
    /// When the server was started: seconds since 1970, by its own clock.
    #[serde(default)]
    pub started: i64,
    /// How far its binlog was then, where it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binlog: Option<Place>,
}

/// By so many seconds two readings of a start may differ.
const CLOCK: u64 = 2;

impl Position {
    /// The sequence numbers by domain of `0-1-27,1-3-5`.
    pub fn gtids(text: &str) -> BTreeMap<u32, u64> {
        let one = |gtid: &str| {
            let mut parts = gtid.trim().split('-');
            let (domain, _, number) = (parts.next()?, parts.next()?, parts.next()?);
            Some((domain.parse().ok()?, number.parse().ok()?))
        };
        text.split(',').filter_map(one).collect()
    }

    /// How it stands to an earlier one. On a replica less is only late; another server with less has lost some.
    pub fn follows(&self, before: &Self) -> Follows {
        if self.server != before.server || self.database != before.database {
            return Follows::Other("it is another server or database".into());
        }
        if self.started.abs_diff(before.started) > CLOCK {
            // It may have lost what it had committed last, and writers may have gone on since.
            return Follows::Other("it was started anew since, and may be older than it was".into());
        }
        if let (Some(before), Some(now)) = (&before.binlog, &self.binlog)
            && now < before
        {
            return Follows::Other("its binlog was begun anew".into());
        }
        let is_behind = |(domain, number): (&u32, &u64)| self.gtids.get(domain).is_none_or(|now| now < number);
        match before.gtids.iter().any(is_behind) {
            false => Follows::Same,
            true if self.is_replica && !self.gtids.is_empty() => Follows::Older,
            true => Follows::Other("it was put back to an older state, or its binlog was reset".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_went_back_is_another_and_a_replica_that_did_is_late() {
        let at = |server: &str, gtids: &str, is_replica| Position {
            server: server.into(),
            database: "d".into(),
            gtids: Position::gtids(gtids),
            is_replica,
            started: 1_000,
            binlog: None,
        };
        let before = at("1", "0-1-27,2-1-5", false);
        for (now, expected) in [
            (at("1", "0-1-27,2-1-5", false), Some(Follows::Same)),
            (at("1", "0-9-28,2-1-5,3-1-1", false), Some(Follows::Same)),
            (at("1", "0-1-26,2-1-5", true), Some(Follows::Older)),
            (at("1", "0-1-26,2-1-5", false), None),
            (at("1", "", true), None),
            (at("2", "0-1-99,2-1-99", true), None),
        ] {
            let found = now.follows(&before);
            match expected {
                Some(expected) => assert_eq!(found, expected, "{now:?}"),
                None => assert!(matches!(found, Follows::Other(_)), "{now:?}"),
            }
        }
        let late = Position { started: 1_003, ..before.clone() };
        assert!(matches!(late.follows(&before), Follows::Other(_)), "started anew");
        assert_eq!(Position { started: 998, ..before.clone() }.follows(&before), Follows::Same, "a clock that was set");
        let read = |at| Position { binlog: Some(Place { file: "b.000002".into(), at }), ..before.clone() };
        assert!(matches!(read(4).follows(&read(5)), Follows::Other(_)), "a log that was reset");
        assert_eq!((read(5).follows(&read(4)), read(5).follows(&before)), (Follows::Same, Follows::Same));
        assert_eq!(at("1", "", false).follows(&at("1", "", false)), Follows::Same, "without a binlog");
    }
}
