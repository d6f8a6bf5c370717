//! One drain at a time in this process, without a connection for those who are turned away.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// In place of a count.
const UNKNOWN: i64 = -1;

/// The door to the drain.
#[derive(Debug, Default)]
pub(super) struct Gate {
    turn: Arc<Mutex<()>>,
    calls: AtomicU64,
    queued: AtomicI64,
}

impl Gate {
    /// Enters, or leaves a note. The running drain compares the notes after it has given up its turn, so
    /// either it sees this one, or the second try gets in.
    pub fn enter(&self) -> Option<OwnedMutexGuard<()>> {
        let turn = self.try_enter().or_else(|| {
            self.calls.fetch_add(1, Ordering::SeqCst);
            self.try_enter()
        });
        if turn.is_some() {
            self.queued.store(UNKNOWN, Ordering::Relaxed);
        }
        turn
    }

    /// Enters without a note.
    pub fn try_enter(&self) -> Option<OwnedMutexGuard<()>> {
        self.turn.clone().try_lock_owned().ok()
    }

    /// Waits until no drain runs.
    pub async fn idle(&self) {
        drop(self.turn.lock().await);
    }

    /// Notes left so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Messages on the queue, as the running drain last knew; `None` before it has counted.
    pub fn queued(&self) -> Option<i64> {
        Some(self.queued.load(Ordering::Relaxed)).filter(|queued| *queued != UNKNOWN)
    }

    /// Remembers them.
    pub fn set_queued(&self, queued: i64) {
        self.queued.store(queued, Ordering::Relaxed);
    }
}
