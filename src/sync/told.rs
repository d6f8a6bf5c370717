//! What readers of the replica have been told by this process, and what its last step has seen. No IO.

use crate::core::event::Event;
use crate::core::token::Seen;
use crate::postgres::drift::Drift;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// What readers have been told.
#[derive(Debug, Default)]
pub(super) struct Told {
    told: Mutex<Last>,
    seen: watch::Sender<Option<Seen>>,
    /// Somebody waits for a later snapshot.
    is_asked: AtomicBool,
    /// Somebody ever did.
    was_asked: AtomicBool,
    /// For whoever sleeps.
    news: Notify,
    /// Drift that others were told of, by its lines.
    drift: Mutex<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Last {
    /// When they were last told anything.
    at: Option<Instant>,
    /// What the tables of which epoch were doing, as far as is known to have been told.
    states: Option<(String, Vec<(String, String)>)>,
}

impl Told {
    fn last(&self) -> MutexGuard<'_, Last> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of this drift others were not told of yet, in this process.
    pub fn new_drift(&self, drift: &[Drift]) -> Vec<Event> {
        let mut told = self.drift.lock().unwrap_or_else(PoisonError::into_inner);
        let now: BTreeSet<String> = drift.iter().map(Drift::line).collect();
        let new = drift.iter().filter(|one| one.kind.is_fault() && !told.contains(&one.line()));
        let events = new.map(|one| Event::drift(&one.table, &one.problem, &one.remedy)).collect();
        *told = now;
        events
    }

    /// A batch has said how fresh the replica is.
    pub fn tell(&self) {
        self.last().at = Some(Instant::now());
    }

    /// Whether nothing was said for so long.
    pub fn is_silent_for(&self, time: Duration) -> bool {
        self.last().at.is_none_or(|at| at.elapsed() >= time)
    }

    /// Whether this was said of the tables of an epoch.
    pub fn has_told(&self, epoch: &str, states: &[(String, String)]) -> bool {
        self.last().states.as_ref().is_some_and(|(told, known)| told == epoch && known == states)
    }

    /// This was said of the tables.
    pub fn note(&self, epoch: &str, states: Vec<(String, String)>) {
        let mut last = self.last();
        (last.at, last.states) = (Some(Instant::now()), Some((epoch.to_owned(), states)));
    }

    /// What was said is not known.
    pub fn forget(&self) {
        *self.last() = Last::default();
    }

    /// Whether it is worth finding out what the replica was before this process came: somebody waits.
    pub fn is_unknown(&self) -> bool {
        self.seen.borrow().is_none() && self.was_asked.load(Ordering::Relaxed)
    }

    /// Nobody looks any more: others may do what they like with the replica.
    pub fn end(&self) {
        self.seen.send_replace(None);
    }

    /// What the replica was is over: it was emptied, or is another one.
    pub fn unsee(&self) {
        self.seen.send_replace(None);
        self.forget();
    }

    /// The replica is what this snapshot sees.
    pub fn see(&self, seen: Option<Seen>) {
        self.seen.send_if_modified(|last| {
            let is_new = seen.is_some() && *last != seen;
            if is_new {
                *last = seen;
            }
            is_new
        });
    }

    /// Somebody waits for a later snapshot than the last.
    pub fn ask(&self) {
        self.is_asked.store(true, Ordering::Relaxed);
        self.was_asked.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// Whether somebody has.
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Relaxed)
    }

    /// Comes back when somebody asks.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Whether somebody has asked for one since this was last called.
    pub fn take_asked(&self) -> bool {
        self.is_asked.swap(false, Ordering::Relaxed)
    }

    /// What the replica was at the last snapshot that it equalled.
    pub fn seen(&self) -> watch::Receiver<Option<Seen>> {
        self.seen.subscribe()
    }
}
