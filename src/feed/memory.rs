//! How much memory answers may take that are made and not yet sent: anybody may ask for much and take it slowly.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All that answers may take.
#[derive(Debug, Clone)]
pub struct Memory {
    left: Arc<Semaphore>,
    most: usize,
}

/// Some of it, until it is dropped.
#[derive(Debug)]
pub struct Taken {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        let most = bytes.min(Semaphore::MAX_PERMITS);
        Self { left: Arc::new(Semaphore::new(most)), most }
    }

    /// How many bytes are taken, and how many there are.
    pub fn in_use(&self) -> (usize, usize) {
        (self.most.saturating_sub(self.left.available_permits()), self.most)
    }

    /// Takes so many bytes; `None` where there are not so many.
    pub fn take(&self, bytes: usize) -> Option<Taken> {
        if bytes == 0 {
            return Some(Taken { _permit: None });
        }
        let bytes = u32::try_from(bytes).ok()?;
        self.left.clone().try_acquire_many_owned(bytes).ok().map(|permit| Taken { _permit: Some(permit) })
    }

    /// Takes so many bytes when there are so many, or all.
    pub async fn wait(&self, bytes: usize) -> Taken {
        let bytes = u32::try_from(bytes.min(self.most)).unwrap_or(u32::MAX);
        Taken { _permit: self.left.clone().acquire_many_owned(bytes).await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_there_again_when_it_is_dropped() {
        let memory = Memory::new(10);
        let some = memory.take(8).unwrap();
        assert!(memory.take(3).is_none());
        assert!(memory.take(0).is_some());
        assert_eq!(memory.in_use(), (8, 10));
        drop(some);
        assert!(memory.take(10).is_some());
    }

    #[tokio::test]
    async fn whoever_wants_more_than_there_is_waits_for_all() {
        let memory = Memory::new(10);
        let all = memory.wait(11).await;
        assert!(memory.take(1).is_none());
        drop(all);
        assert!(memory.take(10).is_some());
    }
}
