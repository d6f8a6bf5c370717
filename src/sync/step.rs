//! One step: a Postgres transaction around libSQL transactions. Lock, take, read, apply, acknowledge,
//! in this order; acknowledging comes last and is the commit. Whatever fails before leaves everything
//! on the queue.

use super::pairing::Ready;
use super::{Drained, Session};
use crate::batch::{Batch, ColumnSet, Item};
use crate::error::{Class, Error, Result};
use crate::message::{self, MarkedKey, Message};
use crate::queue::{self, DeadLetter, Snapshot, Taken};
use crate::replica::Work;
use crate::replica::head::{Entry, Freshness, Head};
use crate::schema::Table;
use crate::schema::catalog::{Access, SourceTable};
use crate::source;
use crate::value::Key;
use futures_util::TryStreamExt;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// Keys read by one query.
const READ_KEYS: usize = 1_000;

/// Rows of one libSQL transaction.
const BATCH_ROWS: usize = 20_000;

/// Bytes of one libSQL transaction; bounds the step's memory.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Keys of the replica looked through at once after a truncate.
const SWEEP_KEYS: i64 = 10_000;

/// How a step ended.
pub(super) enum Outcome {
    /// Another worker is draining this queue.
    Busy,
    /// Nothing was taken, but what stood in the way is gone.
    Again,
    /// Messages were taken and acknowledged.
    Took,
    /// Nothing to take; the notes that other callers had left by then.
    Empty {
        /// Their number.
        calls: i64,
    },
}

/// What the messages of one step say.
#[derive(Default)]
struct Intake {
    batch: Batch,
    marks: BTreeMap<String, Vec<MarkedKey>>,
    truncated: BTreeSet<String>,
    images: Vec<i64>,
    dead: Vec<DeadLetter>,
    skipped: BTreeMap<String, u64>,
}

impl Session<'_> {
    /// Runs one step.
    pub(super) async fn step(&mut self, done: &mut Drained) -> Result<Outcome> {
        let started = Instant::now();
        let outcome = self.try_step(done).await;
        match &outcome {
            Err(e) if e.wants_new_snapshot() => {
                self.client.batch_execute("rollback").await?;
                return Ok(Outcome::Again);
            }
            Ok(Outcome::Took) => {
                tracing::info!(
                    queue.remaining = self.queued,
                    step_ms = started.elapsed().as_millis() as u64,
                    "step acknowledged"
                );
            }
            _ => {}
        }
        outcome
    }

    async fn try_step(&mut self, done: &mut Drained) -> Result<Outcome> {
        let queue = &self.worker.queue;
        let locks: Vec<&SourceTable> = self.locked.iter().filter_map(|name| self.sources.get(name)).collect();
        source::begin(&self.client, &locks).await?;
        let Some(snapshot) = queue::lock(&self.client, queue).await? else {
            self.client.batch_execute("rollback").await?;
            return Ok(Outcome::Busy);
        };
        let head = match self.head.take() {
            Some(head) if snapshot.progress.head.as_ref() == Some(&head) => head,
            _ => match self.agree(&snapshot, self.replica.head().await?).await? {
                Ready::At(head) => head,
                Ready::Again => return Ok(Outcome::Again),
            },
        };
        let paused: Vec<&str> = self.paused.iter().map(String::as_str).collect();
        let taken = queue::take(&self.client, queue, &paused).await?;
        if taken.is_empty() {
            self.client.batch_execute("rollback").await?;
            self.head = Some(head);
            return Ok(Outcome::Empty { calls: snapshot.calls });
        }
        let intake = self.intake(&taken);
        if self.prepare_to_read(&intake) {
            self.client.batch_execute("rollback").await?;
            self.head = Some(head);
            return Ok(Outcome::Again);
        }
        tracing::info!(batch.messages = taken.len(), batch.images = intake.images.len(), "messages read");
        self.queued -= taken.len() as i64;
        let left = if queue::is_empty(&self.client, queue).await? { 0 } else { self.queued.max(1) };
        let mut apply = Apply::new(self, head, &snapshot, &taken, left);
        apply.run(intake).await?;
        let (head, dead, counts) = apply.finish();

        queue::bury(&self.client, queue, &dead).await?;
        queue::advance(&self.client, queue, &head, left == 0).await?;
        self.client.batch_execute("commit").await?;
        self.head = Some(head);
        done.processed += taken.len() as u64;
        done.rows += counts.rows;
        done.batches += counts.batches;
        done.skipped += counts.skipped;
        done.dead += dead.len() as u64;
        Ok(Outcome::Took)
    }

    /// Sorts messages into images to apply, keys to read, and dead letters.
    fn intake(&self, taken: &[Taken]) -> Intake {
        let mut intake = Intake::default();
        for message in taken {
            let text = message.text.as_deref().unwrap_or("null");
            match message::parse(text, &self.worker.schema) {
                Ok(Message::Marks(table, keys)) => intake.marks.entry(table.name.clone()).or_default().extend(keys),
                Ok(Message::Truncate(table)) => {
                    intake.truncated.insert(table.name.clone());
                }
                // Marks say more than a leftover image: the row as it is now.
                Ok(Message::Image(table, _, keys)) if self.locked.contains(&table.name) => {
                    intake.marks.entry(table.name.clone()).or_default().extend(keys);
                }
                Ok(Message::Image(table, change, _)) => {
                    intake.batch.merge(&table, change, message.msg_id);
                    intake.images.push(message.msg_id);
                }
                Ok(Message::Skipped(table)) => *intake.skipped.entry(table).or_default() += 1,
                Err(problem) => intake.dead.push(DeadLetter {
                    reason: format!("the message {}", problem.reason),
                    class: "message",
                    table: problem.table,
                    key: None,
                    msg_id: Some(message.msg_id),
                    message: raw(message),
                }),
            }
        }
        for keys in intake.marks.values_mut() {
            keys.sort_unstable();
            keys.dedup();
        }
        intake
    }

    /// Whether the step has to begin again, because it marks tables that are not locked yet, or that
    /// cannot be read (their marks stay queued).
    fn prepare_to_read(&mut self, intake: &Intake) -> bool {
        let marked = intake.marks.keys().chain(&intake.truncated);
        let new: Vec<String> = marked.filter(|name| !self.locked.contains(*name)).cloned().collect();
        for name in &new {
            if self.sources.get(name).is_some_and(|s| s.access == Access::Readable) {
                self.locked.insert(name.clone());
            } else {
                self.pause(name);
            }
        }
        !new.is_empty()
    }
}

fn raw(message: &Taken) -> Option<Box<RawValue>> {
    RawValue::from_string(message.text.clone()?).ok()
}

/// Counts of one step.
#[derive(Default)]
struct Counts {
    rows: u64,
    batches: u64,
    skipped: u64,
}

/// The applying half of a step: reads what is marked, writes batches, collects dead letters.
struct Apply<'s> {
    session: &'s Session<'s>,
    head: Head,
    snapshot: &'s Snapshot,
    taken: &'s [Taken],
    /// Messages left after this step, for the replica's freshness.
    left: i64,
    batch: Batch,
    /// Images in the batch that no written batch lists yet.
    images: Vec<i64>,
    dead: Vec<DeadLetter>,
    durable: bool,
    counts: Counts,
}

impl<'s> Apply<'s> {
    fn new(session: &'s Session<'s>, head: Head, snapshot: &'s Snapshot, taken: &'s [Taken], left: i64) -> Self {
        Self {
            session,
            head,
            snapshot,
            taken,
            left,
            batch: Batch::default(),
            images: Vec::new(),
            dead: Vec::new(),
            durable: false,
            counts: Counts::default(),
        }
    }

    fn finish(self) -> (Head, Vec<DeadLetter>, Counts) {
        (self.head, self.dead, self.counts)
    }

    async fn run(&mut self, intake: Intake) -> Result<()> {
        for (table, messages) in &intake.skipped {
            tracing::warn!(table, messages, "skipped: schema.json does not name this table");
            self.counts.skipped += messages;
        }
        self.dead = intake.dead;
        self.batch = intake.batch;
        self.images = intake.images;
        for name in &intake.truncated {
            self.truncate(name).await?;
        }
        for (name, keys) in &intake.marks {
            if let Some(source) = self.session.sources.get(name) {
                self.read(source, keys).await?;
            }
        }
        self.flush(true).await
    }

    /// Reads `keys` and puts their rows into the batch. A key that Postgres cannot even compare is
    /// found by halving.
    async fn read(&mut self, source: &SourceTable, keys: &[MarkedKey]) -> Result<()> {
        let mut todo: Vec<&[MarkedKey]> = keys.chunks(READ_KEYS).rev().collect();
        while let Some(chunk) = todo.pop() {
            match self.read_chunk(source, chunk).await {
                Err(e) if is_data_error(&e) => {
                    self.session.client.batch_execute("rollback to savepoint pgflume_read").await?;
                    match chunk {
                        [key] => self.bury_key(&source.table, key, "source", e.to_string()),
                        _ => {
                            let (left, right) = chunk.split_at(chunk.len() / 2);
                            todo.extend([right, left]);
                        }
                    }
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn read_chunk(&mut self, source: &SourceTable, keys: &[MarkedKey]) -> Result<()> {
        let columns: ColumnSet = (0..source.table.columns.len()).collect();
        let client = &self.session.client;
        let savepoint = client.batch_execute("savepoint pgflume_read");
        let (savepoint, stream) = futures_util::join!(savepoint, source::read(client, source, keys));
        savepoint?;
        let mut stream = stream?;
        while let Some(row) = stream.try_next().await? {
            let found = source::decode(source, &row)?;
            self.put(source, &columns, found);
            if self.is_full() {
                self.flush(false).await?;
            }
        }
        drop(stream);
        client.batch_execute("release savepoint pgflume_read").await?;
        Ok(())
    }

    fn put(&mut self, source: &SourceTable, columns: &ColumnSet, found: source::Found) {
        let table = &source.table;
        let key = match found.key {
            Ok(key) => key,
            Err(unfit) => return self.bury_key(table, &found.marked, "value", unfit.to_string()),
        };
        match found.row {
            None => self.batch.set_gone(table, key),
            Some(Err(unfit)) => self.bury_key(table, &found.marked, "value", unfit.to_string()),
            Some(Ok((own, cells))) => {
                if own != key {
                    self.batch.set_gone(table, key);
                }
                self.batch.set_row(table, own, columns, cells);
            }
        }
    }

    fn bury_key(&mut self, table: &Arc<Table>, key: &MarkedKey, class: &'static str, reason: String) {
        tracing::error!(table = table.name, class, reason, "a marked key becomes a dead letter");
        self.dead.push(DeadLetter {
            reason,
            class,
            table: Some(table.name.clone()),
            key: Some(key.iter().cloned().map(Some).collect()),
            msg_id: None,
            message: None,
        });
    }

    /// A truncated table: emptied if the source is empty at this snapshot; else every key that the
    /// replica has is looked up, because rows that came since have marks of their own.
    async fn truncate(&mut self, name: &str) -> Result<()> {
        let Some(source) = self.session.sources.get(name) else {
            return Ok(());
        };
        if source::is_empty(&self.session.client, source).await? {
            self.batch.empty_table(&source.table);
            return Ok(());
        }
        tracing::warn!(table = name, "truncated and filled again: the replica's keys are compared with the source");
        let mut after: Option<Key> = None;
        loop {
            let page = self.session.replica.keys_after(&source.table, after.as_ref(), SWEEP_KEYS).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            let keys: Vec<MarkedKey> =
                page.iter().filter_map(|key| key.iter().map(crate::value::Cell::to_postgres_text).collect()).collect();
            self.read(source, &keys).await?;
        }
    }

    fn is_full(&self) -> bool {
        self.batch.rows() >= BATCH_ROWS || self.batch.bytes() >= BATCH_BYTES
    }

    /// Writes what has been collected.
    async fn flush(&mut self, last: bool) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        if !self.durable {
            let session = self.session;
            source::ensure_durable(&session.client, &session.worker.postgres, &self.snapshot.lsn).await?;
            self.durable = true;
        }
        let (emptied, items) = self.batch.take();
        let work = Work { emptied, range: 0..items.len(), items: Arc::new(items), ..Work::default() };
        self.write(work, last).await
    }

    /// Writes a batch; if the target rejects it, halves it until the offending row stands alone.
    /// The images of the step are listed with the last part, when all of them are applied.
    async fn write(&mut self, work: Work, last: bool) -> Result<()> {
        let mut todo = vec![work];
        while let Some(work) = todo.pop() {
            let images = if todo.is_empty() { std::mem::take(&mut self.images) } else { Vec::new() };
            let freshness = Freshness {
                caught_up_at: (last && todo.is_empty() && self.left == 0).then(|| self.snapshot.at.clone()),
                queued: self.left,
            };
            match self.write_one(&work, images.clone(), &freshness).await {
                Err(e) if e.class() == Class::Reject && work.range.len() > 1 => {
                    tracing::warn!(error = %e, batch.rows = work.range.len(), "the target rejects the batch; it is halved");
                    self.images.extend(images);
                    let middle = work.range.start + work.range.len() / 2;
                    let left = Work { range: work.range.start..middle, ..work.clone() };
                    let right = Work { range: middle..work.range.end, emptied: Vec::new(), ..work };
                    todo.extend([right, left]);
                }
                Err(e) if e.class() == Class::Reject && work.range.len() == 1 => {
                    self.images.extend(images);
                    self.bury_item(&work.items()[0], &e);
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn write_one(&mut self, work: &Work, images: Vec<i64>, freshness: &Freshness) -> Result<()> {
        let started = Instant::now();
        let entry = Entry {
            head: self.head.next(),
            parent: self.head.token.clone(),
            xid: self.snapshot.xid.clone(),
            lsn: self.snapshot.lsn.clone(),
            images,
        };
        self.session.replica.apply(&self.head, &entry, freshness, work.clone()).await?;
        self.head = entry.head;
        self.counts.rows += work.range.len() as u64;
        self.counts.batches += 1;
        tracing::info!(
            batch.seq = self.head.seq,
            batch.rows = work.range.len(),
            apply_ms = started.elapsed().as_millis() as u64,
            "batch applied"
        );
        Ok(())
    }

    /// The one row that the target does not take: its key waits, or for images the messages.
    fn bury_item(&mut self, item: &Item, error: &Error) {
        tracing::error!(table = item.table.name, error = %error, "the target rejects this row; it becomes a dead letter");
        let letter = |key, message: Option<&Taken>| DeadLetter {
            reason: error.to_string(),
            class: "target",
            table: Some(item.table.name.clone()),
            key,
            msg_id: message.map(|m| m.msg_id),
            message: message.and_then(raw),
        };
        if item.images.is_empty() {
            let key = item.key.iter().map(crate::value::Cell::to_postgres_text).collect();
            self.dead.push(letter(Some(key), None));
        }
        for msg_id in &item.images {
            let message = self.taken.iter().find(|m| m.msg_id == *msg_id);
            self.dead.push(letter(None, message));
        }
        self.images.retain(|id| !item.images.contains(id));
    }
}

/// What one key's data causes, as against what concerns the whole table: SQLSTATE classes 22 (data
/// exception) and 54 (program limit exceeded).
fn is_data_error(error: &Error) -> bool {
    error.sql_state().is_some_and(|s| s.code().starts_with("22") || s.code().starts_with("54"))
}
