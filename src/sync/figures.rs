//! What a worker has measured since it was made, for metrics and the dashboard: by table where that is asked for. No IO.

use crate::core::batch::{Item, RowState};
use crate::core::distribution::Distribution;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Counts {
    /// From when a change was put on the queue (the begin of its transaction) until it was readable in the replica.
    pub commit_to_applied: Distribution,
    /// Steps that were acknowledged.
    pub step: Distribution,
    /// Taking messages off the queue.
    pub take: Distribution,
    /// Reading the rows that messages mark.
    pub read: Distribution,
    /// Transactions on the replica.
    pub apply: Distribution,
    /// Each table.
    pub tables: BTreeMap<String, TableCounts>,
    /// Drains that failed and were tried again at once.
    pub retries: u64,
    /// How often following broke off.
    pub follow_failures: u64,
    /// Ends of steps that clients were told of though more was left.
    pub impatient_cuts: u64,
    /// Seconds since the Epoch when a drain last ended well.
    pub succeeded_at: Option<f64>,
}

/// What was done to a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TableCounts {
    /// Rows written.
    pub upserts: u64,
    /// Rows deleted.
    pub deletes: u64,
    /// Bytes of what was written.
    pub bytes: u64,
    /// Keys that became dead letters.
    pub dead: u64,
}

/// The place where they are counted.
#[derive(Debug, Default)]
pub(super) struct Figures(Mutex<Counts>);

impl Figures {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was measured so far.
    pub fn now(&self) -> Counts {
        self.counts().clone()
    }

    /// A duration of one kind.
    pub fn took(&self, of: fn(&mut Counts) -> &mut Distribution, time: Duration) {
        of(&mut self.counts()).observe(time.as_secs_f64());
    }

    /// Changes have arrived so many seconds after they were put on the queue.
    pub fn arrived(&self, seconds: impl Iterator<Item = f64>) {
        let mut counts = self.counts();
        seconds.for_each(|seconds| counts.commit_to_applied.observe(seconds));
    }

    /// These were written.
    pub fn wrote(&self, items: &[Item]) {
        let mut counts = self.counts();
        for of_table in items.chunk_by(|a, b| a.table.name == b.table.name) {
            let gone = of_table.iter().filter(|item| item.state == RowState::Gone).count() as u64;
            let name = &of_table[0].table.name;
            if !counts.tables.contains_key(name) {
                counts.tables.insert(name.clone(), TableCounts::default());
            }
            if let Some(table) = counts.tables.get_mut(name) {
                table.deletes += gone;
                table.upserts += of_table.len() as u64 - gone;
                table.bytes += of_table.iter().map(|item| item.bytes() as u64).sum::<u64>();
            }
        }
    }

    /// A key or message of a table became a dead letter.
    pub fn buried(&self, table: Option<&str>) {
        self.counts().tables.entry(table.unwrap_or_default().to_owned()).or_default().dead += 1;
    }

    /// A drain failed and is tried again at once.
    pub fn retried(&self) {
        self.counts().retries += 1;
    }

    /// Following broke off.
    pub fn follow_failed(&self) {
        self.counts().follow_failures += 1;
    }

    /// Clients were told of what is no moment of the source.
    pub fn cut_impatiently(&self) {
        self.counts().impatient_cuts += 1;
    }

    /// A drain ended well.
    pub fn succeeded(&self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.counts().succeeded_at = now.ok().map(|now| now.as_secs_f64());
    }
}
