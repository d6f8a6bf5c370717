//! The dead letters that one half of a step makes, and those that newer states of their keys supersede. No IO.

use crate::core::batch::Item;
use crate::core::message::MarkedKey;
use crate::postgres::books::dead_letters::{DeadLetter, Supersedable, Superseded};

/// Those of one half of a step.
pub(super) struct DeadLetters {
    /// Those that wait on their queue, of which newer states may come.
    waiting: Supersedable,
    /// The same of this step's.
    own: Supersedable,
    made: Vec<DeadLetter>,
}

impl DeadLetters {
    /// None so far; `waiting` are on their queue.
    pub fn new(waiting: Supersedable) -> Self {
        Self { waiting, own: Supersedable::default(), made: Vec::new() }
    }

    /// Adds one of a row as it is at the snapshot: nothing of this step is newer.
    pub fn add(&mut self, letter: DeadLetter) {
        self.made.push(letter);
    }

    /// Adds one that a later message of this step may supersede.
    pub fn add_supersedable(&mut self, letter: DeadLetter) {
        self.own.watch(self.made.len(), &letter);
        self.made.push(letter);
    }

    /// Whether one of this message was made.
    pub fn has_message(&self, msg_id: i64) -> bool {
        self.made.iter().any(|letter| letter.msg_id == Some(msg_id))
    }

    /// How many were made.
    pub fn count(&self) -> usize {
        self.made.len()
    }

    /// Forgets those behind the first `count`, which [`add`](Self::add) has added.
    pub fn truncate(&mut self, count: usize) {
        self.made.truncate(count);
    }

    /// There is a newer state of these keys: of the message `newer`, or, without, the rows as they are.
    pub fn cover(&mut self, table: &str, keys: &[MarkedKey], newer: Option<i64>) {
        for known in [&mut self.waiting, &mut self.own].into_iter().filter(|known| !known.is_empty()) {
            keys.iter().for_each(|key| known.cover(table, key, newer));
        }
    }

    /// The same of a row on its way to the replica, for those that wait.
    pub fn cover_waiting(&mut self, items: &[Item]) {
        if !self.waiting.is_empty() {
            items.iter().for_each(|item| self.waiting.cover_item(item));
        }
    }

    /// The same for this step's.
    pub fn cover_own(&mut self, items: &[Item]) {
        if !self.own.is_empty() {
            items.iter().for_each(|item| self.own.cover_item(item));
        }
    }

    /// Those that were made and have no newer state, and what became of those that waited. Begins anew.
    pub fn take(&mut self) -> (Vec<DeadLetter>, Superseded) {
        let Self { waiting, own, made } = std::mem::replace(self, Self::new(self.waiting.uncovered()));
        (own.without_superseded(made), waiting.superseded())
    }
}
