//! Postgres, as far as it matters here: committed states in a log of which only the flushed part
//! survives a crash, transactions with their ids, the lock on the progress row.

use super::intake::witness;
use pgflume::progress::{Fate, Identity, Progress};
use pgflume::replica::head::Entry;
use std::rc::Rc;

/// A table that marks feed.
pub const MARKED: usize = 0;
/// A table that images feed.
pub const IMAGED: usize = 1;
pub const TABLES: usize = 2;
pub const KEYS: usize = 3;

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
    Mark { key: usize },
    Image { key: usize, row: Row },
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

/// One committed state.
#[derive(Debug, Clone)]
pub struct Data {
    pub rows: Rows,
    pub queue: Vec<Queued>,
    pub progress: Progress,
    pub identity: Identity,
    pub resyncs: [Resync; TABLES],
    pub dead: Vec<(usize, usize, Version)>,
}

impl Data {
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
    committed: Option<u64>,
    next_xid: u64,
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
    /// Tells apart two transactions with the same id, before and after a crash.
    pub run: u32,
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
    next_xid: u64,
    next_id: i64,
    running: Vec<Running>,
    holder: Option<u64>,
    /// Starts of the server.
    run: u32,
    /// Transaction ids that a restored Postgres gives out again.
    reused: std::ops::Range<u64>,
    /// Whether it is known of them: see `Mutant::ReusedIds`.
    tells_reused: bool,
    pub written: Vec<Written>,
}

impl Postgres {
    /// Some rows that were there before anybody captured them, and a rebuild asked for.
    pub fn new(tells_reused: bool) -> Self {
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
                was_healed_lately: false,
                past_epochs: Vec::new(),
            },
            identity: Identity { source: "pg/1".into(), queue: 1 },
            resyncs: [Resync { phase: Phase::Copy, cursor: 0, fresh: false, request: 0 }; TABLES],
            dead: Vec::new(),
        });
        Self {
            log: vec![Record { data, committed: None, next_xid: 1, next_id: 1 }],
            flushed: 1,
            next_xid: 1,
            next_id: 1,
            running: Vec::new(),
            holder: None,
            run: 0,
            reused: 0..0,
            tells_reused,
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

    fn record(&mut self, xid: Option<u64>, committed: Option<u64>, data: Rc<Data>) {
        let last = &self.log[self.log.len() - 1];
        let next_xid = xid.map_or(last.next_xid, |xid| last.next_xid.max(xid + 1));
        let next_id = self.next_id;
        self.log.push(Record { data, committed, next_xid, next_id });
    }

    /// Opens a transaction, which writes something and so has an id that the log knows.
    fn begin(&mut self) -> u64 {
        let xid = self.next_xid;
        self.next_xid += 1;
        self.running.push(Running { xid, changes: Vec::new(), messages: Vec::new() });
        self.record(Some(xid), None, self.data().clone());
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
        Some(Opened { xid, run: self.run, lsn, snapshot })
    }

    pub fn is_running(&self, step: &Opened) -> bool {
        step.run == self.run && self.running.iter().any(|r| r.xid == step.xid)
    }

    pub fn rollback(&mut self, step: &Opened) {
        if self.is_running(step) {
            self.end(step.xid);
        }
    }

    /// Commits what a step has changed. `tables`: whose rebuild it has moved or asked for.
    pub fn commit(&mut self, step: &Opened, tables: &[usize], change: impl FnOnce(&mut Data)) -> Result<(), Failed> {
        if !self.is_running(step) {
            return Err(Failed::Gone);
        }
        self.end(step.xid);
        if tables.iter().any(|&t| self.data().resyncs[t].request != step.snapshot.resyncs[t].request) {
            return Err(Failed::Conflict);
        }
        self.commit_as(step.xid, change);
        self.flush();
        Ok(())
    }

    fn commit_as(&mut self, xid: u64, change: impl FnOnce(&mut Data)) {
        let mut data = Data::clone(self.data());
        change(&mut data);
        self.record(Some(xid), Some(xid), Rc::new(data));
    }

    /// Somebody else's small transaction.
    pub fn run(&mut self, change: impl FnOnce(&mut Data)) {
        let xid = self.begin();
        self.end(xid);
        self.commit_as(xid, change);
        self.flush();
    }

    pub fn flush(&mut self) {
        self.flushed = self.log.len();
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
        self.record(Some(xid), None, self.data().clone());
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
        self.commit_as(xid, |data| {
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

    /// Goes back to an earlier copy of it, maybe as another server.
    pub fn restore(&mut self, back: usize, source: Option<&str>) {
        let end = self.reused.end.max(self.next_xid);
        self.cut(self.flushed.saturating_sub(back).max(1), Written::LostInRestore);
        let start = if self.reused.is_empty() { self.next_xid } else { self.reused.start.min(self.next_xid) };
        self.reused = start..end;
        if let Some(source) = source {
            self.run(|data| data.identity.source = source.into());
        }
    }

    fn cut(&mut self, lsn: usize, lost: Written) {
        self.log.truncate(lsn);
        self.flushed = lsn;
        let last = &self.log[lsn - 1];
        (self.next_xid, self.next_id) = (last.next_xid, last.next_id);
        self.running.clear();
        self.holder = None;
        self.run += 1;
        for written in self.written.iter_mut().filter(|w| matches!(w, Written::At(at) if *at > lsn)) {
            *written = lost;
        }
    }

    /// As `progress::fates`.
    pub fn fates(&self, entries: &[Entry]) -> Vec<Fate> {
        let number = |text: &str| text.parse::<u64>().unwrap();
        let is_queued = |e: &Entry| {
            let is_named = |m: &&Queued| e.witness.messages.contains(&m.id);
            let mut there: Vec<Queued> = self.data().queue.iter().filter(is_named).copied().collect();
            there.sort_by_key(|m| m.id);
            witness(&there) == *e.witness
        };
        let fate = |e: &Entry| {
            let is_aborted = self.status(number(&e.xid)) == "aborted" && number(&e.lsn) as usize <= self.lsn();
            match e.witness.is_empty() {
                true if is_aborted => Fate::Known,
                false if is_queued(e) => Fate::Queued,
                _ => Fate::Lost,
            }
        };
        entries.iter().map(fate).collect()
    }

    fn status(&self, xid: u64) -> &'static str {
        if xid >= self.next_xid || (self.tells_reused && self.reused.contains(&xid)) {
            "future"
        } else if self.running.iter().any(|r| r.xid == xid) {
            "in progress"
        } else if self.log.iter().any(|r| r.committed == Some(xid)) {
            "committed"
        } else {
            "aborted"
        }
    }
}
