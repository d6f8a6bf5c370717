//! Read-your-own-write: what a writer asks for, and what a snapshot of Postgres has seen. No IO.
//!
//! A token is the writer's own transaction id (`pgflume.token()`, or `pg_current_xact_id()`, both called in the writing
//! transaction), or a snapshot that was taken after its commit (`pg_current_snapshot()`), both as Postgres prints them
//! (xid8: they do not wrap around).

use std::collections::BTreeSet;

/// Running transactions that are remembered one by one: of a snapshot with more, less is claimed.
const MOST_RUNNING: usize = 1_000;

/// A snapshot of Postgres.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// All transactions before this one had ended.
    pub xmin: i64,
    /// This one and all later ones had not.
    pub xmax: i64,
    /// Those in between that had not.
    pub running: BTreeSet<i64>,
}

impl Seen {
    /// From what `pg_current_snapshot()` prints: `10:20:10,14,15`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax, running) = (number(parts.next()?)?, number(parts.next()?)?, parts.next()?);
        let listed: Option<BTreeSet<i64>> = running.split(',').filter(|id| !id.is_empty()).map(number).collect();
        (parts.next().is_none() && xmin <= xmax).then_some(Self { xmin, xmax, running: listed? })
    }

    /// The same, with no more running transactions than a replica has room for.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        if let Some(first) = self.running.iter().nth(MOST_RUNNING).copied() {
            self.xmax = first;
            self.running.retain(|id| *id < first);
        }
        self
    }

    /// What a standby's snapshot tells: it does not list what runs on its primary.
    #[must_use]
    pub fn of_standby(mut self) -> Self {
        (self.xmax, self.running) = (self.xmin, BTreeSet::new());
        self
    }

    /// Whether it was taken after a transaction had ended.
    pub fn sees(&self, xid: i64) -> bool {
        xid < self.xmin || xid < self.xmax && !self.running.contains(&xid)
    }

    /// Whether it sees all that another sees, which may claim less than it saw.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.running.len() < MOST_RUNNING && self.holds(&Token::Snapshot(other.clone()))
    }

    /// Whether it was taken when all that `token` names had ended.
    pub fn holds(&self, token: &Token) -> bool {
        match token {
            Token::Transaction(xid) => self.sees(*xid),
            Token::Snapshot(other) => {
                let is_unseen = |xid: &i64| *xid < other.xmax && !other.running.contains(xid);
                self.xmax >= other.xmax && !self.running.iter().any(is_unseen)
            }
        }
    }
}

/// What a reader waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A transaction.
    Transaction(i64),
    /// All that a snapshot sees.
    Snapshot(Seen),
}

impl Token {
    /// From what Postgres prints; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        match text.contains(':') {
            true => Seen::parse(text).map(Self::Snapshot),
            false => number(text).map(Self::Transaction),
        }
    }
}

/// A transaction's id. Digits only: `parse` would take a sign.
fn number(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Seen {
        Seen::parse(text).unwrap()
    }

    #[test]
    fn a_snapshot_sees_what_had_ended_when_it_was_taken() {
        let now = seen("10:20:10,14");
        let unseen: Vec<i64> = (5..25).filter(|xid| !now.sees(*xid)).collect();
        assert_eq!(unseen, [10, 14, 20, 21, 22, 23, 24]);
        assert!(!now.holds(&Token::parse("14").unwrap()) && now.holds(&Token::parse("15").unwrap()));
        assert_eq!(seen("10:20:10,14").of_standby(), seen("10:10:"));
    }

    #[test]
    fn a_snapshot_holds_another_if_it_sees_all_that_the_other_sees() {
        for (now, token, holds) in [
            ("10:20:10,14", "10:20:10,14", true),
            ("10:20:10,14", "10:20:10", false),
            ("10:20:10", "10:20:10,14", true),
            ("10:20:10", "10:21:10", false),
            ("30:30:", "10:21:", true),
            ("12:30:12,25", "10:21:10,12", true),
        ] {
            assert_eq!(seen(now).holds(&Token::parse(token).unwrap()), holds, "{now} {token}");
        }
    }

    #[test]
    fn of_very_many_running_transactions_less_is_claimed_and_never_more() {
        let many: Vec<String> = (0..1_500).map(|n| (100 + 2 * n).to_string()).collect();
        let whole = seen(&format!("100:5000:{}", many.join(",")));
        let bounded = whole.clone().bounded();
        assert!(bounded.running.len() <= MOST_RUNNING);
        assert!((0..6000).all(|xid| whole.sees(xid) || !bounded.sees(xid)));
        assert!(bounded.sees(101) && !bounded.sees(4999));
        assert!(seen("9000:9000:").holds(&Token::Snapshot(bounded.clone())));
        assert!(!seen("9000:9000:").covers(&bounded), "it may have seen more");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "x", "-1", "+1", "1:2", "1:2:x", "5:4:", "1:2:3:4", "99999999999999999999", " 1"] {
            assert_eq!(Token::parse(text), None, "{text:?}");
        }
    }
}
