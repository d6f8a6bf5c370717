//! What clients of a table were answered since the process began. No IO.

use super::answer::Answer;
use crate::core::error::Result;
use std::sync::atomic::{AtomicU64, Ordering};

/// What became of a request, or what one who follows was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Rows, or what became of them.
    Messages,
    /// That nothing has changed.
    Nothing,
    /// To begin anew: 409.
    Refetch,
    /// To ask again, because the table is not whole, or between two cuts: 503.
    Unready,
    /// To ask again, because too much is asked for at once: 503.
    Busy,
    /// To ask again, because the replica cannot be read: 503.
    Unreadable,
    /// That the request is wrong: 400.
    Refused,
    /// That its token is not taken, or may not read that: 401, 403.
    Unauthorized,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Messages,
        Self::Nothing,
        Self::Refetch,
        Self::Unready,
        Self::Busy,
        Self::Unreadable,
        Self::Refused,
        Self::Unauthorized,
    ];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Nothing => "nothing",
            Self::Refetch => "refetch",
            Self::Unready => "unready",
            Self::Busy => "busy",
            Self::Unreadable => "unreadable",
            Self::Refused => "refused",
            Self::Unauthorized => "unauthorized",
        }
    }

    /// Of an answer.
    pub fn of(answer: &Result<Answer>) -> Self {
        match answer {
            Ok(Answer::Messages(_)) => Self::Messages,
            Ok(Answer::Nothing(_)) => Self::Nothing,
            Ok(Answer::Refetch { .. }) => Self::Refetch,
            Ok(Answer::Unready) => Self::Unready,
            Ok(Answer::Busy) => Self::Busy,
            Err(_) => Self::Unreadable,
        }
    }
}

/// How often each.
#[derive(Debug, Default)]
pub struct Figures([AtomicU64; Outcome::ALL.len()]);

impl Figures {
    /// One more.
    pub fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often so far.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_outcome_has_a_place_and_a_name_of_its_own() {
        let figures = Figures::default();
        Outcome::ALL.into_iter().for_each(|outcome| figures.count(outcome));
        assert!(Outcome::ALL.into_iter().all(|outcome| figures.of(outcome) == 1));
        let names: BTreeSet<&str> = Outcome::ALL.into_iter().map(Outcome::name).collect();
        assert_eq!(names.len(), Outcome::ALL.len());
    }
}
