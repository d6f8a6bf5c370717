//! The applying half of a step: writes batches to the replica, each from the head that the one before
//! left. A batch that the target rejects is halved until the offending row stands alone and becomes a
//! dead letter. Knows nothing of Postgres but what the ledger keeps.

use super::rivals::{self, Written};
use super::taken_again::TakenAgain;
use crate::core::batch::Item;
use crate::core::error::{Error, ErrorKind, Result, Side};
use crate::core::halving::halves;
use crate::core::message::Message;
use crate::core::position::{Entry, Head};
use crate::core::value::Cell;
use crate::core::{failpoint, message};
use crate::postgres::books::dead_letters::{DeadLetter, Refusal};
use crate::postgres::books::progress::Snapshot;
use crate::postgres::queue::Taken;
use crate::replica::freshness::Freshness;
use crate::replica::{Encoded, Work, head};
use crate::sync::chunk::Chunk;
use crate::sync::dead_letters::DeadLetters;
use crate::sync::session::Session;
use std::collections::BTreeSet;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

/// Applies.
pub(in crate::sync) struct Writer<'s> {
    session: &'s Session<'s>,
    snapshot: &'s Snapshot,
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
    /// Rows that the target does not take, and older dead letters of keys that were applied now: of all writers of the
    /// step, until somebody takes them.
    pub dead_letters: DeadLetters,
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
            dead_letters: DeadLetters::new(session.dead_letters.clone()),
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
            rejecting_since: None,
            written: Written::default(),
            taken_again: TakenAgain::default(),
            report,
        }
    }

    /// What it has done.
    pub fn finish(self) -> Applied {
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
        let mut todo = parts_of(&chunk, encoded);
        let mut is_recorded = false;
        while let Some(work) = todo.pop() {
            let is_last = todo.is_empty();
            match self.write_making_way(&work, &chunk, is_last).await {
                Ok(()) => is_recorded = is_last,
                Err(error) => self.go_on_after(error, work, &chunk, &mut todo).await?,
            }
        }
        // The last row was rejected: what is applied has to be in the ledger all the same.
        if !is_recorded {
            self.write_part(&Work::default(), &chunk, true).await?;
        }
        if let Some((taken_at, ages)) = &chunk.arriving {
            let since = taken_at.elapsed().as_secs_f64();
            self.session.worker.figures.arrived(ages.iter().map(|age| age + since));
        }
        Ok(())
    }

    /// Cuts what the target did not take; a row that stands alone becomes a dead letter.
    async fn go_on_after(&mut self, error: Error, work: Work, chunk: &Chunk, todo: &mut Vec<Work>) -> Result<()> {
        match error.kind() {
            ErrorKind::Schema => todo.extend(by_table(work, error)?),
            ErrorKind::Row | ErrorKind::TooLarge => match work.items() {
                _ if !work.emptied.is_empty() => todo.extend(by_table(work, error)?),
                [] => return Err(error),
                [item] => self.reject(&error, item, chunk, todo).await?,
                _ => self.halve(&error, work, todo),
            },
            ErrorKind::Retry
            | ErrorKind::Unknown
            | ErrorKind::Overload
            | ErrorKind::Locked
            | ErrorKind::Overtaken
            | ErrorKind::Table { .. }
            | ErrorKind::WholeSide
            | ErrorKind::Halt => return Err(error),
        }
        Ok(())
    }

    fn halve(&self, error: &Error, work: Work, todo: &mut Vec<Work>) {
        tracing::warn!(error = %error, batch.rows = work.range.len(), "the target rejects the batch; it is halved");
        let [left, right] = halves(&work.range).map(|range| Work { range, ..work.clone() });
        // Where it took nothing so far, the bad rows may just have the lowest keys.
        match self.session.worker.rejected.is_doubtful() {
            true => todo.extend([left, right]),
            false => todo.extend([right, left]),
        }
    }

    async fn reject(&mut self, error: &Error, item: &Item, chunk: &Chunk, todo: &mut [Work]) -> Result<()> {
        self.check_target().await?;
        let since = *self.rejecting_since.get_or_insert_with(Instant::now);
        if self.session.worker.rejected.note(&item.table.name, since.elapsed(), error)? {
            todo.reverse();
        }
        self.dead_letter(item, &chunk.taken, error);
        self.taken_again.reject(item);
        Ok(())
    }

    /// Writes it; where it collides with rows that are to change themselves, once more with those out of the way.
    async fn write_making_way(&mut self, work: &Work, chunk: &Chunk, is_last: bool) -> Result<()> {
        let error = match self.write_part(work, chunk, is_last).await {
            Err(e) if rivals::is_collision(&e) => e,
            other => return other,
        };
        let Some(cleared) = Box::pin(rivals::make_way(self.session, &self.written, work)).await? else {
            return Err(error);
        };
        self.report.has_displaced |= !cleared.displaced.is_empty();
        self.write_part(&cleared.work, chunk, is_last).await?;
        cleared.note(&self.session.worker.displaced);
        Ok(())
    }

    /// One libSQL transaction. The last one of a chunk says what the chunk brings the replica to.
    async fn write_part(&mut self, work: &Work, chunk: &Chunk, is_last: bool) -> Result<()> {
        let started = Instant::now();
        let entry = self.entry(chunk, is_last);
        let is_caught_up = is_last && chunk.caught_up && !self.report.has_displaced;
        let freshness = Freshness {
            checked_at: Some(self.snapshot.at.clone()),
            is_caught_up,
            is_drained: false,
            queued: chunk.left,
            seen: self.snapshot.seen.clone(),
        };
        failpoint::reach(failpoint::SENT);
        let size = (work.range.len(), work.items().iter().map(Item::bytes).sum());
        let (replica, head, sync) = (&self.session.replica, &self.report.head, self.session.feeds());
        let applied = replica.apply(head, &entry, self.report.acknowledged, sync, &freshness, work.clone()).await;
        self.session.worker.budget.learn(size, started.elapsed(), applied.as_ref().err());
        applied?;
        self.session.worker.told.tell();
        self.session.worker.figures.took(|counts| &mut counts.apply, started.elapsed());
        self.session.worker.figures.wrote(work.items());
        failpoint::reach(failpoint::APPLIED);
        self.note(work, chunk.provenance.is_empty());
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

    /// What the ledger keeps of the next batch.
    fn entry(&mut self, chunk: &Chunk, is_last: bool) -> Entry {
        Entry {
            head: self.report.head.next(self.session.worker.chance.token()),
            parent: self.report.head.token.clone(),
            xid: self.snapshot.xid.clone(),
            lsn: self.snapshot.lsn.clone(),
            images: if is_last { self.taken_again.without(&chunk.items, &chunk.images) } else { Vec::new() },
            provenance: chunk.provenance.clone(),
        }
    }

    /// This is in the replica now.
    fn note(&mut self, work: &Work, is_unnamed: bool) {
        if is_unnamed {
            let tables = work.emptied.iter().chain(work.items().iter().map(|item| &item.table));
            self.report.copied.extend(tables.map(|table| table.name.clone()));
        }
        self.session.worker.rejected.took(work.items());
        self.written.add(&self.session.replica, work.items());
        work.items().iter().for_each(|item| self.session.worker.displaced.forget(item));
        // What messages name is superseded where they are taken.
        if is_unnamed {
            self.report.dead_letters.cover_waiting(work.items());
        }
        self.report.dead_letters.cover_own(work.items());
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
        self.report.dead_letters.cover_own(std::slice::from_ref(item));
        self.session.worker.displaced.forget(item);
        if item.images.is_empty() {
            let key = item.key.iter().map(Cell::to_postgres_text).collect();
            self.report.dead_letters.add_supersedable(DeadLetter::of_key(table, key, Refusal::Target, &problem));
        }
        // A message may have two keys, and both be rejected.
        for message in taken.iter().filter(|m| item.images.contains(&m.msg_id)) {
            if self.report.dead_letters.has_message(message.msg_id) {
                continue;
            }
            let keys = match message::parse(message.text.as_deref().unwrap_or_default(), &self.session.schema) {
                Ok(Message::Image(_, _, keys)) => keys,
                _ => Vec::new(),
            };
            let letter = DeadLetter::of_message(Some(table), keys, message, Refusal::Target, &problem);
            self.report.dead_letters.add_supersedable(letter);
        }
    }
}

/// The next chunk, with its items as the replica wants them.
async fn receive(session: &Session<'_>, chunks: &mut Receiver<Chunk>) -> Option<(Chunk, Encoded)> {
    let chunk = chunks.recv().await?;
    let encoded = session.replica.encode(&chunk.items).await;
    Some((chunk, encoded))
}

/// All of a chunk; what is emptied on its own where rows follow: no row that is rejected may take it along.
fn parts_of(chunk: &Chunk, encoded: Encoded) -> Vec<Work> {
    let rows = Work { items: chunk.items.clone(), range: 0..chunk.items.len(), encoded, ..Work::default() };
    if chunk.emptied.is_empty() {
        return vec![rows];
    }
    let emptied = Work { emptied: chunk.emptied.clone(), ..Work::default() };
    if rows.range.is_empty() { vec![emptied] } else { vec![rows, emptied] }
}

/// The tables are not what they should be: parts of one table each, or the error where it is one already.
fn by_table(work: Work, error: Error) -> Result<Vec<Work>> {
    let items = work.items();
    let border = items.iter().position(|item| item.table.name != items[0].table.name);
    match (border, &work.emptied[..]) {
        (Some(border), _) => {
            let at = work.range.start + border;
            let [left, right] = [work.range.start..at, at..work.range.end].map(|range| Work { range, ..work.clone() });
            Ok(vec![left, right])
        }
        (None, [_, _, ..]) => {
            Ok(work.emptied.iter().map(|t| Work { emptied: vec![t.clone()], ..Work::default() }).collect())
        }
        (None, [table]) if error.is_rejection() => Err(Error::halt(format!(
            "the replica does not let its table {:?} be emptied ({error}): correct the replica's table (a trigger?); its changes wait on the queue",
            table.name
        ))
        .of_table(&table.name, Side::Target)),
        (None, [table]) => Err(error.of_table(&table.name, Side::Target)),
        (None, []) => match items.first() {
            Some(item) => Err(error.of_table(&item.table.name, Side::Target)),
            None => Err(error),
        },
    }
}
