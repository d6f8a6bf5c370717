//! Writes batches of a pull, each from the position that the one before left. A row that the replica rejects is found by
//! halving and becomes a dead letter.

use super::outbox;
use super::passed::Passed;
use super::settings::Pull;
use crate::core::batch::{Item, RowState};
use crate::core::chance::Chance;
use crate::core::error::{Error, ErrorKind, Result, Side};
use crate::core::event::Event;
use crate::core::failpoint::{self, PullRule};
use crate::core::halving::Search;
use crate::core::keys::texts_of;
use crate::core::message::MarkedKey;
use crate::core::schema::Table;
use crate::replica::head::At;
use crate::replica::jobs::Leased;
use crate::replica::pulls::{Letter, Looked, Progress, Pull as Standing, PulledTable};
use crate::replica::{Replica, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Notify;

/// Rejected rows of a table after which it is the table.
const MOST_LETTERS: usize = 1_000;

/// What is written in one transaction.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Rows, sorted by table and key.
    pub items: Vec<Item>,
    /// Tables that become empty.
    pub emptied: Vec<Arc<Table>>,
    /// How far the tables are with it.
    pub progress: Progress,
    /// Where tables are if only a part of it can be written.
    pub doubts: BTreeMap<String, PulledTable>,
}

impl Written {
    /// Whether it says nothing but how far the tables are.
    pub fn is_nothing(&self) -> bool {
        let Progress { letters, covered, .. } = &self.progress;
        self.items.is_empty() && self.emptied.is_empty() && letters.is_empty() && covered.is_empty()
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it is there.
    Written,
    /// The replica rejected some of the rows, which are dead letters now. The others are there, and the progress is not.
    Rejected,
}

/// One sync's place in its replica.
pub(super) struct Writer {
    pub replica: Replica,
    name: String,
    /// Where it is, as far as this process knows.
    pub standing: Standing,
    chance: Chance,
    /// Whether a batch was found again after it was said to be committed.
    has_checked: bool,
    /// Rows that the replica has refused in this pass: they are not tried again in it.
    refused: BTreeSet<(String, MarkedKey)>,
    /// The job that all of it is for.
    pub job: Option<Leased>,
    /// What was looked at last.
    pub looked: Looked,
    pub done: Passed,
    /// Told when there are new events; `None`: nobody is to be told of any.
    news: Option<Arc<Notify>>,
}

impl Writer {
    /// At this place.
    pub fn new(replica: Replica, pull: &Pull, standing: Standing) -> Self {
        Self {
            replica,
            name: pull.name.clone(),
            standing,
            chance: pull.chance.clone(),
            news: pull.news.clone(),
            has_checked: false,
            refused: BTreeSet::new(),
            job: None,
            looked: Looked::default(),
            done: Passed::default(),
        }
    }

    /// What it has done; rows that were refused are tried again.
    pub fn take_done(&mut self) -> Passed {
        self.refused.clear();
        std::mem::take(&mut self.done)
    }

    /// Where the replica has to be.
    pub fn at(&self) -> At<'_> {
        At::Pull(&self.name, &self.standing.head)
    }

    /// Whether the replica has refused this row in this pass.
    pub fn has_refused(&self, item: &Item) -> bool {
        let key = || texts_of(&item.key).map(|key| (item.table.name.clone(), key));
        !self.refused.is_empty() && item.state != RowState::Gone && key().is_some_and(|key| self.refused.contains(&key))
    }

    /// Writes it, or all of it but what the replica rejects.
    pub async fn write(&mut self, written: Written) -> Result<Outcome> {
        let Written { items, emptied, progress, doubts } = written;
        let items = Arc::new(items);
        let encoded = self.replica.encode(&items).await;
        let range = 0..items.len();
        let work = Work { items: items.clone(), range: range.clone(), emptied, encoded, ..Work::default() };
        match self.apply(&work, &progress).await {
            Ok(()) => Ok(Outcome::Written),
            Err(e) if e.is_rejection() && !items.is_empty() => {
                tracing::warn!(sync = self.name, error = %e, rows = items.len(), "the replica rejects the batch; it is halved");
                if !doubts.is_empty() {
                    let progress = Progress { tables: doubts, ..Progress::default() };
                    self.apply(&Work::default(), &progress).await?;
                }
                self.isolate(&work).await.map(|()| Outcome::Rejected)
            }
            Err(e) => Err(of_table(e, &work)),
        }
    }

    /// Alters tables, with how far they are afterwards.
    pub async fn alter(&mut self, statements: Vec<String>, progress: &Progress) -> Result<()> {
        let to = self.standing.head.next(self.chance.token());
        let told = Progress { looked: self.looked.clone(), events: self.events(progress), ..progress.clone() };
        let done = self.replica.alter_pull(&self.name, &self.standing.head, &to, &told, statements).await;
        self.announce(&told);
        done?;
        self.standing.head = to;
        self.note(&Work::default(), &told);
        Ok(())
    }

    async fn isolate(&mut self, work: &Work) -> Result<()> {
        let mut search = Search::of(work.range.len(), usize::MAX);
        let mut rejected: BTreeMap<String, usize> = BTreeMap::new();
        while let Some(range) = search.take(usize::MAX) {
            let part = Work { range: range.clone(), emptied: Vec::new(), ..work.clone() };
            match self.apply(&part, &Progress::default()).await {
                Ok(()) => {}
                Err(e) if e.is_rejection() && range.len() > 1 => search.halve(&range),
                Err(e) if e.is_rejection() => {
                    let item = &work.items[range.start];
                    let count = rejected.entry(item.table.name.clone()).or_default();
                    *count += 1;
                    if *count > MOST_LETTERS {
                        return Err(too_many(&item.table.name, &e));
                    }
                    let letter = letter(item, &e);
                    self.refused.insert((letter.table.clone(), letter.key.clone()));
                    let progress = Progress { letters: vec![letter], ..Progress::default() };
                    self.apply(&Work::default(), &progress).await?;
                }
                Err(e) => return Err(of_table(e, &part)),
            }
        }
        Ok(())
    }

    async fn apply(&mut self, work: &Work, progress: &Progress) -> Result<()> {
        if let Some(job) = self.job.clone().filter(|_| !PullRule::JobWithBatch.holds()) {
            let to = self.standing.head.next(self.chance.token());
            let job = Progress { job: Some(job), caught_up_at: progress.caught_up_at.clone(), ..Progress::default() };
            self.replica.apply_pull(&self.name, &self.standing.head, &to, &job, Work::default()).await?;
            self.standing.head = to;
        }
        let to = self.standing.head.next(self.chance.token());
        failpoint::reach(failpoint::SENT);
        let (job, looked, events) = (self.job.clone(), self.looked.clone(), self.events(progress));
        let progress = &Progress { job, looked, events, ..progress.clone() };
        let done = self.replica.apply_pull(&self.name, &self.standing.head, &to, progress, work.clone()).await;
        self.announce(progress);
        done?;
        failpoint::reach(failpoint::APPLIED);
        if !self.has_checked {
            self.replica.check_pull(&self.name, &to).await?;
            self.has_checked = true;
        }
        self.standing.head = to;
        self.note(work, progress);
        Ok(())
    }

    /// What others are to be told of with it.
    fn events(&self, progress: &Progress) -> Vec<Event> {
        let found = || progress.events.iter().cloned().chain(outbox::events(&self.standing, progress)).collect();
        self.news.as_ref().map_or_else(Vec::new, |_| found())
    }

    /// There may be events to deliver: also where the answer was lost.
    fn announce(&self, progress: &Progress) {
        if let Some(news) = self.news.as_ref().filter(|_| !progress.events.is_empty()) {
            news.notify_one();
        }
    }

    /// This is in the replica now.
    fn note(&mut self, work: &Work, progress: &Progress) {
        let gone = work.items().iter().filter(|item| item.state == RowState::Gone).count();
        let emptied = work.emptied.iter().filter_map(|table| self.standing.tables.get(&table.name)?.rows);
        self.done.removed += gone as u64 + emptied.map(|rows| u64::try_from(rows).unwrap_or_default()).sum::<u64>();
        self.done.rows += (work.range.len() - gone) as u64;
        self.done.batches += 1;
        let standing = &mut self.standing;
        standing.tables.extend(progress.tables.clone());
        if progress.source.is_some() {
            standing.source.clone_from(&progress.source);
        }
        if progress.caught_up_at.is_some() {
            standing.caught_up_at.clone_from(&progress.caught_up_at);
        }
        for (table, key) in &progress.covered {
            standing.dead.get_mut(table).and_then(|keys| keys.remove(key));
        }
        for letter in &progress.letters {
            let before = standing.dead.entry(letter.table.clone()).or_default();
            if before.insert(letter.key.clone(), letter.class.to_owned()).is_none() {
                tracing::error!(
                    sync = self.name,
                    table = letter.table,
                    "a row becomes a dead letter: {}",
                    letter.reason
                );
                self.done.dead += 1;
            }
        }
    }
}

fn letter(item: &Item, error: &Error) -> Letter {
    let key = texts_of(&item.key).unwrap_or_default();
    Letter { table: item.table.name.clone(), key, class: "target", reason: error.to_string() }
}

fn too_many(table: &str, error: &Error) -> Error {
    Error::halt(format!(
        "the replica rejects more than {MOST_LETTERS} rows of the table {table:?}, the last because: {error}"
    ))
    .of_table(table, Side::Target)
}

/// The matter of one table alone, where the replica's table is not what it should be.
fn of_table(error: Error, work: &Work) -> Error {
    let items = work.items();
    let of_items = items.first().zip(items.last()).filter(|(first, last)| first.table.name == last.table.name);
    let one = match (&work.emptied[..], of_items) {
        ([table], None) if items.is_empty() => Some(table.name.clone()),
        ([], Some((item, _))) => Some(item.table.name.clone()),
        _ => None,
    };
    match one {
        Some(table) if *error.kind() == ErrorKind::Schema => error.of_table(&table, Side::Target),
        _ => error,
    }
}
