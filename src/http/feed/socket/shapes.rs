//! The shapes of one connection. Each is followed by a task of its own, which has one answer at a time: it goes on when that
//! is written.

use crate::core::error;
use crate::feed::answer::Answer;
use crate::feed::figures::Outcome;
use crate::feed::follow::Follower;
use crate::feed::memory::Taken;
use crate::feed::offset::Offset;
use crate::http::feed::asking::ask;
use crate::http::feed::wanted::Wanted;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;

/// Shapes that are read from the replica at once for one connection.
const READING: usize = 2;

/// Who has heard nothing of a shape for so long is told how far it is.
const QUIET: Duration = Duration::from_secs(60);

/// All of a connection.
pub(super) struct Shapes {
    open: BTreeMap<String, Open>,
    tasks: JoinSet<Step>,
    reading: Arc<Semaphore>,
    numbers: u64,
}

/// One that is followed.
pub(super) struct Open {
    /// Tells it from others of its name.
    number: u64,
    /// As it was asked for, by whomever.
    asked: Wanted,
    /// The same, as far as whoever asks may read it.
    allowed: Wanted,
    task: AbortHandle,
    /// What was written last leads there.
    pub place: Option<(Offset, String)>,
    /// The types of its columns were told.
    pub has_schema: bool,
    /// It was told that there is nothing to tell now.
    pub is_waiting: bool,
    _memory: Taken,
}

/// One that is to be followed.
pub(super) struct Following {
    id: String,
    number: u64,
    wanted: Wanted,
    follower: Option<Follower>,
}

/// What has become of one.
pub(super) struct Step {
    pub following: Following,
    pub answer: error::Result<Answer>,
    /// Held until it is written.
    _reading: Option<OwnedSemaphorePermit>,
}

impl Following {
    /// What the client calls it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The client begins anew.
    pub fn begin(&mut self) {
        (self.wanted.offset, self.wanted.handle, self.follower) = (Offset::Start, None, None);
    }

    async fn next(mut self, after: Duration, reading: Arc<Semaphore>) -> Step {
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        if let Some(follower) = &mut self.follower {
            let answer = follower.next(Instant::now() + QUIET).await;
            self.wanted.count(Outcome::of(&answer));
            return Step { following: self, answer, _reading: None };
        }
        let reading = reading.acquire_owned().await.ok();
        let answer = ask(&self.wanted).await;
        self.wanted.count(Outcome::of(&answer));
        if let Ok(Answer::Messages(told) | Answer::Nothing(told)) = &answer {
            (self.wanted.offset, self.wanted.handle) = (told.offset, Some(told.handle.clone()));
            if told.is_up_to_date || matches!(answer, Ok(Answer::Nothing(_))) {
                self.follower = self.wanted.follower();
            }
        }
        Step { following: self, answer, _reading: reading }
    }
}

impl Open {
    /// Whether it is read with a token.
    pub fn needs_token(&self) -> bool {
        self.asked.needs_token()
    }
}

impl Shapes {
    pub fn new() -> Self {
        let (open, tasks) = (BTreeMap::new(), JoinSet::new());
        Self { open, tasks, reading: Arc::new(Semaphore::new(READING)), numbers: 0 }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// Whether there is one of this name.
    pub fn has(&self, id: &str) -> bool {
        self.open.contains_key(id)
    }

    /// The names of all.
    pub fn ids(&self) -> Vec<String> {
        self.open.keys().cloned().collect()
    }

    /// One of this name.
    pub fn get(&self, id: &str) -> Option<&Open> {
        self.open.get(id)
    }

    /// The one that a step is of, where it is still wanted.
    pub fn of(&mut self, following: &Following) -> Option<&mut Open> {
        self.open.get_mut(&following.id).filter(|open| open.number == following.number)
    }

    /// Follows one more: `asked` for, of which `allowed` may be read.
    pub fn add(&mut self, id: String, asked: Wanted, allowed: Wanted, memory: Taken) {
        let (number, task) = self.begin(&id, allowed.clone());
        let (place, has_schema, is_waiting) = (None, false, false);
        self.open.insert(id, Open { number, asked, allowed, task, place, has_schema, is_waiting, _memory: memory });
    }

    fn begin(&mut self, id: &str, wanted: Wanted) -> (u64, AbortHandle) {
        self.numbers += 1;
        let following = Following { id: id.to_owned(), number: self.numbers, wanted, follower: None };
        (self.numbers, self.tasks.spawn(following.next(Duration::ZERO, self.reading.clone())))
    }

    /// Goes on with one whose answer is written.
    pub fn go_on(&mut self, following: Following, after: Duration) {
        let id = following.id.clone();
        let number = following.number;
        let task = self.tasks.spawn(following.next(after, self.reading.clone()));
        match self.open.get_mut(&id).filter(|open| open.number == number) {
            Some(open) => open.task = task,
            None => task.abort(),
        }
    }

    /// Follows one no more.
    pub fn remove(&mut self, id: &str) {
        if let Some(open) = self.open.remove(id) {
            open.task.abort();
        }
    }

    /// Goes on with one as somebody else asks for it: where that may read other rows, what was told follows no more.
    pub fn change<E>(&mut self, id: &str, to: impl FnOnce(Wanted) -> Result<Wanted, E>) -> Result<(), E> {
        let Some(open) = self.open.get(id) else { return Ok(()) };
        let mut allowed = to(open.asked.clone())?;
        if allowed.is_same(&open.allowed) {
            return Ok(());
        }
        let known = open.place.clone().or_else(|| Some((open.asked.offset, open.asked.handle.clone()?)));
        (allowed.offset, allowed.handle) =
            known.map_or((Offset::Start, None), |(offset, handle)| (offset, Some(handle)));
        open.task.abort();
        let (number, task) = self.begin(id, allowed.clone());
        if let Some(open) = self.open.get_mut(id) {
            (open.number, open.task, open.allowed) = (number, task, allowed);
        }
        Ok(())
    }

    /// The next answer; `None` where there are no shapes.
    pub async fn next(&mut self) -> Option<Result<Step, JoinError>> {
        self.tasks.join_next().await
    }
}
