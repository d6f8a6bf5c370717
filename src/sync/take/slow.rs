//! Keys whose rows take too long to be read: each is waited for once, and becomes a dead letter in the step that is
//! acknowledged, be it a later one. Kept for the life of a worker. No IO.

use crate::core::message::MarkedKey;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most keys that are remembered.
const MOST_KEYS: usize = 10_000;

/// By table and key: whether it is among the dead letters of the step in hand.
#[derive(Debug, Default)]
pub(in crate::sync) struct SlowKeys(Mutex<BTreeMap<(String, MarkedKey), bool>>);

impl SlowKeys {
    /// The row of this key took too long.
    pub fn note(&self, table: &str, key: &MarkedKey) {
        let mut keys = self.keys();
        if keys.len() < MOST_KEYS {
            keys.insert((table.to_owned(), key.clone()), false);
        }
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.keys().is_empty()
    }

    /// Whether the row of this key is known to take too long; then the caller makes a dead letter of it.
    pub fn take(&self, table: &str, key: &MarkedKey) -> bool {
        let mut keys = self.keys();
        keys.get_mut(&(table.to_owned(), key.clone())).map(|is_buried| *is_buried = true).is_some()
    }

    /// The step is acknowledged: a key that is tried again is waited for again.
    pub fn end_step(&self) {
        self.keys().retain(|_, is_buried| !*is_buried);
    }

    fn keys(&self) -> MutexGuard<'_, BTreeMap<(String, MarkedKey), bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
