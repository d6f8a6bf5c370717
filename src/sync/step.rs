//! One step: a Postgres transaction around libSQL transactions. Lock, take, read, apply, acknowledge,
//! in this order; acknowledging comes last and is the commit. Whatever fails before leaves everything
//! on the queue. Taking and reading ([`reader`](crate::sync::take::reader)) run ahead of applying
//! ([`writer`](crate::sync::apply::writer)) by one batch.

use super::compare::{Comparison, Finished};
use super::drained::Drained;
use super::pairing::Ready;
use super::session::Session;
use crate::core::error::{ErrorKind, Result, Side};
use crate::core::failpoint::{self, Rule};
use crate::core::position::Head;
use crate::core::schema::Table;
use crate::postgres::awake::awake;
use crate::postgres::books::dead_letters::{DeadLetter, Superseded};
use crate::postgres::books::progress::Snapshot;
use crate::postgres::books::rebuilds::{Phase, Rebuild};
use crate::postgres::catalog::SourceTable;
use crate::sync::apply::writer::{Applied, Writer};
use crate::sync::take::ahead::Ahead;
use crate::sync::take::reader::{Ended, Reader, ReaderReport};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Batches that are read and not yet being applied: each may hold `budget::MOST_BYTES`.
const READ_AHEAD: usize = 1;

/// How long a replica is taken to be the one that it was while nothing is written to it.
const LOOK_AGAIN: Duration = Duration::from_secs(4);

/// Tables that are asked at once whether they have rows.
const LOOKED_AT: usize = 500;

/// How a step began.
pub(super) enum Begun {
    /// At this snapshot, with the replica at this position, and what was taken already.
    At(Box<Snapshot>, Head, Option<Box<Ahead>>),
    /// Not at all.
    Not(Outcome),
}

/// How a step ended.
pub(super) enum Outcome {
    /// Another worker is draining this queue.
    Busy,
    /// Nothing was taken, but what stood in the way is gone.
    Again,
    /// Messages were taken, or pages of tables that are rebuilt, and acknowledged.
    Took {
        /// Nothing was left at the step's snapshot.
        caught_up: bool,
    },
    /// Only tables that are rebuilt are left, and they have had their rows for now.
    Throttled,
    /// Nothing to take; the notes that other callers had left by then.
    Empty {
        /// Their number.
        calls: i64,
    },
}

impl Session<'_> {
    /// Runs one step.
    pub(super) async fn step(
        &mut self,
        comparison: Option<&mut Comparison>,
        deadline: Instant,
        done: &mut Drained,
    ) -> Result<Outcome> {
        let error = match self.try_step(comparison, deadline, done).await {
            Err(error) => error,
            done => return done,
        };
        match error.kind() {
            // A session that knows more finds out whose fault it is.
            ErrorKind::Table { .. } if self.knows_the_past => return Err(error),
            ErrorKind::Overtaken => self.link.rollback().await?,
            ErrorKind::Locked if self.leave_locked_aside().await? => {}
            ErrorKind::Table { name, side } => {
                self.link.rollback().await?;
                self.pause(name, &error.to_string(), *side).await?;
            }
            ErrorKind::Locked
            | ErrorKind::Retry
            | ErrorKind::Unknown
            | ErrorKind::Overload
            | ErrorKind::TooLarge
            | ErrorKind::Row
            | ErrorKind::Schema
            | ErrorKind::WholeSide
            | ErrorKind::Halt => return Err(error),
        }
        Ok(Outcome::Again)
    }

    async fn try_step(
        &mut self,
        mut comparison: Option<&mut Comparison>,
        deadline: Instant,
        done: &mut Drained,
    ) -> Result<Outcome> {
        let started = Instant::now();
        let (snapshot, head, ahead) = match self.begin(done).await? {
            Begun::At(snapshot, head, ahead) => (snapshot, head, ahead),
            Begun::Not(outcome) => return Ok(outcome),
        };
        let running = Box::pin(awake(|| self.link.pulse(), self.run(&snapshot, head, ahead, deadline)));
        let (mut read, mut applied) = self.beside.unless_waited_for(&snapshot.xid, running).await?;
        if let Ended::Unprepared(tables) = read.ended {
            // What was applied stays in the replica's ledger; the next step acknowledges it.
            self.link.rollback().await?;
            self.prepare_to_read(tables).await?;
            return Ok(Outcome::Again);
        }
        // Before anything is compared: it looks at the dead letters.
        let dead = self.keep_dead_letters(&mut read, &mut applied).await?;
        let Finished { applied, has_saved } =
            self.compare(comparison.as_deref_mut(), &snapshot, &read, applied).await?;

        let is_throttled = read.messages == 0 && !self.pending.is_empty() && self.worker.throttle.rows().is_none();
        if read.messages == 0 && read.rebuilt.is_empty() && !has_saved {
            self.head = Some(applied.head);
            self.queued = read.left;
            self.tell_unchanged(&snapshot, &read).await?;
            let is_comparing = comparison.is_some_and(|comparison| !comparison.is_done());
            return self.end_without_change(&snapshot, is_throttled, is_comparing).await;
        }
        let caught_up = read.is_caught_up() && !applied.has_displaced;
        let rebuilt = read.rebuilt.clone();
        let (swept, is_cut_aside) = (read.swept.clone(), read.has_taken_all && !caught_up && !applied.has_displaced);
        self.acknowledge(&snapshot, read, applied, dead, done).await?;
        if caught_up && self.is_whole(&rebuilt) {
            self.worker.told.see(snapshot.seen.clone());
        }
        self.tell_acknowledged(&rebuilt).await;
        let told = match (caught_up, is_cut_aside) {
            (false, false) => self.cut_impatiently(&snapshot, &rebuilt, &swept).await,
            (_, is_cut_aside) => {
                self.worker.impatience.calm();
                if is_cut_aside { self.cut_aside(&snapshot, &rebuilt, &swept).await.map(drop) } else { Ok(()) }
            }
        };
        if let Err(e) = told {
            tracing::warn!(error = %e, "clients are not told of what was just applied; they will be");
        }
        self.worker.figures.took(|counts| &mut counts.step, started.elapsed());
        log_step!(
            self,
            queue.remaining = self.queued,
            step_ms = started.elapsed().as_millis() as u64,
            "step acknowledged"
        );
        self.prepare_to_rebuild().await?;
        Ok(if is_throttled { Outcome::Throttled } else { Outcome::Took { caught_up } })
    }

    /// Writes the dead letters of both halves, and what newer states have done to older ones. The tables of
    /// the messages and keys that became dead letters, where known.
    async fn keep_dead_letters(
        &mut self,
        read: &mut ReaderReport,
        applied: &mut Applied,
    ) -> Result<Vec<Option<String>>> {
        let (rejected, superseded) = applied.dead_letters.take();
        // Older ones first: the same may be told anew.
        self.supersede(&read.superseded).await?;
        self.supersede(&superseded).await?;
        let dead: Vec<DeadLetter> = read.dead.drain(..).chain(rejected).collect();
        let link = if Rule::LettersWithStep.holds() { self.link.as_ref() } else { self.other().await? };
        link.dead_letter(&dead, &self.dead_letters).await?;
        if !dead.is_empty() {
            failpoint::reach(failpoint::BURIED);
        }
        let unknown = std::iter::repeat_n(None, read.large as usize);
        Ok(dead.into_iter().map(|letter| letter.table).chain(unknown).collect())
    }

    /// When the replica has last said that it is the one which the last step left, and there; `None` if it is not. A
    /// server is asked now and then: what is written there says so by itself.
    pub(super) async fn still_at(&self, head: &Head) -> Result<Option<Instant>> {
        if self.seen.elapsed() < LOOK_AGAIN {
            return self.replica.look().await.map(|()| Some(self.seen));
        }
        let now = Instant::now();
        Ok(self.replica.is_still_at(head).await?.then_some(now))
    }

    /// Opens the transaction, and goes on in it.
    async fn begin(&mut self, done: &mut Drained) -> Result<Begun> {
        if let Some(begun) = self.begin_ahead().await? {
            return Ok(begun);
        }
        if !self.begin_locked().await? {
            return Ok(Begun::Not(Outcome::Again));
        }
        // One round trip: the second is sent behind the first; but for one that failed because another worker had it.
        let (locked, seen) = {
            let locking = async {
                if Rule::SingleFlight.holds() { self.link.lock().await } else { self.link.look().await.map(Some) }
            };
            if self.was_busy {
                (locking.await?, None)
            } else {
                let (locked, seen) = futures_util::join!(locking, self.link.fingerprint());
                (locked?, Some(seen))
            }
        };
        self.was_busy = locked.is_none();
        let Some(snapshot) = locked else {
            self.link.rollback().await?;
            return Ok(Begun::Not(Outcome::Busy));
        };
        failpoint::reach(failpoint::LOCKED);
        let (beside, xid) = (self.beside.clone(), snapshot.xid.clone());
        beside.begin();
        beside.unless_waited_for(&xid, Box::pin(self.go_on_at(snapshot, seen, done))).await
    }

    /// Brings both sides to where the step may go on.
    async fn go_on_at(
        &mut self,
        snapshot: Snapshot,
        seen: Option<Result<String>>,
        done: &mut Drained,
    ) -> Result<Begun> {
        self.notes = snapshot.calls;
        if snapshot.has_losses && Rule::Losses.holds() {
            self.heal_losses().await?;
            return Ok(Begun::Not(Outcome::Again));
        }
        let seen = match seen {
            Some(seen) => seen?,
            None => self.link.fingerprint().await?,
        };
        let has_changed = self.has_catalog_changed(&seen).await?;
        self.knows_the_past = false;
        if has_changed {
            return Ok(Begun::Not(Outcome::Again));
        }
        let Ready::At(head) = self.find_head(&snapshot, done).await? else {
            return Ok(Begun::Not(Outcome::Again));
        };
        if self.is_outgrown(&snapshot) {
            self.reshape(head).await?;
            return Ok(Begun::Not(Outcome::Again));
        }
        self.read_books(&snapshot).await?;
        Ok(Begun::At(Box::new(snapshot), head, None))
    }

    /// Whether the replica is kept by other definitions than this session's.
    pub(super) fn is_outgrown(&self, snapshot: &Snapshot) -> bool {
        snapshot.definition_version.as_deref() != Some(self.definition_version.hash())
            || self.lacks_columns
            || self.tables.created().next().is_some()
    }

    /// Whether `head`, where the last step left this replica, is what was acknowledged.
    pub(super) fn is_acknowledged(&self, snapshot: &Snapshot, head: &Head) -> bool {
        snapshot.progress.address.as_ref() == Some(&self.address) && snapshot.progress.head.as_ref() == Some(head)
    }

    /// Where the replica is: where the last step left it, or where both sides agree that it is.
    async fn find_head(&mut self, snapshot: &Snapshot, done: &mut Drained) -> Result<Ready> {
        if let Some(head) = self.head.take()
            && self.is_acknowledged(snapshot, &head)
            && let Some(seen) = self.still_at(&head).await?
        {
            self.seen = seen;
            return Ok(Ready::At(head));
        }
        self.worker.told.unsee();
        self.replica.doubt_cut();
        self.agree(snapshot, done).await
    }

    /// What the books say that this step goes by.
    pub(super) async fn read_books(&mut self, snapshot: &Snapshot) -> Result<()> {
        // Dead letters that others drop meanwhile do no harm; what is newer has another last id.
        if self.dead_letters_as_of != snapshot.dead {
            self.dead_letters = self.link.supersedable().await?;
            self.dead_letters_as_of.clone_from(&snapshot.dead);
        }
        self.pending = match snapshot.is_rebuilding {
            true => self.link.pending().await?,
            false => Vec::new(),
        };
        // Another worker's schema.json may have more.
        self.pending.retain(|r| self.sources.contains_key(&r.name));
        self.look_for_rows().await
    }

    /// Which marked tables that are to be copied have no row yet, before this step brings any: whatever comes from now on
    /// newer marks keep right, so nothing has to be swept out of them. What came as an image may go without a message.
    async fn look_for_rows(&mut self) -> Result<()> {
        self.empty.clear();
        let mut pending = std::mem::take(&mut self.pending);
        let is_asked = |rebuild: &&mut Rebuild| {
            let has_begun = rebuild.phase != Phase::Copy || rebuild.cursor.is_some() || rebuild.fresh;
            let is_known = self.filled.contains(&rebuild.name) || self.tables.is_stuck(&rebuild.name);
            !has_begun && !is_known && self.is_captured(&rebuild.name)
        };
        let new: Vec<&mut Rebuild> = pending.iter_mut().filter(is_asked).take(LOOKED_AT).collect();
        let tables: Vec<&Table> = new.iter().filter_map(|r| Some(&*self.sources.get(&r.name)?.table)).collect();
        let empty = match tables.is_empty() {
            true => Ok(BTreeSet::new()),
            false => self.replica.empty_of(&tables).await,
        };
        let empty = match empty {
            // One of them is not there: the write path finds out which, and pauses it alone.
            Err(e) if *e.kind() == ErrorKind::Schema => BTreeSet::new(),
            other => other?,
        };
        for rebuild in new {
            rebuild.fresh = empty.contains(&rebuild.name);
            if !rebuild.fresh {
                self.filled.insert(rebuild.name.clone());
            }
        }
        self.empty.extend(empty);
        self.pending = pending;
        Ok(())
    }

    /// Compares, where that is asked for and this step has drained everything.
    async fn compare(
        &mut self,
        comparison: Option<&mut Comparison>,
        snapshot: &Snapshot,
        read: &ReaderReport,
        applied: Applied,
    ) -> Result<Finished> {
        let is_drained = read.has_taken_all || !Rule::CompareWhenDrained.holds();
        let is_ready = is_drained && !applied.has_displaced && self.is_rebuilt(read) && !self.tables.is_any_aside();
        match comparison {
            Some(comparison) if is_ready => {
                awake(|| self.link.pulse(), Box::pin(comparison.run(self, snapshot, applied))).await
            }
            _ => Ok(Finished { applied, has_saved: false }),
        }
    }

    /// Nothing is to be committed: why not.
    async fn end_without_change(
        &mut self,
        snapshot: &Snapshot,
        is_throttled: bool,
        is_comparing: bool,
    ) -> Result<Outcome> {
        self.tables.met_none();
        self.link.rollback().await?;
        Ok(match self.prepare_to_rebuild().await? {
            true => Outcome::Again,
            false if is_throttled => Outcome::Throttled,
            false if is_comparing => Outcome::Again,
            false => Outcome::Empty { calls: snapshot.calls },
        })
    }

    /// Whether no table is under way that can be rebuilt: only then is it worth comparing.
    fn is_rebuilt(&self, read: &ReaderReport) -> bool {
        let is_done = |name: &str| read.rebuilt.iter().any(|r| r.name == name && !r.is_under_way());
        self.pending.iter().all(|r| self.tables.is_stuck(&r.name) || !r.is_under_way() || is_done(&r.name))
            && read.swept.is_empty()
    }

    /// Reads and applies side by side.
    async fn run(
        &self,
        snapshot: &Snapshot,
        head: Head,
        ahead: Option<Box<Ahead>>,
        deadline: Instant,
    ) -> Result<(ReaderReport, Applied)> {
        let is_right = Rule::AcknowledgeLast.holds();
        let (sender, receiver) = mpsc::channel(if is_right { READ_AHEAD } else { 1 << 16 });
        let reader = Reader::new(self, snapshot, ahead, sender, deadline);
        let writer = Writer::new(self, snapshot, head);
        if !is_right {
            let read = reader.run().await?;
            self.link.commit().await?;
            return Ok((read, writer.run(receiver).await?));
        }
        // A failed writer makes the reader fail too: its own error is the one to report.
        let (applied, read) = futures_util::join!(Box::pin(writer.run(receiver)), Box::pin(reader.run()));
        applied.and_then(|applied| Ok((read?, applied)))
    }

    /// Dead letters whose keys have newer states.
    pub(super) async fn supersede(&mut self, superseded: &Superseded) -> Result<()> {
        if !superseded.partly.is_empty() {
            self.dead_letters_as_of.clear(); // what they lack by now is noted on the letters only
        }
        let dead_letters = self.link.supersede(superseded).await?;
        if dead_letters > 0 {
            tracing::info!(letters = dead_letters, "dead letters are superseded: their keys have newer states");
        }
        Ok(())
    }

    /// The last thing of a step: its commit makes the taking final.
    async fn acknowledge(
        &mut self,
        snapshot: &Snapshot,
        read: ReaderReport,
        mut applied: Applied,
        dead: Vec<Option<String>>,
        done: &mut Drained,
    ) -> Result<()> {
        let (rejected, superseded) = applied.dead_letters.take();
        self.supersede(&superseded).await?;
        self.link.dead_letter(&rejected, &self.dead_letters).await?;
        if !self.empty.is_empty() {
            let empty: Vec<&str> = self.empty.iter().map(String::as_str).collect();
            self.link.note_empty(&empty).await?;
        }
        for rebuild in &read.rebuilt {
            self.link.record_rebuild(rebuild).await?;
        }
        for name in &read.swept {
            self.link.schedule_sweep(name).await?;
        }
        if let (Some(window), Some(after), false) =
            (self.worker.retention, &snapshot.progress.head, applied.tokens.is_empty())
        {
            self.link.retain(after, &applied.tokens, &applied.copied, window).await?;
        }
        self.link.advance(&applied.head, &snapshot.identity, read.is_caught_up()).await?;
        failpoint::reach(failpoint::ADVANCED);
        self.link.commit().await?;
        failpoint::reach(failpoint::COMMITTED);
        self.worker.rejected.end_step();
        self.worker.slow.end_step();
        self.tables.met_none();
        self.queued = read.left;
        self.head = Some(applied.head);
        self.seen = Instant::now();
        done.processed += read.messages;
        done.skipped += read.skipped;
        done.dead += (rejected.len() + dead.len()) as u64;
        let tables = dead.into_iter().chain(rejected.into_iter().map(|letter| letter.table));
        tables.for_each(|table| self.worker.figures.buried(table.as_deref()));
        done.rows += applied.rows;
        done.batches += applied.batches;
        Ok(())
    }

    /// Locks the tables that the next step is to read, or pauses those that cannot be read.
    async fn prepare_to_read(&mut self, tables: Vec<String>) -> Result<()> {
        for name in tables {
            let problem = self.sources.get(&name).and_then(|s| s.access.problem(&s.table));
            match problem {
                None => {
                    self.tables.read(&name);
                }
                Some(problem) => self.pause(&name, &problem, Side::Source).await?,
            }
        }
        Ok(())
    }

    /// Locks the tables that the next step is to rebuild, or says why one has to wait. Whether any was
    /// added.
    async fn prepare_to_rebuild(&mut self) -> Result<bool> {
        let mut is_new = false;
        for rebuild in self.pending.clone() {
            let name = rebuild.name.clone();
            if !rebuild.is_under_way() {
                self.tables.stick(&name);
                continue;
            }
            if self.tables.is_stuck(&name) || !self.tables.is_idle(&name) {
                continue;
            }
            match self.sources.get(&name).map(SourceTable::unpageable) {
                Some(None) => is_new |= self.tables.read(&name),
                Some(Some(problem)) => self.postpone(&name, &problem).await?,
                None => {
                    self.tables.stick(&name);
                } // schema.json no longer names it
            }
        }
        Ok(is_new)
    }
}
