//! How many requests of one user are at work at once, and how many wait for that: nobody takes all connections.

use crate::core::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests of one user at once.
const MOST: usize = 3;

/// Those that are at work, or wait for that.
const MOST_WAITING: usize = 32;

/// How long one waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// By their users, those who are at work or wait.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<String, User>>);

#[derive(Debug)]
struct User {
    turns: Arc<Semaphore>,
    count: usize,
}

/// One who is at work, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _place: Place<'a>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Place<'a> {
    turns: &'a Turns,
    subject: String,
}

impl Turns {
    /// Once fewer of this user are at work.
    pub async fn take(&self, subject: &str) -> Result<Turn<'_>> {
        let busy = || Error::retry("too many pushes of one user at once: send them one after the other");
        let turns = {
            let mut users = self.users();
            let new = || User { turns: Arc::new(Semaphore::new(MOST)), count: 0 };
            let user = users.entry(subject.to_owned()).or_insert_with(new);
            if user.count >= MOST_WAITING {
                return Err(busy());
            }
            user.count += 1;
            user.turns.clone()
        };
        let place = Place { turns: self, subject: subject.to_owned() };
        match tokio::time::timeout(PATIENCE, turns.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn { _place: place, _permit: permit }),
            _ => Err(busy()),
        }
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<String, User>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut users = self.turns.users();
        if let Some(user) = users.get_mut(&self.subject) {
            user.count -= 1;
            if user.count == 0 {
                users.remove(&self.subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn one_user_has_a_few_turns_and_others_have_theirs() {
        let turns = Turns::default();
        let mut all = Vec::new();
        for _ in 0..MOST {
            all.push(turns.take("ann").await.unwrap());
        }
        assert!(turns.take("ann").now_or_never().is_none() && turns.take("bob").await.is_ok());
        all.pop();
        assert!(turns.take("ann").await.is_ok());
        all.clear();
        assert!(turns.users().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn few_of_one_user_wait_and_none_for_ever() {
        let turns = Turns::default();
        let mut all = Vec::new();
        for _ in 0..MOST {
            all.push(turns.take("ann").await.unwrap());
        }
        let waiting = futures_util::future::join_all((0..MOST_WAITING).map(|_| turns.take("ann"))).await;
        assert!(waiting.iter().all(Result::is_err));
        assert_eq!(turns.users()["ann"].count, MOST);
    }
}
