//! What has changed from one cut to the next, read once for all who wait. No IO.

use super::body::Piece;
use super::encode::{Messages, Types};
use super::grouped::Grouped;
use super::memory::{Memory, Taken};
use super::shape::Shape;
use crate::core::failpoint::FeedRule;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Changes of a table between two cuts.
#[derive(Debug)]
pub(super) struct Delta {
    /// Whoever was told of a cut before this position has the rows as they were before all of it.
    first: i64,
    /// The cut that they lead to.
    pub to: i64,
    changes: Grouped,
    /// About how much memory it takes.
    pub bytes: usize,
    types: Types,
    _memory: Taken,
    read_at: Instant,
    /// By the names of shapes, what it says to them.
    pieces: Mutex<Pieces>,
}

#[derive(Debug, Default)]
struct Pieces {
    by_name: BTreeMap<String, Arc<Said>>,
    /// Others have come since: what it says is not kept any more.
    is_old: bool,
}

/// What is said to a shape, once it is made.
type Said = Mutex<Option<Arc<Piece>>>;

impl Delta {
    /// What was read from its first position up to this cut.
    pub fn new((first, changes): (i64, Grouped), to: i64, types: Types, bytes: usize, memory: Taken) -> Self {
        Self { first, to, changes, bytes, types, _memory: memory, read_at: Instant::now(), pieces: Mutex::default() }
    }

    /// Whether it leads on one who was told of this cut.
    pub fn leads(&self, from: i64) -> bool {
        from < self.first || !FeedRule::Leads.holds()
    }

    /// How long ago it was read.
    pub fn age(&self) -> Duration {
        self.read_at.elapsed()
    }

    /// Its changes.
    pub fn changes(&self) -> &Grouped {
        &self.changes
    }

    /// What it says is made again when somebody asks.
    pub fn forget_pieces(&self) {
        let forgotten = std::mem::replace(&mut *self.pieces(), Pieces { is_old: true, ..Pieces::default() });
        drop(forgotten); // beside the lock
    }

    /// What it says to a shape of this name; `None` where there is no memory for that.
    pub fn piece(&self, shape: &Shape, name: &str, memory: &Memory) -> Option<Arc<Piece>> {
        let said = self.said(name);
        // Whoever else has the same shape waits for it here, and nobody who has another.
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(piece) = &*said {
            return Some(piece.clone());
        }
        let messages = Messages::of(shape, &self.types, self.to, self.changes.near(shape), false);
        let piece = Piece::of(messages, memory).map(Arc::new);
        match piece.as_ref().filter(|piece| !piece.is_empty()) {
            Some(piece) => *said = Some(piece.clone()),
            None => drop(self.pieces().by_name.remove(name)),
        }
        piece
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self, name: &str) -> Arc<Said> {
        let mut pieces = self.pieces();
        if let Some(said) = pieces.by_name.get(name) {
            return said.clone();
        }
        let said = Arc::<Said>::default();
        if !pieces.is_old {
            pieces.by_name.insert(name.to_owned(), said.clone());
        }
        said
    }
}
