//! The applying half of a step: writes batches to the replica, each from the head that the one before
//! left. A batch that the target rejects is halved until the offending row stands alone and becomes a
//! dead letter. Knows nothing of Postgres but what the ledger keeps.

use super::rivals::{self, Written};
use super::taken_again::TakenAgain;
use crate::core::batch::Item;
use crate::core::error::{Class, Error, Result};
use crate::core::message::Message;
use crate::core::position::{Entry, Head, Provenance};
use crate::core::value::Cell;
use crate::core::{failpoint, message};
use crate::postgres::books::dead_letters::{DeadLetter, Refusal, Supersedable, Superseded};
use crate::postgres::books::progress::Snapshot;
use crate::postgres::queue::Taken;
use crate::replica::head::Freshness;
use crate::replica::{Encoded, Work, head};
use crate::sync::chunk::Chunk;
use crate::sync::session::Session;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

/// Applies.
pub(in crate::sync) struct Writer<'s> {
    session: &'s Session<'s>,
    snapshot: &'s Snapshot,
    /// Dead letters that wait, and those of this step, of which newer states may come.
    dead_letters: Supersedable,
    own_dead_letters: Supersedable,
    /// When the first row was rejected.
    rejecting_since: Option<Instant>,
    written: Written,
    taken_again: TakenAgain,
    report: Applied,
}

/// What a writer has done.
pub(in crate::sync) struct Applied {
    /// Where the replica is.
    pub head: Head,
    /// The position that is acknowledged: the ledger keeps all that lies after it.
    acknowledged: i64,
    /// The tokens of the batches.
    pub tokens: Vec<String>,
    /// Tables of which rows were written that no message names.
    pub copied: BTreeSet<String>,
    /// Rows that the target does not take.
    pub dead: Vec<DeadLetter>,
    /// Older dead letters of keys that were applied now.
    pub superseded: Superseded,
    /// Keys written or deleted.
    pub rows: u64,
    /// libSQL transactions.
    pub batches: u64,
    /// Rows were removed that are marked, and wait on the queue.
    pub has_displaced: bool,
}

impl<'s> Writer<'s> {
    /// A writer from `head` on.
    pub fn new(session: &'s Session<'s>, snapshot: &'s Snapshot, head: Head) -> Self {
        let acknowledged = head.seq;
        let report = Applied {
            head,
            acknowledged,
            tokens: Vec::new(),
            copied: BTreeSet::new(),
            dead: Vec::new(),
            superseded: Superseded::default(),
            rows: 0,
            batches: 0,
            has_displaced: false,
        };
        Self::resume(session, snapshot, report)
    }

    /// A writer that goes on after another of the same step.
    pub fn resume(session: &'s Session<'s>, snapshot: &'s Snapshot, report: Applied) -> Self {
        Self {
            session,
            snapshot,
            dead_letters: session.dead_letters.clone(),
            own_dead_letters: Supersedable::default(),
            rejecting_since: None,
            written: Written::default(),
            taken_again: TakenAgain::default(),
            report,
        }
    }

    /// What it has done.
    pub fn finish(mut self) -> Applied {
        self.report.superseded = self.dead_letters.superseded();
        self.report.dead = self.own_dead_letters.without_superseded(self.report.dead);
        self.report
    }

    pub async fn run(mut self, mut chunks: Receiver<Chunk>) -> Result<Applied> {
        let session = self.session;
        let mut next = receive(session, &mut chunks).await;
        while let Some((chunk, encoded)) = next {
            // The next one is made ready meanwhile.
            let ready = async { Ok(receive(session, &mut chunks).await) };
            ((), next) = futures_util::try_join!(self.write(chunk, encoded), ready)?;
        }
        Ok(self.finish())
    }

    /// Writes a chunk, in parts if it must be. Its images are listed with the last part.
    pub async fn write(&mut self, chunk: Chunk, encoded: Encoded) -> Result<()> {
        let (images, items) = (chunk.images, chunk.items);
        let range = 0..items.len();
        let mut todo = vec![Work { items: items.clone(), range, encoded, ..Work::default() }];
        // On its own where rows follow: no row that is rejected may take it along.
        if !chunk.emptied.is_empty() {
            let empty = Work { emptied: chunk.emptied, ..Work::default() };
            if todo[0].range.is_empty() { todo[0] = empty } else { todo.push(empty) }
        }
        let mut is_recorded = false;
        while let Some(work) = todo.pop() {
            let is_last = todo.is_empty();
            let listed = if is_last { self.taken_again.without(&items, &images) } else { Vec::new() };
            let freshness = Freshness {
                caught_up_at: (is_last && chunk.caught_up && !self.report.has_displaced)
                    .then(|| self.snapshot.at.clone()),
                queued: chunk.left,
            };
            match self.write_making_way(&work, listed, &chunk.provenance, freshness).await {
                Err(e) if e.is_of_schema() || is_emptying(&work, &e) => todo.extend(by_table(work, e)?),
                Err(e) if e.class() == Class::Reject && work.range.len() > 1 => {
                    tracing::warn!(error = %e, batch.rows = work.range.len(), "the target rejects the batch; it is halved");
                    let halves = halves(work);
                    // Where it took nothing so far, the bad rows may just have the lowest keys.
                    if self.session.worker.rejected.is_doubtful() {
                        todo.extend(halves)
                    } else {
                        todo.extend(halves.into_iter().rev())
                    }
                }
                Err(e) if e.class() == Class::Reject && work.range.len() == 1 => {
                    let item = &work.items()[0];
                    self.check_target().await?;
                    let since = *self.rejecting_since.get_or_insert_with(Instant::now);
                    if self.session.worker.rejected.note(&item.table.name, since.elapsed(), &e)? {
                        todo.reverse();
                    }
                    self.dead_letter(item, &chunk.taken, &e);
                    self.taken_again.reject(item);
                }
                other => {
                    other?;
                    is_recorded = is_last;
                }
            }
        }
        // The last row was rejected: what is applied has to be in the ledger all the same.
        if !is_recorded {
            let at = (chunk.caught_up && !self.report.has_displaced).then(|| self.snapshot.at.clone());
            let freshness = Freshness { caught_up_at: at, queued: chunk.left };
            let images = self.taken_again.without(&items, &images);
            self.write_one(&Work::default(), images, &chunk.provenance, &freshness).await?;
        }
        Ok(())
    }

    /// Writes it; where it collides with rows that are to change themselves, once more with those out of the way.
    async fn write_making_way(
        &mut self,
        work: &Work,
        images: Vec<i64>,
        provenance: &Arc<Provenance>,
        mut freshness: Freshness,
    ) -> Result<()> {
        let error = match self.write_one(work, images.clone(), provenance, &freshness).await {
            Err(e) if rivals::is_collision(&e) => e,
            other => return other,
        };
        let Some(cleared) = Box::pin(rivals::make_way(self.session, &self.written, work)).await? else {
            return Err(error);
        };
        if !cleared.displaced.is_empty() {
            (self.report.has_displaced, freshness.caught_up_at) = (true, None);
        }
        self.write_one(&cleared.work, images, provenance, &freshness).await?;
        cleared.note(&self.session.worker.displaced);
        Ok(())
    }

    async fn write_one(
        &mut self,
        work: &Work,
        images: Vec<i64>,
        provenance: &Arc<Provenance>,
        freshness: &Freshness,
    ) -> Result<()> {
        let started = Instant::now();
        let entry = Entry {
            head: self.report.head.next(self.session.worker.chance.token()),
            parent: self.report.head.token.clone(),
            xid: self.snapshot.xid.clone(),
            lsn: self.snapshot.lsn.clone(),
            images,
            provenance: provenance.clone(),
        };
        failpoint::reach(failpoint::SENT);
        let size = (work.range.len(), work.items().iter().map(Item::bytes).sum());
        let applied = self
            .session
            .replica
            .apply(&self.report.head, &entry, self.report.acknowledged, freshness, work.clone())
            .await;
        self.session.worker.budget.learn(size, started.elapsed(), applied.as_ref().err());
        applied?;
        failpoint::reach(failpoint::APPLIED);
        if provenance.is_empty() {
            let tables = work.emptied.iter().chain(work.items().iter().map(|item| &item.table));
            self.report.copied.extend(tables.map(|table| table.name.clone()));
        }
        self.session.worker.rejected.took(work.items());
        self.written.add(&self.session.replica, work.items());
        work.items().iter().for_each(|item| self.session.worker.displaced.forget(item));
        // What messages name is superseded where they are taken.
        if provenance.is_empty() && !self.dead_letters.is_empty() {
            work.items().iter().for_each(|item| self.dead_letters.cover_item(item));
        }
        if !self.own_dead_letters.is_empty() {
            work.items().iter().for_each(|item| self.own_dead_letters.cover_item(item));
        }
        self.report.tokens.push(entry.head.token.clone());
        self.report.head = entry.head;
        self.report.rows += work.range.len() as u64;
        self.report.batches += 1;
        let apply_ms = started.elapsed().as_millis() as u64;
        log_step!(
            self.session,
            batch.seq = self.report.head.seq,
            batch.rows = work.range.len(),
            apply_ms,
            "batch applied"
        );
        Ok(())
    }

    /// A failure counts against a row only while the target works.
    async fn check_target(&self) -> Result<()> {
        if self.session.replica.head().await?.as_ref() == Some(&self.report.head) {
            Ok(())
        } else {
            Err(head::fenced())
        }
    }

    /// The one row that the target does not take: its key waits, or for images the messages.
    fn dead_letter(&mut self, item: &Item, taken: &[Taken], error: &Error) {
        tracing::error!(table = item.table.name, error = %error, "the target rejects this row; it becomes a dead letter");
        let (table, problem) = (&item.table.name, error.to_string());
        self.own_dead_letters.cover_item(item);
        self.session.worker.displaced.forget(item);
        let mut dead_letters = Vec::new();
        if item.images.is_empty() {
            let key = item.key.iter().map(Cell::to_postgres_text).collect();
            dead_letters.push(DeadLetter::of_key(table, key, Refusal::Target, &problem));
        }
        // A message may have two keys, and both be rejected.
        let is_told = |id: i64| self.report.dead.iter().any(|letter| letter.msg_id == Some(id));
        for message in taken.iter().filter(|m| item.images.contains(&m.msg_id) && !is_told(m.msg_id)) {
            let keys = match message::parse(message.text.as_deref().unwrap_or_default(), &self.session.schema) {
                Ok(Message::Image(_, _, keys)) => keys,
                _ => Vec::new(),
            };
            dead_letters.push(DeadLetter::of_message(Some(table), keys, message, Refusal::Target, &problem));
        }
        for letter in dead_letters {
            self.own_dead_letters.watch(self.report.dead.len(), &letter);
            self.report.dead.push(letter);
        }
    }
}

/// The next chunk, with its items as the replica wants them.
async fn receive(session: &Session<'_>, chunks: &mut Receiver<Chunk>) -> Option<(Chunk, Encoded)> {
    let chunk = chunks.recv().await?;
    let encoded = session.replica.encode(&chunk.items).await;
    Some((chunk, encoded))
}

/// Both halves.
fn halves(work: Work) -> [Work; 2] {
    let middle = work.range.start + work.range.len() / 2;
    split(work, middle)
}

fn split(work: Work, at: usize) -> [Work; 2] {
    let left = Work { range: work.range.start..at, ..work.clone() };
    let right = Work { range: at..work.range.end, ..work };
    [left, right]
}

/// Whether the target does not let a table be emptied.
fn is_emptying(work: &Work, error: &Error) -> bool {
    error.class() == Class::Reject && !work.emptied.is_empty()
}

/// The tables are not what they should be: parts of one table each, or the error where it is one already.
fn by_table(work: Work, error: Error) -> Result<Vec<Work>> {
    let items = work.items();
    let border = items.iter().position(|item| item.table.name != items[0].table.name);
    match (border, &work.emptied[..]) {
        (Some(border), _) => {
            let at = work.range.start + border;
            Ok(split(work, at).into())
        }
        (None, [_, _, ..]) => {
            Ok(work.emptied.iter().map(|t| Work { emptied: vec![t.clone()], ..Work::default() }).collect())
        }
        (None, [table]) if error.class() == Class::Reject => Err(Error::halt(format!(
            "the replica does not let its table {:?} be emptied ({error}): correct the replica's table (a trigger?); its changes wait on the queue",
            table.name
        ))
        .of_target_table(&table.name)),
        (None, [table]) => Err(error.of_target_table(&table.name)),
        (None, []) => match items.first() {
            Some(item) => Err(error.of_target_table(&item.table.name)),
            None => Err(error),
        },
    }
}
