//! Who waits for the replica, and what replicas were last seen to hold.

use super::kept::{Kept, KeptBy};
use crate::core::token::Seen;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Who waits at once.
const MOST_WAITERS: usize = 100;

/// All who wait.
pub(super) struct Waiters {
    places: Semaphore,
    looked: KeptBy<Option<Seen>>,
}

impl Default for Waiters {
    fn default() -> Self {
        Self { places: Semaphore::new(MOST_WAITERS), looked: KeptBy::default() }
    }
}

impl Waiters {
    /// A place to wait at; `None` where all are taken.
    pub(super) fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.try_acquire().ok()
    }

    /// What the replica of a sync was last seen to hold, which is good for `age`.
    pub(super) fn looked(&self, sync: &str, age: Duration) -> Arc<Kept<Option<Seen>>> {
        self.looked.of(sync, age)
    }
}
