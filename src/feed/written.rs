//! Transactions that clients have written at the source: whoever waits with a token of the same subject hears, once, when what
//! it is told of sees them. No IO.

use crate::core::token::Seen;
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Most that are remembered.
const MOST: usize = 2_000;

/// How long: clients wait for less.
const KEPT: Duration = Duration::from_secs(60);

/// What was written, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Written(VecDeque<One>);

#[derive(Debug)]
struct One {
    subject: String,
    xid: i64,
    at: Instant,
    /// The shapes whose clients were told.
    told: BTreeSet<String>,
}

impl Written {
    pub fn add(&mut self, subject: &str, xid: i64) {
        while self.0.len() >= MOST || self.0.front().is_some_and(|one| one.at.elapsed() > KEPT) {
            self.0.pop_front();
        }
        // Tried again, it is told again.
        self.0.retain(|one| one.xid != xid);
        self.0.push_back(One { subject: subject.to_owned(), xid, at: Instant::now(), told: BTreeSet::new() });
    }

    /// Whose transactions are there by now.
    pub fn arrived(&self, seen: Option<&Seen>) -> BTreeSet<String> {
        let is_there = |one: &&One| one.at.elapsed() < KEPT && seen.is_some_and(|seen| seen.sees(one.xid));
        self.0.iter().filter(is_there).map(|one| one.subject.clone()).collect()
    }

    /// Whether one with a shape of this name is told of any for the first time by this snapshot.
    pub fn is_news(&mut self, subject: &str, shape: &str, snapshot: &Seen) -> bool {
        let mut is_news = false;
        for one in self.0.iter_mut().filter(|one| one.subject == subject && snapshot.sees(one.xid)) {
            is_news |= one.told.insert(shape.to_owned());
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_of_a_writer_is_told_once_by_a_snapshot_that_sees_it() {
        let seen = |text: &str| Seen::parse(text).unwrap();
        let mut written = Written::default();
        written.add("ann", 12);
        assert!(written.arrived(Some(&seen("10:20:12"))).is_empty() && written.arrived(None).is_empty());
        assert!(!written.is_news("ann", "a", &seen("10:20:12")));
        assert_eq!(written.arrived(Some(&seen("13:20:"))), ["ann".to_owned()].into());
        assert!(!written.is_news("bob", "a", &seen("13:20:")));
        assert!(written.is_news("ann", "a", &seen("13:20:")) && !written.is_news("ann", "a", &seen("13:20:")));
        assert!(written.is_news("ann", "b", &seen("13:20:")), "another shape");
        written.add("ann", 12);
        assert!(written.is_news("ann", "a", &seen("13:20:")), "sent again");
    }
}
