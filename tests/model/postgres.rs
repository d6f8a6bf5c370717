//! Postgres, as far as it matters here: committed states in a log of which only the flushed part
//! survives a crash, transactions, the lock on the progress row.

use super::intake::provenance;
use pgflume::core::position::{Entry, Fate, Head, Identity, Progress};
use pgflume::core::reconcile::{Here, RetainedStep};
use std::rc::Rc;

/// A table that marks feed.
pub const MARKED: usize = 0;
/// A table that images feed.
pub const IMAGED: usize = 1;
pub const TABLES: usize = 2;
pub const KEYS: usize = 3;
/// Their names, in `schema.json`.
pub const NAMES: [&str; TABLES] = ["marked", "imaged"];

/// Counts the changes of all keys: of two states of one key, the later has the higher version.
pub type Version = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    #[default]
    Gone,
    Live,
    /// A row that the replica cannot hold.
    Unfit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Row {
    pub version: Version,
    pub kind: Kind,
}

pub type Rows = [[Row; KEYS]; TABLES];

/// A message on the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    Mark {
        key: usize,
    },
    Image {
        key: usize,
        row: Row,
    },
    /// Of a table that nobody replicates.
    Foreign,
}

#[derive(Debug, Clone, Copy)]
pub struct Queued {
    pub id: i64,
    pub message: Message,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Copy,
    Sweep,
    Done,
}

/// How far a table is that is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resync {
    pub phase: Phase,
    /// Keys below this are done.
    pub cursor: usize,
    pub fresh: bool,
    /// Changed by whoever asks for it: a step that has seen another fails to serialize.
    pub request: u32,
}

impl Resync {
    pub fn schedule(&mut self, fresh: bool) {
        *self = Self { phase: Phase::Copy, cursor: 0, fresh, request: self.request + 1 };
    }
}

/// What one transaction took off the queue, and where its batches led: rows of `pgflume.kept`.
#[derive(Debug, Clone)]
pub struct Kept {
    pub step: RetainedStep,
    pub messages: Vec<Queued>,
}

/// One committed state.
#[derive(Debug, Clone)]
pub struct Data {
    pub rows: Rows,
    pub queue: Vec<Queued>,
    pub progress: Progress,
    pub identity: Identity,
    pub resyncs: [Resync; TABLES],
    pub dead: Vec<(usize, usize, Version)>,
    /// Names of steps.
    pub steps: Vec<Rc<str>>,
    /// The oldest first.
    pub kept: Vec<Rc<Kept>>,
    /// Notes of what others took off the queue.
    pub losses: u32,
    /// Images that others took: no step can bring them back.
    pub purged: Vec<Version>,
}

impl Data {
    /// What a replica says that it belongs to.
    pub fn owner(&self) -> &str {
        self.identity.source.split('/').next().unwrap_or_default()
    }

    /// As `progress::announce`.
    pub fn announce(&mut self, epoch: &str, address: &str) {
        self.progress.next_epoch = Some(epoch.to_owned());
        self.move_to(address);
    }

    pub fn move_to(&mut self, address: &str) {
        self.progress.address = Some(address.to_owned());
    }

    /// As a worker stands whose replica is at `address`.
    pub fn here<'a>(&'a self, address: &'a str) -> Here<'a> {
        Here { identity: &self.identity, owner: self.owner(), address }
    }

    pub fn is_rebuilding(&self) -> bool {
        self.resyncs.iter().any(|r| r.phase != Phase::Done)
    }

    pub fn schedule(&mut self, fresh: bool) {
        self.resyncs.iter_mut().for_each(|r| r.schedule(fresh));
    }

    pub fn bury(&mut self, table: usize, key: usize, version: Version) {
        if !self.dead.contains(&(table, key, version)) {
            self.dead.push((table, key, version));
        }
    }

    /// As `progress::advance`.
    pub fn advance(&mut self, head: &Head) {
        self.progress.head = Some(head.clone());
        if let Some(paired) = &mut self.progress.paired_with {
            paired.source.clone_from(&self.identity.source);
        }
    }

    /// As `kept::record`, which forgets the `old` oldest, but nothing that was taken here.
    pub fn keep(&mut self, kept: Kept, old: usize) {
        let seq = kept.step.after.seq;
        self.kept.push(Rc::new(kept));
        let mut left = old;
        self.kept.retain(|kept| {
            let goes = left > 0 && kept.step.after.seq < seq;
            left = left.saturating_sub(1);
            !goes
        });
    }

    /// As `kept::steps`.
    pub fn kept_steps(&self, epoch: &str) -> Vec<RetainedStep> {
        let is_meant = |kept: &&Rc<Kept>| kept.step.after.epoch == epoch && !kept.step.tokens.is_empty();
        let mut steps: Vec<RetainedStep> = self.kept.iter().filter(is_meant).map(|kept| kept.step.clone()).collect();
        steps.sort_by_key(|step| step.after.seq);
        steps
    }

    /// As `kept::put_back`; a mutant gives them `new_ids`.
    pub fn put_back(&mut self, epoch: &str, seq: i64, new_ids: Option<i64>) {
        let is_meant = |kept: &Rc<Kept>| kept.step.after.epoch == epoch && kept.step.after.seq >= seq;
        let (back, stays) = self.kept.drain(..).partition(is_meant);
        self.kept = stays;
        for (i, message) in back.iter().flat_map(|kept| &kept.messages).enumerate() {
            let id = new_ids.map_or(message.id, |first| first + i as i64);
            if !self.queue.iter().any(|m| m.id == id) {
                self.queue.push(Queued { id, ..*message });
            }
        }
        self.queue.sort_unstable_by_key(|m| m.id);
    }

    /// Others take messages off the queue: one of them or all.
    pub fn purge(&mut self, at: usize, all: bool) {
        let gone = match self.queue.len() {
            _ if all => std::mem::take(&mut self.queue),
            0 => Vec::new(),
            messages => vec![self.queue.remove(at % messages)],
        };
        self.purged.extend(gone.iter().filter_map(|m| match m.message {
            Message::Image { row, .. } => Some(row.version),
            _ => None,
        }));
        self.losses += 1;
    }

    /// As `progress::fates`.
    pub fn fates(&self, entries: &[Entry]) -> Vec<Fate> {
        let is_queued = |e: &Entry| {
            let is_named = |m: &&Queued| e.provenance.messages.contains(&m.id);
            let there: Vec<Queued> = self.queue.iter().filter(is_named).copied().collect();
            provenance(&there) == *e.provenance
        };
        let fate = |e: &Entry| match e.provenance.is_empty() {
            true if self.steps.iter().any(|name| **name == *e.provenance.digest) => Fate::Known,
            false if is_queued(e) => Fate::Queued,
            _ => Fate::Lost,
        };
        entries.iter().map(fate).collect()
    }
}

/// What became of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Not committed, or rolled back.
    Never,
    /// Committed by this log record.
    At(usize),
    LostInCrash,
    LostInRestore,
}

/// A log record, with the state after it.
struct Record {
    data: Rc<Data>,
    next_id: i64,
}

/// A running transaction.
struct Running {
    xid: u64,
    changes: Vec<(usize, usize, Row)>,
    messages: Vec<Queued>,
}

/// What a step's transaction has seen when it took the lock.
#[derive(Clone)]
pub struct Opened {
    pub xid: u64,
    pub lsn: usize,
    pub snapshot: Rc<Data>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    /// The transaction has been rolled back behind its owner's back.
    Gone,
    /// It has not seen what another committed.
    Conflict,
}

pub struct Postgres {
    log: Vec<Record>,
    flushed: usize,
    /// Names transactions, each once: nothing may depend on it.
    next_xid: u64,
    next_id: i64,
    running: Vec<Running>,
    holder: Option<u64>,
    pub written: Vec<Written>,
}

impl Postgres {
    /// Some rows that were there before anybody captured them, and a rebuild asked for.
    pub fn new() -> Self {
        let mut rows = Rows::default();
        let old = [Row { version: 1, kind: Kind::Live }, Row { version: 2, kind: Kind::Live }];
        (rows[MARKED][0], rows[IMAGED][1]) = (old[0], old[1]);
        let data = Rc::new(Data {
            rows,
            queue: Vec::new(),
            progress: Progress {
                head: None,
                next_epoch: None,
                paired_with: None,
                refills: true,
                address: None,
                past_epochs: Vec::new(),
            },
            identity: Identity { source: "pg/1".into(), queue: 1 },
            resyncs: [Resync { phase: Phase::Copy, cursor: 0, fresh: false, request: 0 }; TABLES],
            dead: Vec::new(),
            steps: Vec::new(),
            kept: Vec::new(),
            losses: 0,
            purged: Vec::new(),
        });
        Self {
            log: vec![Record { data, next_id: 1 }],
            flushed: 1,
            next_xid: 1,
            next_id: 1,
            running: Vec::new(),
            holder: None,
            written: vec![Written::At(1); 3],
        }
    }

    /// What is committed, flushed or not.
    pub fn data(&self) -> &Rc<Data> {
        &self.log[self.log.len() - 1].data
    }

    /// The end of the log.
    pub fn lsn(&self) -> usize {
        self.log.len()
    }

    /// Whether a crash cannot take this version away any more.
    pub fn is_durable(&self, version: Version) -> bool {
        matches!(self.written[version as usize], Written::At(lsn) if lsn <= self.flushed)
    }

    fn record(&mut self, data: Rc<Data>) {
        self.log.push(Record { data, next_id: self.next_id });
    }

    /// Opens a transaction, which writes something that the log has.
    fn begin(&mut self) -> u64 {
        let xid = self.next_xid;
        self.next_xid += 1;
        self.running.push(Running { xid, changes: Vec::new(), messages: Vec::new() });
        self.record(self.data().clone());
        xid
    }

    fn end(&mut self, xid: u64) -> Option<Running> {
        if self.holder == Some(xid) {
            self.holder = None;
        }
        let at = self.running.iter().position(|r| r.xid == xid)?;
        Some(self.running.swap_remove(at))
    }

    /// The single flight; `None` if somebody has it.
    pub fn lock(&mut self, is_alone: bool) -> Option<Opened> {
        if is_alone && self.holder.is_some() {
            return None;
        }
        let (snapshot, lsn) = (self.data().clone(), self.lsn());
        let xid = self.begin();
        self.holder = Some(xid);
        Some(Opened { xid, lsn, snapshot })
    }

    pub fn is_running(&self, step: &Opened) -> bool {
        self.running.iter().any(|r| r.xid == step.xid)
    }

    pub fn rollback(&mut self, step: &Opened) {
        if self.is_running(step) {
            self.end(step.xid);
        }
    }

    /// Commits what a step has changed. `tables`: whose rebuild it has moved or asked for; `taken`: what it has
    /// taken off the queue.
    pub fn commit(
        &mut self,
        step: &Opened,
        tables: &[usize],
        taken: &[Queued],
        change: impl FnOnce(&mut Data),
    ) -> Result<(), Failed> {
        if !self.is_running(step) {
            return Err(Failed::Gone);
        }
        self.end(step.xid);
        let is_gone = |m: &Queued| !self.data().queue.iter().any(|queued| queued.id == m.id);
        let is_other = |&t: &usize| self.data().resyncs[t].request != step.snapshot.resyncs[t].request;
        if tables.iter().any(is_other) || taken.iter().any(is_gone) {
            return Err(Failed::Conflict);
        }
        self.commit_as(change);
        self.flush();
        Ok(())
    }

    fn commit_as(&mut self, change: impl FnOnce(&mut Data)) {
        let mut data = Data::clone(self.data());
        change(&mut data);
        self.record(Rc::new(data));
    }

    /// Somebody else's small transaction.
    pub fn run(&mut self, change: impl FnOnce(&mut Data)) {
        let xid = self.begin();
        self.end(xid);
        self.commit_as(change);
        self.flush();
    }

    pub fn flush(&mut self) {
        self.flushed = self.log.len();
    }

    /// No more than is asked for.
    pub fn flush_to(&mut self, lsn: usize) {
        self.flushed = self.flushed.max(lsn.min(self.log.len()));
    }

    /// The first of ids that no message has yet.
    pub fn next_id(&self) -> i64 {
        self.next_id
    }

    /// A message of a table that nobody replicates.
    pub fn write_foreign(&mut self) {
        let id = self.next_id;
        self.next_id += 1;
        self.run(|data| {
            data.queue.push(Queued { id, message: Message::Foreign });
            data.queue.sort_unstable_by_key(|m| m.id);
        });
    }

    /// Another queue with the same name, whose ids begin anew where no message is on its way.
    pub fn recreate_queue(&mut self) {
        let xid = self.begin();
        self.end(xid);
        if self.running.is_empty() {
            self.next_id = 1;
        }
        self.commit_as(|data| {
            data.queue.clear();
            data.identity.queue += 1;
        });
        self.flush();
    }

    /// Changes a key in the transaction `xid` or in a new one; `None` where another has locked the row.
    pub fn write(&mut self, xid: Option<u64>, table: usize, key: usize, kind: Kind) -> Option<u64> {
        let is_other = |r: &Running| Some(r.xid) != xid;
        let locks = |r: &Running| r.changes.iter().any(|c| (c.0, c.1) == (table, key));
        if self.running.iter().any(|r| is_other(r) && locks(r)) {
            return None;
        }
        let xid = xid.unwrap_or_else(|| self.begin());
        let row = Row { version: self.written.len() as Version, kind };
        self.written.push(Written::Never);
        let message = if table == MARKED { Message::Mark { key } } else { Message::Image { key, row } };
        let id = self.next_id;
        self.next_id += 1;
        self.record(self.data().clone());
        let running = self.running.iter_mut().find(|r| r.xid == xid)?;
        running.changes.push((table, key, row));
        running.messages.push(Queued { id, message });
        Some(xid)
    }

    /// Ends a writer's transaction.
    pub fn commit_writes(&mut self, xid: u64, is_synchronous: bool) {
        let Some(running) = self.end(xid) else { return };
        let lsn = self.lsn() + 1;
        for (_, _, row) in &running.changes {
            self.written[row.version as usize] = Written::At(lsn);
        }
        self.commit_as(|data| {
            for (table, key, row) in running.changes {
                data.rows[table][key] = row;
            }
            data.queue.extend(running.messages);
            data.queue.sort_unstable_by_key(|m| m.id);
        });
        if is_synchronous {
            self.flush();
        }
    }

    pub fn abort_writes(&mut self, xid: u64) {
        self.end(xid);
    }

    /// What is not flushed may be lost: `keep` of it is not.
    pub fn crash(&mut self, keep: usize) {
        let unflushed = self.log.len() - self.flushed;
        self.cut(self.flushed + keep % (unflushed + 1), Written::LostInCrash);
    }

    /// Goes back to an earlier copy of it, maybe as another server or on another timeline. Whether anything is lost
    /// that a crash leaves.
    pub fn restore(&mut self, back: usize, source: Option<&str>) -> bool {
        self.cut(self.flushed, Written::LostInCrash);
        let end = self.flushed;
        self.cut(end.saturating_sub(back).max(1), Written::LostInRestore);
        let is_loss = self.flushed < end;
        if let Some(source) = source {
            self.run(|data| data.identity.source = source.into());
        }
        is_loss
    }

    fn cut(&mut self, lsn: usize, lost: Written) {
        self.log.truncate(lsn);
        self.flushed = lsn;
        self.next_id = self.log[lsn - 1].next_id;
        self.running.clear();
        self.holder = None;
        for written in self.written.iter_mut().filter(|w| matches!(w, Written::At(at) if *at > lsn)) {
            *written = lost;
        }
    }
}
