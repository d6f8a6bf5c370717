//! What operators see of feeding clients: how the log stands, by the replica, and what this process has counted.

use super::kept::KeptBy;
use crate::feed::board::Board;
use crate::feed::figures::Figures;
use crate::feed::herald::Herald;
use crate::feed::memory::Memory;
use crate::operate::feed::FeedState;
use crate::push::Pushes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What feeds clients in this process.
pub struct Feeding {
    /// By the names of their syncs; that of the variables' queue is empty.
    pub heralds: Vec<(String, Arc<Herald>)>,
    /// What those were answered who asked for no table that there is.
    pub unknown: Arc<Figures>,
    /// What answers on their way may take, and take, changes that are kept for the late, and the values by which those who wait
    /// are found.
    pub memory: [Memory; 3],
}

impl Feeding {
    /// What is known of the tables of a sync.
    pub fn boards(&self, sync: &str) -> impl Iterator<Item = &Arc<Board>> {
        self.heralds.iter().filter(move |(name, _)| name == sync).flat_map(|(_, herald)| herald.boards())
    }
}

/// What is fed, and who writes, once that is known; and what the replicas said last.
#[derive(Default)]
pub(super) struct Seen {
    pub feeding: OnceLock<Feeding>,
    pub pushes: OnceLock<Arc<Pushes>>,
    pub asked: KeptBy<Option<FeedState>>,
    last: Mutex<BTreeMap<String, FeedState>>,
}

impl Seen {
    /// What a replica says, or said last.
    pub fn last_state(&self, sync: &str, said: Option<FeedState>) -> Option<FeedState> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(said) = said {
            last.insert(sync.to_owned(), said);
        }
        last.get(sync).cloned()
    }
}
