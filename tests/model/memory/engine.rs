//! A small transactional store in memory that behaves like PostgreSQL where it matters to a simulator: snapshots, row and
//! table locks, aborted transactions, savepoints, sequences, and commits that a crash loses. It is deterministic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// What identifies a row within its relation.
pub type Key = Vec<String>;

/// What a transaction sees of what others commit meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees the newest commit.
    ReadCommitted,
    /// All statements see what was committed when the first of them began.
    RepeatableRead,
}

/// How long a statement waits for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all (NOWAIT).
    No,
    /// At most so long (`lock_timeout`); zero is without limit, as in PostgreSQL.
    For(Duration),
}

/// Why a statement failed. All but `Gone` abort the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A lock could not be had in time (55P03).
    Locked,
    /// Another transaction changed the row after the snapshot (40001).
    Conflict,
    /// An earlier statement of the transaction failed: it has to be rolled back first (25P02).
    Aborted,
    /// The session was ended, or the server restarted.
    Gone,
}

/// The mode of a table lock, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lock {
    /// Of readers.
    AccessShare,
    /// Of writers.
    RowExclusive,
    /// Of one who lets others read only.
    Exclusive,
    /// Of one who shuts out everybody.
    AccessExclusive,
}

impl Lock {
    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The modes that it cannot be held beside.
    fn conflicts(self) -> u8 {
        match self {
            Self::AccessShare => 0b1000,
            Self::RowExclusive => 0b1100,
            Self::Exclusive => 0b1110,
            Self::AccessExclusive => 0b1111,
        }
    }
}

/// What a statement needs of a relation: a lock on it, or on one of its rows.
enum Want<K> {
    Table(Lock),
    Row(K),
}

struct Waiter {
    session: u64,
    relation: String,
    want: Want<Key>,
}

/// What a transaction did, in order.
enum Change<V> {
    Write(String, Key, Option<V>),
    Truncate(String),
}

/// How far a transaction was when a savepoint was set.
#[derive(Clone, Copy, Default)]
struct Mark {
    changes: usize,
    rows: usize,
    tables: usize,
}

struct Transaction<V> {
    isolation: Isolation,
    /// It is the one statement that runs outside begin and commit.
    is_implicit: bool,
    is_aborted: bool,
    snapshot: Option<u64>,
    xid: Option<u64>,
    changes: Vec<Change<V>>,
    rows: Vec<(String, Key)>,
    tables: Vec<(String, Lock)>,
    savepoints: Vec<(String, Mark)>,
}

impl<V> Transaction<V> {
    fn new(isolation: Isolation, is_implicit: bool) -> Self {
        let (changes, rows, tables, savepoints) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { isolation, is_implicit, is_aborted: false, snapshot: None, xid: None, changes, rows, tables, savepoints }
    }

    fn mark(&self) -> Mark {
        Mark { changes: self.changes.len(), rows: self.rows.len(), tables: self.tables.len() }
    }

    /// What it made of a row itself, if anything.
    fn own(&self, relation: &str, key: &Key) -> Option<Option<&V>> {
        self.changes.iter().rev().find_map(|change| match change {
            Change::Write(of, changed, value) if of == relation && changed == key => Some(value.as_ref()),
            Change::Truncate(of) if of == relation => Some(None),
            _ => None,
        })
    }
}

/// The versions of a row, oldest first, each with its commit number; without a value it is deleted.
struct Row<V> {
    versions: Vec<(u64, Option<V>)>,
    holder: Option<u64>,
}

impl<V> Row<V> {
    fn at(&self, at: u64) -> Option<&V> {
        self.versions.iter().rev().find(|version| version.0 <= at).and_then(|version| version.1.as_ref())
    }

    fn is_needed(&self) -> bool {
        self.holder.is_some() || !self.versions.is_empty()
    }

    fn add(&mut self, number: u64, value: Option<V>) {
        self.versions.pop_if(|newest| newest.0 == number);
        if value.is_some() || self.versions.last().is_some_and(|newest| newest.1.is_some()) {
            self.versions.push((number, value));
        }
    }

    /// Forgets what nobody sees who looks at `horizon` or later.
    fn prune(&mut self, horizon: u64) {
        let newer = self.versions.partition_point(|version| version.0 <= horizon);
        let is_live = newer > 0 && self.versions[newer - 1].1.is_some();
        self.versions.drain(..newer - usize::from(is_live));
    }
}

struct Relation<V> {
    rows: BTreeMap<Key, Row<V>>,
    /// The rows that the newest commit left.
    live: BTreeSet<Key>,
    /// Those that commits deleted, oldest first: with `live`, all that a scan has to look at, however long the history is.
    dead: Vec<(u64, Key)>,
    /// The commits that truncated it.
    truncations: Vec<u64>,
    /// The lock modes that each session holds.
    locks: BTreeMap<u64, u8>,
}

impl<V> Relation<V> {
    fn new() -> Self {
        let (truncations, locks) = (Vec::new(), BTreeMap::new());
        Self { rows: BTreeMap::new(), live: BTreeSet::new(), dead: Vec::new(), truncations, locks }
    }

    fn row(&mut self, key: &Key) -> &mut Row<V> {
        self.rows.entry(key.clone()).or_insert_with(|| Row { versions: Vec::new(), holder: None })
    }

    /// Whether a snapshot finds its rows: a later truncation took them away from it.
    fn is_whole(&self, at: u64) -> bool {
        self.truncations.last().is_none_or(|truncation| *truncation <= at)
    }

    /// Whether a row was changed after the snapshot. A truncation leaves nothing that could conflict.
    fn is_newer(&self, key: &Key, at: u64) -> bool {
        let newest = self.rows.get(key).and_then(|row| row.versions.last());
        newest.is_some_and(|(number, value)| *number > at && (value.is_some() || !self.truncations.contains(number)))
    }

    fn rows_at(&self, at: u64) -> impl Iterator<Item = (&Key, &V)> {
        let later = &self.dead[self.dead.partition_point(|dead| dead.0 <= at)..];
        let keys: BTreeSet<&Key> = self.live.iter().chain(later.iter().map(|dead| &dead.1)).collect();
        keys.into_iter().filter_map(move |key| Some((key, self.rows.get(key)?.at(at)?)))
    }

    fn write(&mut self, number: u64, key: Key, value: Option<V>) {
        let is_live = value.is_some();
        self.row(&key).add(number, value);
        if is_live {
            self.live.insert(key);
        } else if self.live.remove(&key) {
            self.dead.push((number, key));
        }
    }

    fn truncate(&mut self, number: u64) {
        for key in std::mem::take(&mut self.live) {
            self.row(&key).add(number, None);
            self.dead.push((number, key));
        }
        self.truncations.push(number);
    }

    fn free_row(&mut self, key: &Key) {
        if let Some(row) = self.rows.get_mut(key) {
            row.holder = None;
            if !row.is_needed() {
                self.rows.remove(key);
            }
        }
    }

    fn free_table(&mut self, session: u64, lock: Lock) {
        if let Some(modes) = self.locks.get_mut(&session) {
            *modes &= !lock.bit();
        }
        self.locks.retain(|_, modes| *modes != 0);
    }

    fn rewind(&mut self, to: u64) {
        self.locks.clear();
        self.truncations.retain(|truncation| *truncation <= to);
        self.rows.retain(|_, row| {
            row.holder = None;
            row.versions.retain(|version| version.0 <= to);
            row.is_needed()
        });
        self.dead.retain(|dead| dead.0 <= to);
        let live = self.rows.iter().filter(|(_, row)| row.at(to).is_some());
        self.live = live.map(|(key, _)| key.clone()).collect();
    }

    fn prune(&mut self, horizon: u64) {
        self.truncations.retain(|truncation| *truncation > horizon);
        self.dead.retain(|dead| dead.0 > horizon);
        self.rows.retain(|_, row| {
            row.prune(horizon);
            row.is_needed()
        });
    }
}

struct Backend<V> {
    lock_timeout: Duration,
    transaction: Option<Transaction<V>>,
}

struct State<V> {
    relations: BTreeMap<String, Relation<V>>,
    /// The values of each sequence, each with the newest commit when it was the last one.
    sequences: BTreeMap<String, Vec<(u64, i64)>>,
    sessions: BTreeMap<u64, Backend<V>>,
    waiting: BTreeMap<u64, Waiter>,
    committed: u64,
    flushed: u64,
    pruned: u64,
    last_id: u64,
    last_xid: u64,
    /// Those who wait have to look again.
    is_changed: bool,
}

impl<V: Clone> State<V> {
    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn backend(&mut self, id: u64) -> Result<&mut Backend<V>, Failure> {
        self.sessions.get_mut(&id).ok_or(Failure::Gone)
    }

    fn open(&mut self, id: u64) -> Result<&mut Transaction<V>, Failure> {
        self.backend(id)?.transaction.as_mut().ok_or(Failure::Gone)
    }

    fn looking(&self, id: u64) -> Option<&Transaction<V>> {
        self.sessions.get(&id).and_then(|backend| backend.transaction.as_ref())
    }

    fn relation(&mut self, name: &str) -> &mut Relation<V> {
        self.relations.entry(name.to_owned()).or_insert_with(Relation::new)
    }

    fn begin(&mut self, id: u64, isolation: Isolation) -> Result<(), Failure> {
        self.backend(id)?.transaction.get_or_insert_with(|| Transaction::new(isolation, false));
        Ok(())
    }

    fn start(&mut self, id: u64, takes_snapshot: bool) -> Result<(), Failure> {
        let committed = self.committed;
        let new = || Transaction::new(Isolation::ReadCommitted, true);
        let transaction = self.backend(id)?.transaction.get_or_insert_with(new);
        if transaction.is_aborted {
            return Err(Failure::Aborted);
        }
        if takes_snapshot && transaction.isolation == Isolation::RepeatableRead {
            transaction.snapshot.get_or_insert(committed);
        }
        Ok(())
    }

    /// A statement failed: all since the last savepoint is undone at once, the locks included.
    fn fail(&mut self, id: u64) {
        let Ok(transaction) = self.open(id) else { return };
        if transaction.is_implicit {
            return self.rollback(id);
        }
        transaction.is_aborted = true;
        let mark = transaction.savepoints.last().map(|savepoint| savepoint.1).unwrap_or_default();
        self.unwind(id, mark);
    }

    fn finish<T>(&mut self, id: u64, result: Result<T, Failure>) -> Result<T, Failure> {
        let is_implicit = self.open(id)?.is_implicit;
        match result {
            Ok(_) if is_implicit => self.commit(id, true).and(result),
            Ok(_) => result,
            Err(_) => {
                self.fail(id);
                result
            }
        }
    }

    fn commit(&mut self, id: u64, is_synchronous: bool) -> Result<u64, Failure> {
        let Some(transaction) = self.backend(id)?.transaction.take() else { return Ok(self.committed) };
        let Transaction { changes, rows, tables, is_aborted, .. } = transaction;
        let result = if is_aborted {
            Err(Failure::Aborted)
        } else {
            let is_empty = changes.is_empty() && rows.is_empty();
            let is_truncation = changes.iter().any(|change| matches!(change, Change::Truncate(_)));
            self.apply(changes);
            if is_truncation || (is_synchronous && !is_empty) {
                self.flushed = self.committed;
            }
            Ok(self.committed)
        };
        self.free(id, &rows, &tables);
        result
    }

    fn apply(&mut self, changes: Vec<Change<V>>) {
        self.committed += u64::from(!changes.is_empty());
        let number = self.committed;
        for change in changes {
            match change {
                Change::Write(name, key, value) => self.relation(&name).write(number, key, value),
                Change::Truncate(name) => self.relation(&name).truncate(number),
            }
        }
    }

    fn rollback(&mut self, id: u64) {
        let transaction = self.backend(id).ok().and_then(|backend| backend.transaction.take());
        if let Some(Transaction { rows, tables, .. }) = transaction {
            self.free(id, &rows, &tables);
        }
    }

    fn end(&mut self, id: u64) {
        self.rollback(id);
        self.sessions.remove(&id);
        self.is_changed = true;
    }

    fn unwind(&mut self, id: u64, mark: Mark) {
        let Ok(transaction) = self.open(id) else { return };
        transaction.changes.truncate(mark.changes);
        let rows = transaction.rows.split_off(mark.rows.min(transaction.rows.len()));
        let tables = transaction.tables.split_off(mark.tables.min(transaction.tables.len()));
        self.free(id, &rows, &tables);
    }

    fn free(&mut self, id: u64, rows: &[(String, Key)], tables: &[(String, Lock)]) {
        for (name, key) in rows {
            self.relation(name).free_row(key);
        }
        for (name, lock) in tables {
            self.relation(name).free_table(id, *lock);
        }
        self.is_changed |= !rows.is_empty() || !tables.is_empty();
    }

    /// Where a savepoint is. One that does not exist is a failure like any other.
    fn savepoint(&mut self, id: u64, name: &str) -> Result<usize, Failure> {
        let Some(transaction) = self.backend(id)?.transaction.as_ref() else { return Err(Failure::Aborted) };
        let found = transaction.savepoints.iter().rposition(|savepoint| savepoint.0 == name);
        if found.is_none() {
            self.fail(id);
        }
        found.ok_or(Failure::Aborted)
    }

    fn rollback_to(&mut self, id: u64, name: &str) -> Result<(), Failure> {
        let position = self.savepoint(id, name)?;
        let transaction = self.open(id)?;
        transaction.savepoints.truncate(position + 1);
        transaction.is_aborted = false;
        let mark = transaction.savepoints[position].1;
        self.unwind(id, mark);
        Ok(())
    }

    fn xid(&mut self, id: u64) -> Result<u64, Failure> {
        let next = self.last_xid + 1;
        let xid = *self.open(id)?.xid.get_or_insert(next);
        self.last_xid = self.last_xid.max(xid);
        Ok(xid)
    }

    /// Takes a lock if it is free. `ticket`: the place among those who wait, or one behind them all.
    fn take(&mut self, id: u64, relation: &str, want: &Want<&Key>, ticket: u64) -> Result<bool, Failure> {
        match want {
            Want::Table(lock) => self.take_table(id, relation, *lock, ticket),
            Want::Row(key) => self.take_row(id, relation, key),
        }
    }

    /// Whether somebody has waited for longer for a lock that this one cannot be held beside. Who waits for this very
    /// session is passed over.
    fn is_behind(&self, id: u64, name: &str, lock: Lock, ticket: u64) -> bool {
        let held = self.relations.get(name).and_then(|found| found.locks.get(&id)).copied().unwrap_or(0);
        let is_first = |wanted: Lock| wanted.bit() & lock.conflicts() != 0 && wanted.conflicts() & held == 0;
        self.waiting.range(..ticket).any(|(_, waiter)| {
            let is_other =
                waiter.session != id && waiter.relation == name && self.sessions.contains_key(&waiter.session);
            is_other && matches!(waiter.want, Want::Table(wanted) if is_first(wanted))
        })
    }

    fn take_table(&mut self, id: u64, name: &str, lock: Lock, ticket: u64) -> Result<bool, Failure> {
        self.open(id)?;
        if !self.waiting.is_empty() && self.is_behind(id, name, lock, ticket) {
            let held = self.relation(name).locks.get(&id).copied().unwrap_or(0);
            return Ok(held & lock.bit() != 0);
        }
        let locks = &mut self.relation(name).locks;
        if locks.iter().any(|(holder, modes)| *holder != id && modes & lock.conflicts() != 0) {
            return Ok(false);
        }
        let modes = locks.entry(id).or_default();
        if *modes & lock.bit() == 0 {
            *modes |= lock.bit();
            self.open(id)?.tables.push((name.to_owned(), lock));
        }
        Ok(true)
    }

    fn take_row(&mut self, id: u64, name: &str, key: &Key) -> Result<bool, Failure> {
        self.xid(id)?;
        let row = self.relation(name).row(key);
        match row.holder {
            Some(holder) => Ok(holder == id),
            None => {
                row.holder = Some(id);
                self.open(id)?.rows.push((name.to_owned(), key.clone()));
                Ok(true)
            }
        }
    }

    /// The transaction, and the commit that its statement sees.
    fn view(&self, id: u64) -> Result<(&Transaction<V>, u64), Failure> {
        let transaction = self.looking(id).ok_or(Failure::Gone)?;
        Ok((transaction, transaction.snapshot.unwrap_or(self.committed)))
    }

    fn get(&self, id: u64, name: &str, key: &Key) -> Result<Option<&V>, Failure> {
        let (transaction, at) = self.view(id)?;
        let relation = self.relations.get(name).filter(|relation| relation.is_whole(at));
        let committed = || relation.and_then(|relation| relation.rows.get(key)).and_then(|row| row.at(at));
        Ok(transaction.own(name, key).unwrap_or_else(committed))
    }

    fn scan(&self, id: u64, name: &str) -> Result<Vec<(Key, V)>, Failure> {
        let (transaction, at) = self.view(id)?;
        let relation = self.relations.get(name).filter(|relation| relation.is_whole(at));
        let mut rows: BTreeMap<&Key, &V> = relation.into_iter().flat_map(|relation| relation.rows_at(at)).collect();
        for change in &transaction.changes {
            match change {
                Change::Write(of, key, Some(value)) if of == name => drop(rows.insert(key, value)),
                Change::Write(of, key, None) if of == name => drop(rows.remove(key)),
                Change::Truncate(of) if of == name => rows.clear(),
                _ => {}
            }
        }
        Ok(rows.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// Fails if a row that is locked now was changed after the snapshot.
    fn check(&self, id: u64, name: &str, key: &Key) -> Result<(), Failure> {
        let (transaction, at) = self.view(id)?;
        let is_own = transaction.own(name, key).is_some();
        let is_newer = self.relations.get(name).is_some_and(|relation| relation.is_newer(key, at));
        if is_newer && !is_own { Err(Failure::Conflict) } else { Ok(()) }
    }

    /// Whether a row that is locked now is still there; if not, there is nothing to keep locked.
    fn confirm(&mut self, id: u64, name: &str, key: &Key) -> Result<bool, Failure> {
        self.check(id, name, key)?;
        let is_there = self.get(id, name, key)?.is_some();
        if !is_there {
            let mark = self.open(id)?.mark();
            self.unwind(id, Mark { rows: mark.rows.saturating_sub(1), ..mark });
        }
        Ok(is_there)
    }

    fn write(&mut self, id: u64, change: Change<V>) -> Result<(), Failure> {
        self.xid(id)?;
        self.open(id)?.changes.push(change);
        Ok(())
    }

    fn next(&mut self, sequence: &str) -> i64 {
        let committed = self.committed;
        let values = self.sequences.entry(sequence.to_owned()).or_default();
        let value = values.last().map_or(0, |newest| newest.1) + 1;
        values.pop_if(|newest| newest.0 == committed);
        values.push((committed, value));
        value
    }

    /// Whether a session other than `id` waits for something like this of a relation.
    fn wanted(&self, id: u64, relation: &str, is_like: impl Fn(&Want<Key>) -> bool) -> bool {
        let mut others = self.waiting.values().filter(|waiter| waiter.session != id && waiter.relation == relation);
        others.any(|waiter| is_like(&waiter.want))
    }

    fn is_waited_for(&self, xid: u64) -> bool {
        let is_own = |backend: &Backend<V>| backend.transaction.as_ref().is_some_and(|own| own.xid == Some(xid));
        let Some((id, _)) = self.sessions.iter().find(|(_, backend)| is_own(backend)) else { return false };
        self.waiting.values().any(|waiter| {
            let Want::Table(wanted) = waiter.want else { return false };
            let held = self.relations.get(&waiter.relation).and_then(|found| found.locks.get(id)).copied().unwrap_or(0);
            waiter.session != *id && self.sessions.contains_key(&waiter.session) && wanted.conflicts() & held != 0
        })
    }

    /// How many sessions one that waits for a lock of a table waits for: those that hold it, and those before it.
    fn ahead_of(&self, id: u64) -> usize {
        let Some((ticket, waiter)) = self.waiting.iter().find(|(_, waiter)| waiter.session == id) else { return 0 };
        let Want::Table(wanted) = waiter.want else { return 0 };
        let holders = self.relations.get(&waiter.relation).into_iter().flat_map(|relation| &relation.locks);
        let holders = holders.filter(|(_, modes)| *modes & wanted.conflicts() != 0).map(|(holder, _)| *holder);
        let earlier = self.waiting.range(..ticket).filter(|(_, other)| {
            other.relation == waiter.relation
                && matches!(other.want, Want::Table(lock) if lock.bit() & wanted.conflicts() != 0)
        });
        let all: BTreeSet<u64> = holders.chain(earlier.map(|(_, other)| other.session)).collect();
        all.into_iter().filter(|session| *session != id && self.sessions.contains_key(session)).count()
    }

    /// Loses what was committed after `to`, and all sessions.
    fn rewind(&mut self, to: u64) {
        self.sessions.clear();
        self.relations.values_mut().for_each(|relation| relation.rewind(to));
        (self.committed, self.flushed) = (to, to);
        self.is_changed = true;
    }

    /// A crash takes no value of a sequence back: what was taken after `to` counts as taken right after it.
    fn crash(&mut self) {
        let to = self.flushed;
        for values in self.sequences.values_mut() {
            let late = values.split_off(values.partition_point(|value| value.0 <= to));
            if let Some((_, last)) = late.last() {
                values.pop_if(|newest| newest.0 == to);
                values.push((to, *last));
            }
        }
        self.rewind(to);
    }

    fn restore(&mut self, to: u64) -> u64 {
        let to = to.min(self.committed).max(self.pruned);
        self.sequences.values_mut().for_each(|values| values.retain(|value| value.0 < to));
        self.rewind(to);
        to
    }

    fn prune(&mut self, oldest: u64) {
        let open = self.sessions.values().filter_map(|backend| backend.transaction.as_ref()?.snapshot);
        let horizon = open.fold(self.flushed.min(oldest), u64::min);
        self.relations.values_mut().for_each(|relation| relation.prune(horizon));
        for values in self.sequences.values_mut() {
            let older = values.partition_point(|value| value.0 < horizon);
            values.drain(..older.saturating_sub(1));
        }
        self.pruned = self.pruned.max(horizon);
    }
}

struct Shared<V> {
    state: Mutex<State<V>>,
    changed: Notify,
}

impl<V: Clone> Shared<V> {
    fn with<T>(&self, work: impl FnOnce(&mut State<V>) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state);
        if std::mem::take(&mut state.is_changed) && !state.waiting.is_empty() {
            self.changed.notify_waiters();
        }
        result
    }
}

/// The server. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Engine<V: Clone + Send + Sync + 'static>(Arc<Shared<V>>);

impl<V: Clone + Send + Sync + 'static> Default for Engine<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Clone + Send + Sync + 'static> Engine<V> {
    /// An empty server. A relation and a sequence exist as soon as they are named.
    pub fn new() -> Self {
        let state = State {
            relations: BTreeMap::new(),
            sequences: BTreeMap::new(),
            sessions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            committed: 0,
            flushed: 0,
            pruned: 0,
            last_id: 0,
            last_xid: 0,
            is_changed: false,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }))
    }

    /// Connects. Its statements wait without limit for table locks until it sets a lock timeout.
    pub fn session(&self) -> Session<V> {
        let id = self.0.with(|state| {
            let id = state.new_id();
            state.sessions.insert(id, Backend { lock_timeout: Duration::ZERO, transaction: None });
            id
        });
        Session { id, shared: Arc::clone(&self.0) }
    }

    /// The value that a sequence gave last; zero before the first.
    pub fn last(&self, sequence: &str) -> i64 {
        self.0.with(|state| state.sequences.get(sequence).and_then(|values| values.last()).map_or(0, |newest| newest.1))
    }

    /// The number of the last commit that changed something.
    pub fn now(&self) -> u64 {
        self.0.with(|state| state.committed)
    }

    /// The number of the last commit that survives a crash.
    pub fn flushed(&self) -> u64 {
        self.0.with(|state| state.flushed)
    }

    /// Makes all commits so far survive a crash.
    pub fn flush(&self) {
        self.0.with(|state| state.flushed = state.committed);
    }

    /// Restarts the server: unflushed commits and open transactions are lost, and all sessions are gone. Sequences go on.
    pub fn crash(&self) {
        self.0.with(State::crash);
    }

    /// Restarts the server from a backup of a commit, with the sequences as they were when it committed. Says which commit:
    /// none that was pruned, or that is yet to come.
    pub fn restore(&self, to: u64) -> u64 {
        self.0.with(|state| state.restore(to))
    }

    /// Terminates the backend of a session.
    pub fn end(&self, session: u64) {
        self.0.with(|state| state.end(session));
    }

    /// The rows of a relation as a commit left them, regardless of locks and of truncations since.
    pub fn read_at(&self, relation: &str, at: u64) -> Vec<(Key, V)> {
        self.0.with(|state| {
            let rows = state.relations.get(relation).into_iter().flat_map(|relation| relation.rows_at(at));
            rows.map(|(key, value)| (key.clone(), value.clone())).collect()
        })
    }

    /// One row as the newest commit left it, regardless of locks.
    pub fn committed_row(&self, relation: &str, key: &Key) -> Option<V> {
        self.0.with(|state| state.relations.get(relation)?.rows.get(key)?.at(u64::MAX).cloned())
    }

    /// Whether a session waits for a lock on a relation that the transaction of this number keeps it from.
    pub fn is_waited_for(&self, xid: u64) -> bool {
        self.0.with(|state| state.is_waited_for(xid))
    }

    /// How many sessions one that waits for a lock of a table waits for (`pg_blocking_pids`); zero where it does not.
    pub fn ahead_of(&self, session: u64) -> usize {
        self.0.with(|state| state.ahead_of(session))
    }

    /// The rows of a relation that are committed, regardless of locks.
    pub fn committed(&self, relation: &str) -> Vec<(Key, V)> {
        self.read_at(relation, u64::MAX)
    }

    /// Forgets versions that no open snapshot sees and no crash goes back to. Earlier commits cannot be read or restored.
    pub fn prune(&self) {
        self.prune_before(u64::MAX);
    }

    /// The same, but the commits from `oldest` on can still be read and restored.
    pub fn prune_before(&self, oldest: u64) {
        self.0.with(|state| state.prune(oldest));
    }
}

/// A connection. It runs one statement at a time; a statement that is dropped while it waits has failed (a cancel request).
pub struct Session<V: Clone + Send + Sync + 'static> {
    id: u64,
    shared: Arc<Shared<V>>,
}

impl<V: Clone + Send + Sync + 'static> Drop for Session<V> {
    fn drop(&mut self) {
        self.with(|state| state.end(self.id));
    }
}

/// A statement that runs; one that does not finish fails.
struct Statement<'a, V: Clone + Send + Sync + 'static> {
    session: &'a Session<V>,
    is_done: bool,
}

impl<V: Clone + Send + Sync + 'static> Statement<'_, V> {
    fn finish<T>(mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        self.is_done = true;
        self.session.with(|state| state.finish(self.session.id, result))
    }
}

impl<V: Clone + Send + Sync + 'static> Drop for Statement<'_, V> {
    fn drop(&mut self) {
        if !self.is_done {
            self.session.with(|state| state.fail(self.session.id));
        }
    }
}

/// A place among those who wait.
struct Ticket<'a, V: Clone>(&'a Shared<V>, u64);

impl<V: Clone> Drop for Ticket<'_, V> {
    fn drop(&mut self) {
        self.0.with(|state| {
            state.waiting.remove(&self.1);
            state.is_changed = true; // those behind it
        });
    }
}

impl<V: Clone + Send + Sync + 'static> Session<V> {
    fn with<T>(&self, work: impl FnOnce(&mut State<V>) -> T) -> T {
        self.shared.with(work)
    }

    fn statement(&self, takes_snapshot: bool) -> Result<Statement<'_, V>, Failure> {
        self.with(|state| state.start(self.id, takes_snapshot))?;
        Ok(Statement { session: self, is_done: false })
    }

    /// What `Engine::end` takes.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How long a statement waits for a table lock that it needs on the way; zero is without limit.
    pub fn set_lock_timeout(&self, limit: Duration) -> Result<(), Failure> {
        self.with(|state| state.backend(self.id).map(|backend| backend.lock_timeout = limit))
    }

    /// Begins a transaction; within one it changes nothing.
    pub fn begin(&self, isolation: Isolation) -> Result<(), Failure> {
        self.with(|state| state.begin(self.id, isolation))
    }

    /// Whether a transaction is open, be it aborted.
    pub fn is_open(&self) -> bool {
        self.with(|state| state.looking(self.id).is_some())
    }

    /// Whether the server still knows it.
    pub fn is_gone(&self) -> bool {
        self.with(|state| state.backend(self.id).is_err())
    }

    /// Commits, and says under which number: the last one if nothing was changed. An aborted transaction is rolled back.
    pub fn commit(&self, is_synchronous: bool) -> Result<u64, Failure> {
        self.with(|state| state.commit(self.id, is_synchronous))
    }

    /// Rolls back what is open, if anything.
    pub fn rollback(&self) {
        self.with(|state| state.rollback(self.id));
    }

    /// Marks the transaction aborted, as if a statement had failed so; says what to fail with.
    pub fn abort_with(&self, failure: Failure) -> Failure {
        if self.is_gone() {
            return Failure::Gone;
        }
        if failure != Failure::Gone {
            self.with(|state| state.fail(self.id));
        }
        failure
    }

    /// Sets a savepoint; outside a transaction it fails as aborted.
    pub fn savepoint(&self, name: &str) -> Result<(), Failure> {
        self.with(|state| {
            let transaction = state.backend(self.id)?.transaction.as_mut().ok_or(Failure::Aborted)?;
            if transaction.is_aborted {
                return Err(Failure::Aborted);
            }
            transaction.savepoints.push((name.to_owned(), transaction.mark()));
            Ok(())
        })
    }

    /// Undoes all since a savepoint, locks and failures included, and keeps the savepoint.
    pub fn rollback_to(&self, name: &str) -> Result<(), Failure> {
        self.with(|state| state.rollback_to(self.id, name))
    }

    /// Forgets a savepoint and those after it; what was done since stays.
    pub fn release(&self, name: &str) -> Result<(), Failure> {
        self.with(|state| {
            let is_aborted = state.looking(self.id).is_some_and(|transaction| transaction.is_aborted);
            let position = if is_aborted { Err(Failure::Aborted) } else { state.savepoint(self.id, name) }?;
            state.open(self.id)?.savepoints.truncate(position);
            Ok(())
        })
    }

    fn read<T>(&self, relation: &str, look: impl FnOnce(&State<V>) -> Result<T, Failure>) -> Result<T, Failure> {
        let statement = self.statement(true)?;
        let result = self.with(|state| {
            let is_free = state.take_table(self.id, relation, Lock::AccessShare, u64::MAX)?;
            if is_free { look(state) } else { Err(Failure::Locked) }
        });
        statement.finish(result)
    }

    /// Reads a row; does not wait for whoever shuts readers out.
    pub fn get(&self, relation: &str, key: &Key) -> Result<Option<V>, Failure> {
        self.read(relation, |state| Ok(state.get(self.id, relation, key)?.cloned()))
    }

    /// Reads all rows, in the order of their keys; does not wait for whoever shuts readers out.
    pub fn scan(&self, relation: &str) -> Result<Vec<(Key, V)>, Failure> {
        self.read(relation, |state| state.scan(self.id, relation))
    }

    /// Inserts or overwrites a row.
    pub async fn put(&self, relation: &str, key: Key, value: V, wait: Wait) -> Result<(), Failure> {
        let statement = self.statement(true)?;
        let result = self.try_put(relation, key, value, wait).await;
        statement.finish(result)
    }

    async fn try_put(&self, relation: &str, key: Key, value: V, wait: Wait) -> Result<(), Failure> {
        self.acquire_implicitly(relation).await?;
        self.acquire(relation, Want::Row(&key), wait).await?;
        self.with(|state| {
            state.check(self.id, relation, &key)?;
            state.write(self.id, Change::Write(relation.to_owned(), key, Some(value)))
        })
    }

    /// Deletes a row; says whether there was one.
    pub async fn delete(&self, relation: &str, key: &Key, wait: Wait) -> Result<bool, Failure> {
        let statement = self.statement(true)?;
        let result = self.try_lock_row(relation, key, wait).await.and_then(|is_there| {
            let change = is_there.then(|| Change::Write(relation.to_owned(), key.clone(), None));
            change.map_or(Ok(()), |change| self.with(|state| state.write(self.id, change)))?;
            Ok(is_there)
        });
        statement.finish(result)
    }

    /// Locks a row for update; says whether there is one.
    pub async fn lock_row(&self, relation: &str, key: &Key, wait: Wait) -> Result<bool, Failure> {
        let statement = self.statement(true)?;
        let result = self.try_lock_row(relation, key, wait).await;
        statement.finish(result)
    }

    async fn try_lock_row(&self, relation: &str, key: &Key, wait: Wait) -> Result<bool, Failure> {
        self.acquire_implicitly(relation).await?;
        if !self.with(|state| state.get(self.id, relation, key).map(|row| row.is_some()))? {
            return Ok(false);
        }
        self.acquire(relation, Want::Row(key), wait).await?;
        self.with(|state| state.confirm(self.id, relation, key))
    }

    /// Locks a relation until the transaction ends.
    pub async fn lock_relation(&self, relation: &str, lock: Lock, wait: Wait) -> Result<(), Failure> {
        let statement = self.statement(false)?;
        let result = self.acquire(relation, Want::Table(lock), wait).await;
        statement.finish(result)
    }

    /// Empties a relation, for older snapshots as well. Its commit is always flushed, as in PostgreSQL.
    pub async fn truncate(&self, relation: &str, wait: Wait) -> Result<(), Failure> {
        let statement = self.statement(false)?;
        let result = self.acquire(relation, Want::Table(Lock::AccessExclusive), wait).await;
        let write = || self.with(|state| state.write(self.id, Change::Truncate(relation.to_owned())));
        statement.finish(result.and_then(|()| write()))
    }

    async fn acquire_implicitly(&self, relation: &str) -> Result<(), Failure> {
        let limit = self.with(|state| state.backend(self.id).map(|backend| backend.lock_timeout))?;
        self.acquire(relation, Want::Table(Lock::RowExclusive), Wait::For(limit)).await
    }

    async fn acquire(&self, relation: &str, want: Want<&Key>, wait: Wait) -> Result<(), Failure> {
        if self.with(|state| state.take(self.id, relation, &want, u64::MAX))? {
            return Ok(());
        }
        match wait {
            Wait::No => Err(Failure::Locked),
            Wait::For(Duration::ZERO) => self.await_lock(relation, want).await,
            Wait::For(limit) => timeout(limit, self.await_lock(relation, want)).await.unwrap_or(Err(Failure::Locked)),
        }
    }

    async fn await_lock(&self, relation: &str, want: Want<&Key>) -> Result<(), Failure> {
        let ticket = self.queue(relation, &want);
        loop {
            let changed = self.shared.changed.notified();
            if self.with(|state| state.take(self.id, relation, &want, ticket.1))? {
                return Ok(());
            }
            changed.await;
        }
    }

    fn queue(&self, relation: &str, want: &Want<&Key>) -> Ticket<'_, V> {
        let want = match want {
            Want::Table(lock) => Want::Table(*lock),
            Want::Row(key) => Want::Row((*key).clone()),
        };
        let waiter = Waiter { session: self.id, relation: relation.to_owned(), want };
        let ticket = self.with(|state| {
            let ticket = state.new_id();
            state.waiting.insert(ticket, waiter);
            ticket
        });
        Ticket(&self.shared, ticket)
    }

    /// The next value of a sequence, which no rollback takes back.
    pub fn next(&self, sequence: &str) -> Result<i64, Failure> {
        let statement = self.statement(false)?;
        let value = self.with(|state| state.next(sequence));
        statement.finish(Ok(value))
    }

    /// A statement that does nothing.
    pub fn ping(&self) -> Result<(), Failure> {
        self.statement(false)?.finish(Ok(()))
    }

    /// The commit number that the open transaction reads at, if it is a repeatable read that has read.
    pub fn snapshot(&self) -> Option<u64> {
        self.with(|state| state.looking(self.id)?.snapshot)
    }

    /// The number of the transaction, which it gets now if it has written nothing yet.
    pub fn xid(&self) -> Result<u64, Failure> {
        let statement = self.statement(false)?;
        let xid = self.with(|state| state.xid(self.id));
        statement.finish(xid)
    }

    /// Whether another session holds a lock of this mode on a relation.
    pub fn is_locked_by_others(&self, relation: &str, lock: Lock) -> bool {
        self.with(|state| {
            let mut locks = state.relations.get(relation).into_iter().flat_map(|relation| &relation.locks);
            locks.any(|(holder, modes)| *holder != self.id && modes & lock.bit() != 0)
        })
    }

    /// Whether another session waits for a lock of this mode on a relation.
    pub fn is_wanted_by_others(&self, relation: &str, lock: Lock) -> bool {
        self.with(|state| {
            state.wanted(self.id, relation, |want| matches!(want, Want::Table(wanted) if *wanted == lock))
        })
    }

    /// Whether another session waits for a lock on a relation that this one's transaction keeps it from.
    pub fn waiters(&self, relation: &str) -> bool {
        self.with(|state| {
            let held = state.relations.get(relation).and_then(|found| found.locks.get(&self.id)).copied().unwrap_or(0);
            let is_kept = |want: &Want<Key>| matches!(want, Want::Table(lock) if lock.conflicts() & held != 0);
            state.wanted(self.id, relation, is_kept)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Isolation::{ReadCommitted, RepeatableRead};
    use tokio::time::{Instant, sleep};

    const SECOND: Wait = Wait::For(Duration::from_secs(1));

    fn key(name: &str) -> Key {
        vec![name.to_owned()]
    }

    fn rows(rows: &[(&str, i32)]) -> Vec<(Key, i32)> {
        rows.iter().map(|(name, value)| (key(name), *value)).collect()
    }

    /// Two sessions of a server where row "a" of relation "r" is 1.
    async fn two() -> (Engine<i32>, Session<i32>, Session<i32>) {
        let engine = Engine::new();
        let (one, other) = (engine.session(), engine.session());
        one.put("r", key("a"), 1, Wait::No).await.unwrap();
        (engine, one, other)
    }

    async fn put(session: &Session<i32>, name: &str, value: i32) -> Result<(), Failure> {
        session.put("r", key(name), value, SECOND).await
    }

    async fn commit_later(session: &Session<i32>, millis: u64) -> Result<u64, Failure> {
        sleep(Duration::from_millis(millis)).await;
        session.commit(true)
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeatable_read_has_one_snapshot_from_its_first_read() {
        let (engine, one, other) = two().await;
        one.begin(RepeatableRead).unwrap();
        one.lock_relation("x", Lock::RowExclusive, Wait::No).await.unwrap();
        assert_eq!(one.snapshot(), None);
        put(&other, "a", 2).await.unwrap();
        assert_eq!(one.get("r", &key("a")), Ok(Some(2)));
        assert_eq!(one.snapshot(), Some(2));
        put(&other, "a", 3).await.unwrap();
        put(&other, "b", 3).await.unwrap();
        put(&one, "c", 4).await.unwrap();
        assert_eq!(one.scan("r"), Ok(rows(&[("a", 2), ("c", 4)])));
        assert_eq!(one.commit(true), Ok(5));
        assert_eq!((one.is_open(), one.snapshot()), (false, None));
        assert_eq!(engine.committed("r"), rows(&[("a", 3), ("b", 3), ("c", 4)]));
        assert_eq!(engine.read_at("r", 1), rows(&[("a", 1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_committed_statement_sees_the_newest_commit_and_its_own_writes() {
        let (engine, one, other) = two().await;
        one.begin(ReadCommitted).unwrap();
        assert_eq!(one.scan("r"), Ok(rows(&[("a", 1)])));
        put(&other, "a", 2).await.unwrap();
        put(&one, "b", 3).await.unwrap();
        assert_eq!(one.scan("r"), Ok(rows(&[("a", 2), ("b", 3)])));
        assert_eq!(one.delete("r", &key("b"), Wait::No).await, Ok(true));
        assert_eq!(one.delete("r", &key("b"), Wait::No).await, Ok(false));
        assert_eq!((one.get("r", &key("b")), other.get("r", &key("b"))), (Ok(None), Ok(None)));
        one.rollback();
        assert_eq!((engine.now(), one.snapshot()), (2, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_locked_row_is_waited_for_or_not() {
        let (_, one, other) = two().await;
        one.begin(ReadCommitted).unwrap();
        assert_eq!(one.lock_row("r", &key("a"), Wait::No).await, Ok(true));
        assert_eq!(other.put("r", key("a"), 2, Wait::No).await, Err(Failure::Locked));
        let begun = Instant::now();
        assert_eq!(other.lock_row("r", &key("a"), SECOND).await, Err(Failure::Locked));
        assert_eq!(begun.elapsed().as_secs(), 1);
        let waiting = async { (put(&other, "a", 2).await, begun.elapsed().as_millis()) };
        let (_, done) = tokio::join!(commit_later(&one, 300), waiting);
        assert!(done.0.is_ok() && (1300..1310).contains(&done.1));
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_wait_a_repeatable_read_conflicts_and_a_read_committed_goes_on() {
        for (isolation, expected) in [(RepeatableRead, Err(Failure::Conflict)), (ReadCommitted, Ok(()))] {
            let (engine, one, other) = two().await;
            one.begin(ReadCommitted).unwrap();
            put(&one, "a", 2).await.unwrap();
            other.begin(isolation).unwrap();
            assert_eq!(other.get("r", &key("a")), Ok(Some(1)));
            let (_, done) = tokio::join!(commit_later(&one, 100), put(&other, "a", 3));
            assert_eq!(done, expected);
            assert_eq!(other.commit(true).is_ok(), expected.is_ok());
            assert_eq!(engine.committed("r"), rows(&[("a", if expected.is_ok() { 3 } else { 2 })]));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeatable_read_conflicts_without_a_wait_and_not_after_a_rollback() {
        let (_, one, other) = two().await;
        one.begin(RepeatableRead).unwrap();
        one.scan("r").unwrap();
        put(&other, "a", 2).await.unwrap();
        put(&other, "b", 2).await.unwrap();
        assert_eq!(one.delete("r", &key("b"), Wait::No).await, Ok(false));
        assert_eq!(one.lock_row("r", &key("a"), Wait::No).await, Err(Failure::Conflict));
        one.rollback();
        one.begin(RepeatableRead).unwrap();
        put(&one, "a", 3).await.unwrap();
        other.begin(RepeatableRead).unwrap();
        let undo = async {
            sleep(Duration::from_millis(10)).await;
            one.rollback();
        };
        let (_, done) = tokio::join!(undo, put(&other, "a", 4));
        assert_eq!((done, other.commit(true)), (Ok(()), Ok(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_is_gone_after_the_wait_is_not_found_and_not_locked() {
        let (_, one, other) = two().await;
        let third = one.shared.clone();
        one.begin(ReadCommitted).unwrap();
        one.delete("r", &key("a"), Wait::No).await.unwrap();
        other.begin(ReadCommitted).unwrap();
        let row = key("a");
        let (_, done) = tokio::join!(commit_later(&one, 10), other.delete("r", &row, SECOND));
        assert_eq!(done, Ok(false));
        assert!(third.with(|state| state.relation("r").rows[&row].holder.is_none()));
        assert_eq!(one.put("r", row, 5, Wait::No).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_inserts_the_same_key_waits_then_overwrites_or_conflicts() {
        for (isolation, expected) in [(RepeatableRead, Err(Failure::Conflict)), (ReadCommitted, Ok(()))] {
            let (_, one, other) = two().await;
            one.begin(ReadCommitted).unwrap();
            put(&one, "new", 2).await.unwrap();
            other.begin(isolation).unwrap();
            assert_eq!(other.delete("r", &key("new"), Wait::No).await, Ok(false));
            let (_, done) = tokio::join!(commit_later(&one, 10), put(&other, "new", 3));
            assert_eq!(done, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_aborts_the_transaction_and_frees_what_it_held() {
        let (engine, one, other) = two().await;
        one.begin(ReadCommitted).unwrap();
        put(&one, "b", 2).await.unwrap();
        assert_eq!(one.abort_with(Failure::Locked), Failure::Locked);
        assert_eq!(one.get("r", &key("a")), Err(Failure::Aborted));
        assert_eq!((one.next("s"), one.savepoint("p")), (Err(Failure::Aborted), Err(Failure::Aborted)));
        assert_eq!(other.put("r", key("b"), 3, Wait::No).await, Ok(()));
        assert!(one.is_open());
        assert_eq!((one.commit(true), one.is_open()), (Err(Failure::Aborted), false));
        assert_eq!(engine.committed("r"), rows(&[("a", 1), ("b", 3)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_savepoint_undoes_writes_locks_and_failures() {
        let (engine, one, other) = two().await;
        one.begin(ReadCommitted).unwrap();
        put(&one, "b", 2).await.unwrap();
        one.savepoint("p").unwrap();
        put(&one, "b", 3).await.unwrap();
        one.truncate("r", Wait::No).await.unwrap();
        put(&one, "c", 3).await.unwrap();
        assert_eq!(one.scan("r"), Ok(rows(&[("c", 3)])));
        one.abort_with(Failure::Conflict);
        assert_eq!(one.release("p"), Err(Failure::Aborted));
        for _ in 0..2 {
            one.rollback_to("p").unwrap();
            assert_eq!(one.scan("r"), Ok(rows(&[("a", 1), ("b", 2)])));
        }
        assert_eq!(other.put("r", key("c"), 4, Wait::No).await, Ok(()));
        assert_eq!(other.put("r", key("b"), 4, Wait::No).await, Err(Failure::Locked));
        one.release("p").unwrap();
        one.commit(true).unwrap();
        assert_eq!(engine.committed("r"), rows(&[("a", 1), ("b", 2), ("c", 4)]));
        one.begin(ReadCommitted).unwrap();
        assert_eq!((one.rollback_to("p"), one.get("r", &key("a"))), (Err(Failure::Aborted), Err(Failure::Aborted)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_on_its_own_is_a_transaction() {
        let (engine, one, other) = two().await;
        assert_eq!((engine.now(), engine.flushed(), one.is_open()), (1, 1, false));
        other.begin(ReadCommitted).unwrap();
        other.lock_row("r", &key("a"), Wait::No).await.unwrap();
        assert_eq!(one.put("r", key("a"), 2, Wait::No).await, Err(Failure::Locked));
        assert_eq!((one.is_open(), one.get("r", &key("a"))), (false, Ok(Some(1))));
        assert!(!other.is_locked_by_others("r", Lock::RowExclusive));
    }

    #[tokio::test(start_paused = true)]
    async fn table_locks_conflict_as_in_postgres() {
        use Lock::{AccessExclusive, AccessShare, Exclusive, RowExclusive};
        let all = [AccessShare, RowExclusive, Exclusive, AccessExclusive];
        let (_, one, other) = two().await;
        for (i, held) in all.into_iter().enumerate() {
            for (j, wanted) in all.into_iter().enumerate() {
                one.begin(ReadCommitted).unwrap();
                one.lock_relation("r", held, Wait::No).await.unwrap();
                let is_free = other.lock_relation("r", wanted, Wait::No).await.is_ok();
                assert_eq!(is_free, i + j < 3 && (i, j) != (2, 2) || (i, j) == (1, 1), "{held:?} {wanted:?}");
                assert!(other.is_locked_by_others("r", held) && !one.is_locked_by_others("r", held));
                one.rollback();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn statements_lock_their_relation() {
        let (_, one, other) = two().await;
        one.begin(ReadCommitted).unwrap();
        one.lock_relation("r", Lock::Exclusive, Wait::No).await.unwrap();
        assert_eq!(other.get("r", &key("a")), Ok(Some(1)));
        other.set_lock_timeout(Duration::from_millis(50)).unwrap();
        let begun = Instant::now();
        assert_eq!(other.put("r", key("z"), 1, Wait::No).await, Err(Failure::Locked));
        assert!((50..60).contains(&begun.elapsed().as_millis()));
        one.lock_relation("r", Lock::AccessExclusive, Wait::No).await.unwrap();
        assert_eq!((other.get("r", &key("a")), other.scan("r")), (Err(Failure::Locked), Err(Failure::Locked)));
        other.set_lock_timeout(Duration::ZERO).unwrap();
        let row = key("a");
        let (_, done) = tokio::join!(commit_later(&one, 5_000), other.lock_row("r", &row, Wait::No));
        assert_eq!(done, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_seen_by_whom_it_waits_for() {
        let (engine, one, other) = two().await;
        let third = engine.session();
        one.begin(ReadCommitted).unwrap();
        one.scan("r").unwrap();
        let look = async {
            sleep(Duration::from_millis(1)).await;
            (one.waiters("r"), third.waiters("r"), one.is_wanted_by_others("r", Lock::AccessExclusive))
        };
        let (done, seen) = tokio::join!(other.truncate("r", SECOND), look);
        assert_eq!((done, seen), (Err(Failure::Locked), (true, false, true)));
        assert!(!one.waiters("r"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_later_stands_behind_those_who_wait() {
        let (engine, one, other) = two().await;
        let third = engine.session();
        one.begin(ReadCommitted).unwrap();
        one.scan("r").unwrap();
        let xid = one.xid().unwrap();
        let truncation = async {
            other.begin(ReadCommitted).unwrap();
            other.truncate("r", SECOND).await.unwrap();
            other.commit(true).unwrap()
        };
        let look = async {
            sleep(Duration::from_millis(1)).await;
            assert_eq!((third.scan("r"), one.scan("r").map(|rows| rows.len())), (Err(Failure::Locked), Ok(1)));
            assert_eq!(third.lock_relation("r", Lock::AccessShare, Wait::No).await, Err(Failure::Locked));
            assert!(engine.is_waited_for(xid) && !engine.is_waited_for(xid + 1));
            one.rollback();
            assert_eq!(third.lock_relation("r", Lock::AccessShare, Wait::No).await, Err(Failure::Locked));
            third.lock_relation("r", Lock::AccessShare, SECOND).await.unwrap();
            engine.now()
        };
        let (truncated, seen) = tokio::join!(truncation, look);
        assert_eq!((truncated, seen, engine.committed_row("r", &key("a"))), (2, 2, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_truncation_empties_older_snapshots() {
        let (engine, one, other) = two().await;
        put(&other, "b", 1).await.unwrap();
        one.begin(RepeatableRead).unwrap();
        one.scan("x").unwrap();
        other.begin(ReadCommitted).unwrap();
        other.truncate("r", Wait::No).await.unwrap();
        put(&other, "new", 2).await.unwrap();
        assert_eq!(other.commit(false), Ok(3));
        assert_eq!(engine.flushed(), 3);
        assert_eq!((one.snapshot(), one.scan("r"), one.get("r", &key("a"))), (Some(2), Ok(vec![]), Ok(None)));
        assert_eq!(one.delete("r", &key("a"), Wait::No).await, Ok(false));
        put(&one, "a", 5).await.unwrap();
        assert_eq!(one.scan("r"), Ok(rows(&[("a", 5)])));
        assert_eq!(put(&one, "new", 5).await, Err(Failure::Conflict));
        assert_eq!(engine.committed("r"), rows(&[("new", 2)]));
        assert_eq!(engine.read_at("r", 2), rows(&[("a", 1), ("b", 1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sequence_is_not_ordered_by_commit_nor_rolled_back() {
        let (engine, one, other) = two().await;
        one.begin(ReadCommitted).unwrap();
        other.begin(ReadCommitted).unwrap();
        let (first, second) = (one.next("s").unwrap(), other.next("s").unwrap());
        put(&one, "first", first as i32).await.unwrap();
        put(&other, "second", second as i32).await.unwrap();
        let (second, first) = (other.commit(true).unwrap(), one.commit(true).unwrap());
        assert!(second < first);
        assert_eq!(engine.read_at("r", second), rows(&[("a", 1), ("second", 2)]));
        one.begin(ReadCommitted).unwrap();
        one.next("s").unwrap();
        one.rollback();
        assert_eq!((engine.last("s"), engine.last("unknown")), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_loses_what_is_not_flushed() {
        let (engine, one, other) = two().await;
        let quick = async |value| {
            one.begin(ReadCommitted).unwrap();
            one.put("r", key("a"), value, Wait::No).await.unwrap();
            one.commit(false).unwrap()
        };
        quick(2).await;
        assert_eq!((engine.now(), engine.flushed()), (2, 1));
        put(&other, "b", 1).await.unwrap();
        assert_eq!(engine.flushed(), 3);
        one.next("s").unwrap();
        quick(3).await;
        quick(4).await;
        one.next("s").unwrap();
        other.begin(ReadCommitted).unwrap();
        put(&other, "b", 9).await.unwrap();
        let crash = async { engine.crash() };
        let third = engine.session();
        let (done, ()) = tokio::join!(put(&third, "b", 8), crash);
        assert_eq!(done, Err(Failure::Gone));
        assert_eq!(
            (other.commit(true), other.is_open(), one.scan("r")),
            (Err(Failure::Gone), false, Err(Failure::Gone))
        );
        assert_eq!((engine.now(), engine.last("s")), (3, 2));
        assert_eq!(engine.committed("r"), rows(&[("a", 2), ("b", 1)]));
        let new = engine.session();
        assert_eq!((new.next("s"), new.put("r", key("b"), 7, Wait::No).await), (Ok(3), Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restore_takes_sequences_back_as_well() {
        let (engine, one, other) = two().await;
        for value in 2..5 {
            one.begin(ReadCommitted).unwrap();
            one.next("s").unwrap();
            put(&one, "a", value).await.unwrap();
            one.commit(false).unwrap();
        }
        other.next("s").unwrap();
        other.truncate("r", Wait::No).await.unwrap();
        assert_eq!(engine.restore(3), 3);
        assert!(one.is_gone());
        assert_eq!((engine.now(), engine.flushed(), engine.last("s")), (3, 3, 2));
        assert_eq!((engine.committed("r"), engine.session().scan("r")), (rows(&[("a", 3)]), Ok(rows(&[("a", 3)]))));
        assert_eq!(engine.session().next("s"), Ok(3));
        assert_eq!((engine.restore(0), engine.last("s"), engine.committed("r").len()), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_ends_is_rolled_back() {
        let (engine, one, other) = two().await;
        one.begin(ReadCommitted).unwrap();
        put(&one, "a", 2).await.unwrap();
        engine.end(one.id());
        assert_eq!((one.commit(true), one.begin(ReadCommitted)), (Err(Failure::Gone), Err(Failure::Gone)));
        assert_eq!(one.abort_with(Failure::Locked), Failure::Gone);
        other.begin(ReadCommitted).unwrap();
        other.put("r", key("a"), 3, Wait::No).await.unwrap();
        drop(other);
        assert_eq!(engine.session().put("r", key("a"), 4, Wait::No).await, Ok(()));
        assert_eq!(engine.read_at("r", 2), rows(&[("a", 4)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_that_is_dropped_has_failed() {
        let (_, one, other) = two().await;
        one.begin(ReadCommitted).unwrap();
        put(&one, "a", 2).await.unwrap();
        other.begin(ReadCommitted).unwrap();
        assert!(timeout(Duration::from_millis(1), put(&other, "a", 3)).await.is_err());
        assert_eq!(other.scan("r"), Err(Failure::Aborted));
        assert!(one.shared.with(|state| state.waiting.is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn pruning_keeps_what_is_seen_or_may_be_gone_back_to() {
        let (engine, one, other) = two().await;
        one.begin(RepeatableRead).unwrap();
        one.scan("r").unwrap();
        put(&other, "a", 2).await.unwrap();
        other.delete("r", &key("a"), Wait::No).await.unwrap();
        other.next("s").unwrap();
        engine.prune();
        assert_eq!(one.scan("r"), Ok(rows(&[("a", 1)])));
        one.rollback();
        put(&other, "b", 2).await.unwrap();
        engine.prune();
        assert_eq!((engine.read_at("r", 2), engine.committed("r")), (vec![], rows(&[("b", 2)])));
        assert!(!one.shared.with(|state| state.relation("r").rows.contains_key(&key("a"))));
        assert_eq!((engine.restore(1), engine.last("s"), engine.committed("r")), (4, 1, rows(&[("b", 2)])));
    }

    #[tokio::test(start_paused = true)]
    async fn transaction_numbers_rise_from_the_first_use() {
        let (_, one, other) = two().await;
        one.begin(ReadCommitted).unwrap();
        other.begin(ReadCommitted).unwrap();
        put(&other, "b", 1).await.unwrap();
        let (later, earlier) = (one.xid().unwrap(), other.xid().unwrap());
        assert!(later > earlier && one.xid() == Ok(later));
        one.commit(true).unwrap();
        assert!(one.xid().unwrap() > later);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_go_on_in_the_same_order_every_time() {
        let run = async || {
            let (engine, one, _) = two().await;
            one.begin(ReadCommitted).unwrap();
            put(&one, "a", 0).await.unwrap();
            let tasks = (1..=5).map(|value| {
                let session = engine.session();
                tokio::spawn(async move { session.put("r", key("a"), value, SECOND).await })
            });
            let tasks: Vec<_> = tasks.collect();
            commit_later(&one, 10).await.unwrap();
            for task in tasks {
                task.await.unwrap().unwrap();
            }
            (2..=7).map(|at| engine.read_at("r", at)[0].1).collect::<Vec<_>>()
        };
        let first = run().await;
        assert_eq!(first.len(), 6);
        assert_eq!(first, run().await);
    }

    /// What commits left of a relation, by their number; a commit without changes has none.
    async fn scribble(session: &Session<i32>, history: &mut Vec<Vec<(Key, i32)>>, seed: &mut u64) {
        let mut roll = |sides: u64| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*seed >> 33) % sides
        };
        session.begin(RepeatableRead).unwrap();
        for _ in 0..=roll(4) {
            let name = format!("{}", roll(8));
            match roll(12) {
                0 => session.truncate("r", Wait::No).await.unwrap(),
                1..=5 => drop(session.delete("r", &key(&name), Wait::No).await.unwrap()),
                _ => put(session, &name, roll(1_000) as i32).await.unwrap(),
            }
        }
        let seen = session.scan("r").unwrap();
        if session.commit(roll(2) == 0).unwrap() as usize == history.len() {
            history.push(seen);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_commit_can_be_read_and_restored() {
        let (engine, mut history, mut seed) = (Engine::new(), vec![vec![]], 7);
        for round in 0..200 {
            let session = engine.session();
            for _ in 0..10 {
                scribble(&session, &mut history, &mut seed).await;
            }
            match round % 10 {
                3 => engine.crash(),
                6 => drop(engine.restore(engine.now() - 5)),
                9 => engine.prune_before(engine.now() - 20),
                _ => {}
            }
            history.truncate(engine.now() as usize + 1);
            let oldest = engine.0.with(|state| state.pruned);
            for at in oldest..=engine.now() {
                assert_eq!(engine.read_at("r", at), history[at as usize], "{at}");
            }
            assert_eq!(engine.session().scan("r").unwrap(), engine.committed("r"));
        }
    }
}
