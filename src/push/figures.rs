//! What became of clients' writes since the process began. No IO.

use super::answer::{Answer, Status};
use super::failure::Failure;
use std::sync::atomic::{AtomicU64, Ordering};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was answered, whatever became of its changes.
    Done,
    /// It had been answered before, and was so again.
    Duplicate,
    /// Nothing is known to be done: it is to be sent again, 503.
    Again,
    /// Its token may not write: 401, 403.
    Forbidden,
    /// Its key stands for another one: 409.
    KeyTaken,
    /// It is wrong: 400, 413, 415.
    Invalid,
}

impl Taken {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Done, Self::Duplicate, Self::Again, Self::Forbidden, Self::KeyTaken, Self::Invalid];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Duplicate => "duplicate",
            Self::Again => "again",
            Self::Forbidden => "forbidden",
            Self::KeyTaken => "key_taken",
            Self::Invalid => "invalid",
        }
    }
}

/// How often each, of requests and of their changes.
#[derive(Debug, Default)]
pub struct Figures {
    requests: [AtomicU64; Taken::ALL.len()],
    changes: [AtomicU64; Status::ALL.len()],
}

impl Figures {
    /// One more request.
    pub fn count(&self, taken: Taken) {
        self.requests[taken as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One more that came as far as Postgres.
    pub fn ran(&self, done: &Result<Answer, Failure>) {
        self.count(match done {
            Ok(answer) if answer.duplicate => Taken::Duplicate,
            Ok(_) => Taken::Done,
            Err(Failure::Again(_)) => Taken::Again,
            Err(Failure::Forbidden(_)) => Taken::Forbidden,
            Err(Failure::KeyTaken) => Taken::KeyTaken,
        });
        // Of one that is answered again nothing is done again.
        let results = done.iter().filter(|answer| !answer.duplicate).flat_map(|answer| &answer.results);
        for result in results {
            self.changes[result.status as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests so far.
    pub fn requests(&self, taken: Taken) -> u64 {
        self.requests[taken as usize].load(Ordering::Relaxed)
    }

    /// Their changes so far.
    pub fn changes(&self, status: Status) -> u64 {
        self.changes[status as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::Outcome;

    #[test]
    fn changes_of_a_request_that_is_answered_again_are_counted_once() {
        let figures = Figures::default();
        let results = vec![Outcome::rejected("23505"), Outcome::skipped()];
        let answer = Answer { txid: None, pos: None, results, duplicate: false };
        figures.ran(&Ok(answer.clone()));
        figures.ran(&Ok(Answer { duplicate: true, ..answer }));
        figures.ran(&Err(Failure::KeyTaken));
        let requests = Taken::ALL.map(|taken| figures.requests(taken));
        let changes = Status::ALL.map(|status| figures.changes(status));
        assert_eq!((requests, changes), ([1, 1, 0, 0, 1, 0], [0, 0, 1, 1]));
    }
}
