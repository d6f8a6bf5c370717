//! The taking half of a step, in four stages: takes messages (`taking`), cuts them into groups (`hand`), sorts each
//! (`intake`), reads what it marks (`marked_rows`), and sends chunks to the writer, until the queue is empty at the
//! step's snapshot or the step has had its share; then `pages` of tables that are rebuilt. Writes nothing.

use super::ahead::Ahead;
use super::hand::{Group, Hand};
use crate::core::batch::{Batch, Item};
use crate::core::error::{Error, Result};
use crate::core::failpoint::{self, Rule};
use crate::core::message::MarkedKey;
use crate::core::position::Provenance;
use crate::core::schema::Table;
use crate::postgres::books::dead_letters::{DeadLetter, Superseded};
use crate::postgres::books::progress::Snapshot;
use crate::postgres::books::rebuilds::Rebuild;
use crate::postgres::catalog::SourceTable;
use crate::postgres::link::{Link, Savepoint};
use crate::postgres::queue::Taken;
use crate::sync::chunk::Chunk;
use crate::sync::dead_letters::DeadLetters;
use crate::sync::session::Session;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

/// How long a step goes on taking: its snapshot holds back vacuum, its locks hold back DDL.
const STEP_TIME: Duration = Duration::from_secs(2);

/// How long a step goes on with what it took: what a slow target has not had by then is given back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a reader stopped.
pub(in crate::sync) enum Ended {
    /// The queue is empty at the snapshot.
    Drained,
    /// There is more; the step has had its share, or marks wait for tables that cannot be read.
    Paused,
    /// These tables are marked and have to be locked before the snapshot.
    Unprepared(Vec<String>),
}

/// Takes and reads.
pub(in crate::sync) struct Reader<'s> {
    pub(in crate::sync) session: &'s Session<'s>,
    pub(super) snapshot: &'s Snapshot,
    /// What was taken when the step began.
    pub(super) ahead: Option<Box<Ahead>>,
    sender: Sender<Chunk>,
    deadline: Instant,
    /// When what is left of the messages in hand is given back.
    patience: Instant,
    pub(in crate::sync) batch: Batch,
    /// What was taken, for dead letters of images.
    taken: Arc<Vec<Taken>>,
    /// The last id of it.
    pub(super) taken_to: i64,
    /// When the last take came.
    taken_at: Instant,
    /// How old the messages in hand were then, in seconds.
    ages: Vec<f64>,
    /// The messages that name the keys of the batch in hand, or the name of the step while pages are read.
    pub(in crate::sync) provenance: Arc<Provenance>,
    /// What the snapshot saw is on disk.
    is_seen_durable: bool,
    /// A place was marked before rows were read, and is not forgotten yet.
    pub(super) has_place: bool,
    /// A row took too long in this step.
    pub(in crate::sync) has_slow: bool,
    /// Keys that the step has no time for: they are marked again.
    pub(in crate::sync) postponed: Vec<MarkedKey>,
    has_postponed: bool,
    /// A batch of messages was sent: nothing of an earlier step can reach the replica after it.
    has_fenced: bool,
    pub(in crate::sync) dead_letters: DeadLetters,
    pub(in crate::sync) report: ReaderReport,
}

/// Forgets the place before the last rows that were read, if there is one.
pub(super) async fn leave(link: &dyn Link, has_place: bool) -> Result<()> {
    if has_place { link.release(Savepoint::Read).await } else { Ok(()) }
}

/// What a reader has done.
pub(in crate::sync) struct ReaderReport {
    /// Messages taken.
    pub messages: u64,
    /// Of those, for tables that are not replicated.
    pub skipped: u64,
    /// Messages left.
    pub left: i64,
    /// What cannot be understood or read.
    pub dead: Vec<DeadLetter>,
    /// Messages that were too large, and became dead letters on the server.
    pub large: u64,
    /// Dead letters whose keys have newer states.
    pub superseded: Superseded,
    /// Why it stopped taking.
    pub ended: Ended,
    /// Nothing is left on the queue but the marks of tables that cannot be read.
    pub has_taken_all: bool,
    /// Tables that were truncated and filled again.
    pub swept: BTreeSet<String>,
    /// How far the tables are that were rebuilt.
    pub rebuilt: Vec<Rebuild>,
    /// Nothing waits to be rebuilt.
    pub is_whole: bool,
}

impl ReaderReport {
    /// Whether the replica equals the source at the step's snapshot.
    pub fn is_caught_up(&self) -> bool {
        matches!(self.ended, Ended::Drained) && self.is_whole
    }
}

impl<'s> Reader<'s> {
    pub fn new(
        session: &'s Session<'s>,
        snapshot: &'s Snapshot,
        ahead: Option<Box<Ahead>>,
        sender: Sender<Chunk>,
        deadline: Instant,
    ) -> Self {
        Self {
            session,
            snapshot,
            ahead,
            sender,
            deadline: deadline.min(Instant::now() + STEP_TIME),
            patience: Instant::now() + PATIENCE,
            batch: Batch::default(),
            taken: Arc::default(),
            taken_to: i64::MIN,
            provenance: Arc::default(),
            is_seen_durable: false,
            has_place: false,
            has_slow: false,
            postponed: Vec::new(),
            has_postponed: false,
            has_fenced: false,
            dead_letters: DeadLetters::new(session.dead_letters.clone()),
            taken_at: Instant::now(),
            ages: Vec::new(),
            report: ReaderReport {
                messages: 0,
                skipped: 0,
                left: session.queued,
                dead: Vec::new(),
                large: 0,
                superseded: Superseded::default(),
                ended: Ended::Paused,
                has_taken_all: false,
                swept: BTreeSet::new(),
                rebuilt: Vec::new(),
                is_whole: session.pending.is_empty(),
            },
        }
    }

    /// Reads to the end, and tells the writer so by dropping its sender.
    pub async fn run(mut self) -> Result<ReaderReport> {
        self.take_all().await?;
        if !self.session.pending.is_empty() && !matches!(self.report.ended, Ended::Unprepared(_)) {
            self.rebuild().await?;
            self.report.is_whole = self.is_rebuilt();
            if self.report.is_caught_up() {
                self.send_chunk(Vec::new(), Arc::default(), Vec::new(), None, true).await?;
            }
        }
        (self.report.dead, self.report.superseded) = self.dead_letters.take();
        Ok(self.report)
    }

    /// Whether the step takes nothing more.
    pub(in crate::sync) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline || self.session.worker.is_to_end() || self.session.beside.is_waited_for()
    }

    /// Whether what is left of what it took is given back.
    pub(in crate::sync) fn is_late(&self) -> bool {
        Instant::now() >= self.patience || self.session.beside.is_waited_for()
    }

    /// Takes and handles what there is, as much as the step has time for.
    async fn take_all(&mut self) -> Result<()> {
        let link = self.session.link.as_ref();
        let paused = self.session.waiting();
        loop {
            let hand = self.take(&paused).await?;
            let Some(last) = hand.messages.last() else {
                self.report.has_taken_all = true;
                if paused.marks.is_empty() {
                    (self.report.ended, self.report.left) = (Ended::Drained, 0); // whatever was estimated
                }
                return Ok(());
            };
            failpoint::reach(failpoint::TAKEN);
            self.taken_at = Instant::now();
            self.taken_to = last.msg_id;
            self.grow(&hand);
            self.taken = hand.messages.clone();
            self.ensure_durable(hand.is_flushed).await?;
            // What is paused may be all that is left, or nothing.
            let is_empty = !hand.has_more && (paused.marks.is_empty() || !link.has_any().await?);
            if !self.handle(hand, is_empty).await? {
                return Ok(());
            }
            link.release(Savepoint::Take).await?;
            if is_empty && !self.has_postponed {
                (self.report.ended, self.report.has_taken_all) = (Ended::Drained, true);
            }
            if is_empty || self.has_postponed || self.is_over() {
                return Ok(());
            }
        }
    }

    /// Once, before any row is streamed: a query on a connection whose rows wait would wait with them.
    async fn ensure_durable(&mut self, is_flushed: bool) -> Result<()> {
        if std::mem::replace(&mut self.is_seen_durable, true) {
            return Ok(());
        }
        if !is_flushed && Rule::DurableFirst.holds() {
            self.session.ensure_durable().await?;
        }
        failpoint::reach(failpoint::DURABLE);
        Ok(())
    }

    /// Handles what was taken, in one group or more; whether the reader goes on. What a slow target leaves no
    /// time for is given back.
    async fn handle(&mut self, mut hand: Hand, is_empty: bool) -> Result<bool> {
        while let Some(mut group) = hand.next_group(self.session, &mut self.dead_letters) {
            if !Rule::MarksWait.holds() {
                group.intake.marks.retain(|table, _| !self.session.tables.is_paused(table));
            }
            let unprepared = self.unprepared(&group);
            if !unprepared.is_empty() {
                self.report.ended = Ended::Unprepared(unprepared);
                return Ok(false);
            }
            let (messages, images) = (group.messages().len(), group.intake.images.len());
            log_step!(self.session, batch.messages = messages, batch.images = images, "messages read");
            self.report.messages += messages as u64;
            self.report.left = if is_empty { hand.left() as i64 } else { (self.report.left - messages as i64).max(1) };
            let began = Instant::now();
            self.group(group).await?;
            self.session.worker.figures.took(|counts| &mut counts.read, began.elapsed());
            if hand.left() > 0 && self.is_late() {
                self.give_back(&hand).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tables that it marks and that are not locked.
    fn unprepared(&self, group: &Group) -> Vec<String> {
        let marked = group.intake.marks.keys().chain(&group.intake.truncated);
        marked.filter(|name| !self.session.tables.is_read(name)).cloned().collect()
    }

    /// Reads what one group of messages marks, and sends it all.
    async fn group(&mut self, mut group: Group) -> Result<()> {
        for (table, messages) in &group.intake.skipped {
            tracing::warn!(table, messages, "skipped: schema.json does not name this table");
            self.report.skipped += messages;
        }
        self.ages = group.messages().iter().map(|message| message.age_seconds).collect();
        let images = self.images(&mut group).await?;
        let intake = &group.intake;
        if !intake.marking.is_empty() {
            self.provenance = group.provenance(&intake.marking);
        }
        for name in &intake.truncated {
            self.truncate(name).await?;
        }
        for (name, keys) in &intake.marks {
            if let Some(source) = self.session.sources.get(name) {
                self.read(source, keys).await?;
                self.mark_postponed(name).await?;
            }
        }
        // What forgets the place is on its way while the rows are.
        let leaving = leave(self.session.link.as_ref(), std::mem::take(&mut self.has_place));
        let (left, sent) = futures_util::join!(leaving, self.send(images, true));
        left.and(sent)
    }

    /// Puts the images of a group into the batch, and sends them where marks follow; those that are not sent yet.
    async fn images(&mut self, group: &mut Group) -> Result<Vec<i64>> {
        self.batch = std::mem::take(&mut group.intake.batch);
        let intake = &group.intake;
        self.provenance = match (intake.images.is_empty(), intake.marking.is_empty()) {
            (false, _) => group.provenance(&intake.images),
            // They name no row: the batch fences, or says that nothing is left.
            (true, true) => group.whole_provenance(),
            (true, false) => Arc::default(), // nothing is sent before the marks
        };
        let is_alone = intake.marks.is_empty() && intake.truncated.is_empty();
        let images = std::mem::take(&mut group.intake.images);
        if is_alone {
            return Ok(images);
        }
        // On their own where marks may fill more than a batch: the ledger has to list all images that are
        // applied, or they are taken again without those that came after them.
        self.send(images, false).await?;
        Ok(Vec::new())
    }

    /// A message may mark more than a step has time for: what is left of it is a message of its own.
    async fn mark_postponed(&mut self, table: &str) -> Result<()> {
        let keys = std::mem::take(&mut self.postponed);
        if keys.is_empty() {
            return Ok(());
        }
        tracing::info!(table, keys = keys.len(), "the step has had its time; the rest of the keys is marked again");
        leave(self.session.link.as_ref(), std::mem::take(&mut self.has_place)).await?; // and its limits
        self.report.left += self.session.link.mark(table, &keys).await?;
        self.has_postponed = true;
        Ok(())
    }

    /// A truncated table: emptied if the source is empty at this snapshot; else swept, because rows that
    /// came since have marks of their own.
    async fn truncate(&mut self, name: &str) -> Result<()> {
        let Some(source) = self.session.sources.get(name) else { return Ok(()) };
        if self.is_empty(source).await? {
            self.batch.empty_table(&source.table);
            return Ok(());
        }
        tracing::info!(table = name, "truncated and filled again: what the source no longer has is removed next");
        self.report.swept.insert(name.to_owned());
        self.report.is_whole = false;
        Ok(())
    }

    /// Whether the source has no row. Where looking fails at one there are some.
    async fn is_empty(&self, source: &SourceTable) -> Result<bool> {
        let looked = self.session.attempt(source, self.session.link.is_empty(source)).await?;
        Ok(looked.unwrap_or(false))
    }

    /// Sends the batch in hand, and lists the images that it holds.
    pub(in crate::sync) async fn send(&mut self, images: Vec<i64>, ends_group: bool) -> Result<()> {
        let caught_up = ends_group && self.report.left == 0 && self.report.is_whole;
        // Without rows too: a late request may bring some of these messages, which are gone by then.
        let fences = ends_group && !self.has_fenced;
        if self.batch.is_empty() && images.is_empty() && !caught_up && !fences {
            return Ok(());
        }
        self.has_fenced = true;
        let (emptied, items) = self.batch.take();
        let arriving = ends_group.then(|| std::mem::take(&mut self.ages));
        self.send_chunk(emptied, Arc::new(items), images, arriving, caught_up).await
    }

    pub(in crate::sync) async fn send_chunk(
        &self,
        emptied: Vec<Arc<Table>>,
        items: Arc<Vec<Item>>,
        images: Vec<i64>,
        arriving: Option<Vec<f64>>,
        caught_up: bool,
    ) -> Result<()> {
        let (taken, provenance, left) = (self.taken.clone(), self.provenance.clone(), self.report.left);
        let arriving = arriving.map(|ages| (self.taken_at, ages));
        failpoint::reach(failpoint::READ);
        let chunk = Chunk { emptied, items, images, taken, provenance, left, arriving, caught_up };
        // The writer is gone only if it failed, and then its error is the one to report.
        self.sender.send(chunk).await.map_err(|_| Error::retry("the writer has stopped"))
    }
}
