//! Rows that made way for others, until they are written again.

use crate::core::batch::Item;
use crate::core::value::Key;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keys that made way, with the key of the row for which they did, until they are written again: of two rows that
/// have the same value in Postgres, only one may push the other out. Kept for the life of a worker.
#[derive(Debug, Default)]
pub(in crate::sync) struct Displaced(Mutex<BTreeMap<(String, Key), Key>>);

impl Displaced {
    /// Whether `key` made way for a row of `other`.
    pub(super) fn has(&self, table: &str, key: &Key, other: &Key) -> bool {
        self.lock().get(&(table.to_owned(), key.clone())) == Some(other)
    }

    /// Nothing is known of this key any more: it was written, or is a dead letter.
    pub fn forget(&self, item: &Item) {
        let mut displaced = self.lock();
        if !displaced.is_empty() {
            displaced.remove(&(item.table.name.clone(), item.key.clone()));
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, Key), Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
