//! How many requests of one user are at work at once: nobody takes all connections.

use crate::core::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Requests of one user at once.
const MOST: usize = 3;

/// By their users, how many are at work.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<String, usize>>);

/// One of them, until it is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    subject: String,
}

impl Turns {
    pub fn take(&self, subject: &str) -> Result<Turn<'_>> {
        let mut turns = self.turns();
        let count = turns.entry(subject.to_owned()).or_default();
        if *count >= MOST {
            return Err(Error::retry("too many pushes of one user at once: send them one after the other"));
        }
        *count += 1;
        Ok(Turn { turns: self, subject: subject.to_owned() })
    }

    fn turns(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.turns.turns();
        if let Some(count) = turns.get_mut(&self.subject) {
            *count -= 1;
            if *count == 0 {
                turns.remove(&self.subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_a_few_turns_and_others_have_theirs() {
        let turns = Turns::default();
        let all: Vec<_> = (0..MOST).map(|_| turns.take("ann").unwrap()).collect();
        assert!(turns.take("ann").is_err() && turns.take("bob").is_ok());
        drop(all);
        assert!(turns.take("ann").is_ok() && turns.turns().is_empty());
    }
}
