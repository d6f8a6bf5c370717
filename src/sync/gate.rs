//! One drain at a time in this process, without a connection for those who are turned away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

/// The door to the drain.
#[derive(Debug, Default)]
pub(super) struct Gate {
    turn: Arc<Mutex<()>>,
    calls: AtomicU64,
    count: watch::Sender<Count>,
}

/// What is known of the queue's length.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// As a drain last counted it; `None` before the first has.
    queued: Option<i64>,
    /// Whether that was the running drain.
    is_fresh: bool,
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
            self.count.send_modify(|count| count.is_fresh = false);
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

    /// Messages on the queue, as a drain last counted them.
    pub fn last_count(&self) -> Option<i64> {
        self.count.borrow().queued
    }

    /// Messages on the queue, as the running drain knows, or the one before it where this one takes longer than
    /// `patience` to count them; `None` where nobody ever has.
    pub async fn counted(&self, patience: Duration) -> Option<i64> {
        let mut count = self.count.subscribe();
        let fresh = tokio::time::timeout(patience, count.wait_for(|count| count.is_fresh)).await;
        match fresh {
            Ok(Ok(fresh)) => fresh.queued,
            _ => self.count.borrow().queued,
        }
    }

    /// Remembers them.
    pub fn set_queued(&self, queued: i64) {
        self.count.send_replace(Count { queued: Some(queued), is_fresh: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_turned_away_learns_the_running_drains_count_or_the_last_one() {
        let gate = Gate::default();
        let turn = gate.enter();
        assert!(turn.is_some() && gate.enter().is_none());
        assert_eq!(gate.counted(Duration::from_millis(1)).await, None);
        let (counted, ()) = tokio::join!(gate.counted(Duration::from_secs(60)), async { gate.set_queued(7) });
        assert_eq!(counted, Some(7));
        drop(turn);
        let turn = gate.enter();
        assert_eq!(gate.counted(Duration::from_millis(1)).await, Some(7), "an older one");
        gate.set_queued(8);
        assert_eq!(gate.counted(Duration::from_millis(1)).await, Some(8));
        drop(turn);
    }
}
