//! The taking half of a step: takes messages, sorts them (`intake`), reads what they mark (`marked_rows`), and sends
//! batches to the writer, until the queue is empty at the step's snapshot or the step has had its share; then `pages`
//! of tables that are rebuilt. Writes nothing.

use super::parsed::{Intake, Parsed};
use crate::core::batch::{Batch, Item};
use crate::core::error::{Cause, Error, Result};
use crate::core::failpoint::{self, Rule};
use crate::core::message::MarkedKey;
use crate::core::position::Provenance;
use crate::core::schema::Table;
use crate::postgres::books::dead_letters;
use crate::postgres::books::dead_letters::{DeadLetter, Supersedable, Superseded};
use crate::postgres::books::progress::Snapshot;
use crate::postgres::books::rebuilds::Rebuild;
use crate::postgres::catalog::SourceTable;
use crate::postgres::link::Savepoint;
use crate::postgres::queue;
use crate::postgres::queue::Taken;
use crate::sync::chunk::Chunk;
use crate::sync::session::Session;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
    snapshot: &'s Snapshot,
    sender: Sender<Chunk>,
    deadline: Instant,
    /// When what is left of the messages in hand is given back.
    patience: Instant,
    pub(in crate::sync) batch: Batch,
    /// What was taken, for dead letters of images.
    taken: Arc<Vec<Taken>>,
    /// What they say, of those that are still to be handled.
    pub(in crate::sync) parsed: VecDeque<Parsed>,
    /// The last id of it.
    taken_to: i64,
    /// The messages that name the keys of the batch in hand, or the name of the step while pages are read.
    pub(in crate::sync) provenance: Arc<Provenance>,
    /// What the snapshot saw is on disk.
    is_seen_durable: bool,
    /// A row took too long in this step.
    pub(in crate::sync) has_slow: bool,
    /// Keys that the step has no time for: they are marked again.
    pub(in crate::sync) postponed: Vec<MarkedKey>,
    has_postponed: bool,
    /// A batch of messages was sent: nothing of an earlier step can reach the replica after it.
    has_fenced: bool,
    /// Dead letters that wait, and those of this step, of which newer states may come.
    pub(in crate::sync) dead_letters: Supersedable,
    pub(in crate::sync) own_dead_letters: Supersedable,
    pub(in crate::sync) report: ReaderReport,
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
    pub fn new(session: &'s Session<'s>, snapshot: &'s Snapshot, sender: Sender<Chunk>, deadline: Instant) -> Self {
        Self {
            session,
            snapshot,
            sender,
            deadline: deadline.min(Instant::now() + STEP_TIME),
            patience: Instant::now() + PATIENCE,
            batch: Batch::default(),
            taken: Arc::default(),
            parsed: VecDeque::new(),
            taken_to: i64::MIN,
            provenance: Arc::default(),
            is_seen_durable: false,
            has_slow: false,
            postponed: Vec::new(),
            has_postponed: false,
            has_fenced: false,
            dead_letters: session.dead_letters.clone(),
            own_dead_letters: Supersedable::default(),
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
                self.send_chunk(Vec::new(), Arc::default(), Vec::new(), true).await?;
            }
        }
        self.report.superseded = self.dead_letters.superseded();
        self.report.dead = self.own_dead_letters.without_superseded(std::mem::take(&mut self.report.dead));
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

    async fn take_all(&mut self) -> Result<()> {
        let link = self.session.link.as_ref();
        let paused = self.session.waiting();
        loop {
            let (queue::TakenMessages { messages, has_more, is_flushed, .. }, parsed) = self.take(&paused).await?;
            let Some(last) = messages.last().map(|message| message.msg_id) else {
                self.report.ended = if paused.marks.is_empty() { Ended::Drained } else { Ended::Paused };
                if paused.marks.is_empty() {
                    self.report.left = 0; // whatever was estimated
                }
                self.report.has_taken_all = true;
                return Ok(());
            };
            failpoint::reach(failpoint::TAKEN);
            self.taken_to = last;
            self.grow(messages.len() as i64, has_more);
            (self.taken, self.parsed) = (Arc::new(messages), parsed);
            // Before any row is streamed: a query on a connection whose rows wait would wait with them.
            if !self.is_seen_durable {
                if !is_flushed && Rule::DurableFirst.holds() {
                    self.session.ensure_durable().await?;
                }
                self.is_seen_durable = true;
                failpoint::reach(failpoint::DURABLE);
            }
            // What is paused may be all that is left, or nothing.
            let is_empty = !has_more && (paused.marks.is_empty() || !link.has_any().await?);
            if !self.groups(is_empty).await? {
                return Ok(());
            }
            link.release(Savepoint::Take).await?;
            if self.has_postponed {
                return Ok(());
            }
            if is_empty {
                self.report.ended = Ended::Drained;
                self.report.has_taken_all = true;
                return Ok(());
            }
            if self.is_over() {
                return Ok(());
            }
        }
    }

    /// Takes what the step may have next, in order, and what it says. What is too large to be fetched becomes a dead
    /// letter on the server.
    async fn take(&mut self, paused: &queue::Paused<'_>) -> Result<(queue::TakenMessages, VecDeque<Parsed>)> {
        let (worker, link) = (self.session.worker, self.session.link.as_ref());
        let mut as_bytes = false;
        loop {
            let taken = self.try_take(paused, as_bytes).await;
            let large = match taken {
                Err(e) if !as_bytes && e.cause() == Some(Cause::NoUtf8) => Vec::new(),
                Ok((taking, _)) if !taking.large.is_empty() => taking.large,
                taken => return taken,
            };
            as_bytes |= large.is_empty();
            link.rollback_to(Savepoint::Take).await?;
            link.release(Savepoint::Take).await?;
            if !large.is_empty() {
                let reason = dead_letters::too_large(worker.row_bytes);
                let buried = link.dead_letter_large(&large, &reason).await?;
                tracing::error!(messages = ?large, "messages become dead letters: {reason}");
                self.report.messages += buried;
                self.report.large += buried;
            }
        }
    }

    async fn try_take(
        &mut self,
        paused: &queue::Paused<'_>,
        as_bytes: bool,
    ) -> Result<(queue::TakenMessages, VecDeque<Parsed>)> {
        let (worker, link) = (self.session.worker, self.session.link.as_ref());
        let limit = worker.take_messages.load(Ordering::Relaxed);
        let take = queue::Take {
            after: self.taken_to,
            paused,
            limit,
            keeps: worker.keeps(),
            lsn: &self.snapshot.lsn,
            as_bytes,
            most_bytes: worker.row_bytes,
        };
        let mut parsed = Vec::new();
        let mut read = |message: &Taken| parsed.push((message.msg_id, self.parse(message)));
        let tables = self.session.read_sources();
        // One round trip: what comes after is sent behind the first.
        let opening = link.savepoint(Savepoint::Take, None);
        let (opened, taken, measured) = futures_util::join!(opening, link.take(take, &mut read), link.measure(&tables));
        opened?;
        if taken.as_ref().is_err_and(|e| e.sqlstate() == Some("57014")) {
            worker.take_messages.store((limit / 8).max(1), Ordering::Relaxed); // too many large ones to look at
        }
        let mut taken = taken?;
        measured?;
        // Those who take give no order.
        if Rule::ImagesInOrder.holds() {
            taken.messages.sort_unstable_by_key(|message| message.msg_id);
            parsed.sort_unstable_by_key(|(msg_id, _)| *msg_id);
        }
        Ok((taken, parsed.into_iter().map(|(_, parsed)| parsed).collect()))
    }

    /// Asks for more next time while messages are small, for less where the bytes were the limit.
    fn grow(&self, taken: i64, has_more: bool) {
        let asked = self.session.worker.take_messages.load(Ordering::Relaxed);
        if taken < asked && !has_more {
            return; // there were no more
        }
        let next = if taken < asked { taken * 2 } else { asked * 4 };
        self.session.worker.take_messages.store(next.clamp(16, queue::TAKE_MESSAGES), Ordering::Relaxed);
    }

    /// Handles what was taken, in one group or more; whether the reader goes on. What a slow target leaves no
    /// time for is given back.
    async fn groups(&mut self, is_empty: bool) -> Result<bool> {
        let taken = self.taken.clone();
        let mut rest = &taken[..];
        while !rest.is_empty() {
            let (mut intake, messages) = self.intake(rest);
            if !Rule::MarksWait.holds() {
                intake.marks.retain(|table, _| !self.session.tables.is_paused(table));
            }
            let marked = intake.marks.keys().chain(&intake.truncated);
            let unprepared: Vec<_> = marked.filter(|name| !self.session.tables.is_read(name)).cloned().collect();
            if !unprepared.is_empty() {
                self.report.ended = Ended::Unprepared(unprepared);
                return Ok(false);
            }
            let group;
            (group, rest) = rest.split_at(messages);
            log_step!(self.session, batch.messages = messages, batch.images = intake.images.len(), "messages read");
            self.report.messages += messages as u64;
            self.report.left = if is_empty { rest.len() as i64 } else { (self.report.left - messages as i64).max(1) };
            self.group(intake, group).await?;
            if !rest.is_empty() && self.is_late() {
                self.give_back(&taken[..taken.len() - rest.len()]).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts back on the queue what was taken last, but for `handled`.
    async fn give_back(&mut self, handled: &[Taken]) -> Result<()> {
        let (worker, link) = (self.session.worker, self.session.link.as_ref());
        let ids: Vec<i64> = handled.iter().map(|message| message.msg_id).collect();
        tracing::info!(
            messages.handled = ids.len(),
            "the step has had its time; the rest of the messages is given back"
        );
        if !Rule::GiveBack.holds() {
            return Ok(());
        }
        link.rollback_to(Savepoint::Take).await?;
        link.acknowledge(&ids, worker.keeps()).await?;
        worker.take_messages.store((ids.len() as i64).max(1), Ordering::Relaxed);
        Ok(())
    }

    /// Reads what one group of messages marks, and sends it all.
    async fn group(&mut self, intake: Intake, messages: &[Taken]) -> Result<()> {
        for (table, messages) in &intake.skipped {
            tracing::warn!(table, messages, "skipped: schema.json does not name this table");
            self.report.skipped += messages;
        }
        let provenance = |ids: &[i64]| {
            let named = messages.iter().filter(|m| ids.binary_search(&m.msg_id).is_ok());
            Arc::new(queue::provenance(named))
        };
        self.batch = intake.batch;
        self.provenance = match (intake.images.is_empty(), intake.marking.is_empty()) {
            (false, _) => provenance(&intake.images),
            // They name no row: the batch fences, or says that nothing is left.
            (true, true) => Arc::new(queue::provenance(messages.iter())),
            (true, false) => Arc::default(), // nothing is sent before the marks
        };
        // On their own where marks may fill more than a batch: the ledger has to list all images that are
        // applied, or they are taken again without those that came after them.
        let images = match intake.marks.is_empty() && intake.truncated.is_empty() {
            true => intake.images,
            false => self.send(intake.images, false).await.map(|()| Vec::new())?,
        };
        if !intake.marking.is_empty() {
            self.provenance = provenance(&intake.marking);
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
        self.send(images, true).await
    }

    /// A message may mark more than a step has time for: what is left of it is a message of its own.
    async fn mark_postponed(&mut self, table: &str) -> Result<()> {
        let keys = std::mem::take(&mut self.postponed);
        if keys.is_empty() {
            return Ok(());
        }
        tracing::info!(table, keys = keys.len(), "the step has had its time; the rest of the keys is marked again");
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
        self.send_chunk(emptied, Arc::new(items), images, caught_up).await
    }

    pub(in crate::sync) async fn send_chunk(
        &self,
        emptied: Vec<Arc<Table>>,
        items: Arc<Vec<Item>>,
        images: Vec<i64>,
        caught_up: bool,
    ) -> Result<()> {
        let (taken, provenance, left) = (self.taken.clone(), self.provenance.clone(), self.report.left);
        failpoint::reach(failpoint::READ);
        let chunk = Chunk { emptied, items, images, taken, provenance, left, caught_up };
        // The writer is gone only if it failed, and then its error is the one to report.
        self.sender.send(chunk).await.map_err(|_| Error::retry("the writer has stopped"))
    }
}
