//! What a step asks of the queue and the books beside it, and of the transaction that holds all of it.

use crate::core::error::Result;
use crate::core::event::Event;
use crate::core::message::MarkedKey;
use crate::core::position::{Entry, Fate, Head, Identity};
use crate::core::reconcile::RetainedStep;
use crate::postgres::bell::Doze;
use crate::postgres::books::comparisons::Pass;
use crate::postgres::books::dead_letters::{Dead, DeadLetter, Supersedable, Superseded};
use crate::postgres::books::progress::Snapshot;
use crate::postgres::books::rebuilds::{Reason, Rebuild};
use crate::postgres::catalog::SourceTable;
use crate::postgres::drift::definition_version::{DefinitionVersion, Outgrown};
use crate::postgres::queue::{Take, Taken, TakenMessages};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::time::Duration;

/// All of it.
pub trait Journal: Transaction + Flight + Queue + Books + Bell {}

impl<T: Transaction + Flight + Queue + Books + Bell> Journal for T {}

/// How a step's transaction began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// With all locks.
    Locked,
    /// Not: somebody has a lock on one of the tables.
    TableTaken,
    /// Not: somebody has a lock on the queue.
    QueueTaken,
}

/// Places within a step to which it may go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Savepoint {
    /// Before messages are taken.
    Take,
    /// Before rows are read.
    Read,
}

/// The transaction. Statements outside of one are transactions of their own.
#[async_trait]
pub trait Transaction: Send + Sync {
    /// Begins that of a step, at one snapshot for all that it reads (REPEATABLE READ), which is not taken yet: with
    /// locks on the tables against whoever would empty or rewrite them, and on the queue against whoever would empty
    /// it. At once, or nothing is begun.
    async fn begin(&self, tables: &[&SourceTable]) -> Result<Begun>;

    /// Begins one that sees what is committed while it waits, for locks up to `patience`.
    async fn begin_waiting(&self, patience: Duration) -> Result<()>;

    /// Ends it; durable when this returns, unless a statement failed in it and was not gone back from: Postgres then
    /// rolls back without a word. An error may mean that it was committed.
    async fn commit(&self) -> Result<()>;

    /// Gives it up; nothing where there is none.
    async fn rollback(&self) -> Result<()>;

    /// Marks a place; statements take at most `limit` from then on.
    async fn savepoint(&self, name: Savepoint, limit: Option<Duration>) -> Result<()>;

    /// Goes back to it, and to the limits that held then; the place stays.
    async fn rollback_to(&self, name: Savepoint) -> Result<()>;

    /// Forgets it, and [`Read`](Savepoint::Read)'s limit.
    async fn release(&self, name: Savepoint) -> Result<()>;

    /// Statements take at most so long from now on.
    async fn limit(&self, time: Duration) -> Result<()>;

    /// The session behind this connection is its alone, which a pooler's is not: what recurs may be kept there.
    fn claim(&self) {}

    /// Prepares what has recurred since. Outside of transactions.
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    /// An error where the transaction is gone.
    async fn ping(&self) -> Result<()>;

    /// A sign of life, that may stand behind rows which nobody takes yet.
    async fn pulse(&self) -> Result<()>;

    /// All WAL up to now.
    async fn wal_position(&self) -> Result<String>;

    /// Whether it is on disk up to there.
    async fn is_flushed(&self, position: &str) -> Result<bool>;

    /// Brings all WAL to disk: a commit of its own. Not on the connection whose transaction is open.
    async fn flush(&self) -> Result<()>;
}

/// The single flight, the locks, and where the replica is: `pgflume.progress`.
#[async_trait]
pub trait Flight: Send + Sync {
    /// Creates what is missing beside the queue.
    async fn ensure(&self) -> Result<()>;

    /// Whether nothing is missing there, on a connection that has ensured it.
    async fn is_ensured(&self) -> Result<bool> {
        Ok(true)
    }

    /// Takes the single flight and the snapshot; `None` where another transaction has it.
    async fn lock(&self) -> Result<Option<Snapshot>>;

    /// The same by a look, without the lock.
    async fn look(&self) -> Result<Snapshot>;

    /// Waits for the single flight, as long as the transaction may wait for locks; whether it came.
    async fn wait_for_flight(&self) -> Result<bool>;

    /// How long to wait for a lock while nothing is held.
    fn lock_wait(&self) -> Duration;

    /// Waits that long until a step could lock this table; whether it can. Outside of a transaction.
    async fn wait_for_table(&self, source: &SourceTable) -> Result<bool>;

    /// The same of the queue.
    async fn wait_for_queue(&self) -> Result<bool>;

    /// Those of these tables that others have locked against readers, or are about to.
    async fn blocked(&self, tables: &[&SourceTable]) -> Result<Vec<String>>;

    /// Whether a session waits for what the transaction `xid` holds.
    async fn is_waited_for(&self, xid: &str) -> Result<bool>;

    /// Tells others of events, in the transaction at hand if there is one; of nothing where nobody is to be told.
    async fn tell(&self, _events: &[Event]) -> Result<()> {
        Ok(())
    }

    /// Leaves a note for the worker that has the single flight.
    async fn wake(&self) -> Result<()>;

    /// Notes left so far.
    async fn calls(&self) -> Result<i64>;

    /// Moves the acknowledged position.
    async fn advance(&self, head: &Head, identity: &Identity, is_caught_up: bool) -> Result<()>;

    /// Announces an epoch, before the replica at `address` learns of it. `refills`: its tables are filled again.
    async fn announce(&self, epoch: &str, address: &str, refills: bool) -> Result<()>;

    /// Pairs the queue with the replica at `head`; forgets what was retained and compared.
    async fn pair(&self, head: &Head, identity: &Identity, address: &str) -> Result<()>;

    /// Remembers where the replica is.
    async fn move_to(&self, address: &str) -> Result<()>;

    /// Remembers for `status` what was noticed about the two sides.
    async fn note_healing(&self, divergence: &str) -> Result<()>;

    /// What others took off the queue: how, who, how often. Forgets it.
    async fn take_losses(&self) -> Result<Vec<(String, String, i64)>>;

    /// What Postgres knows of each batch.
    async fn fates(&self, entries: &[Entry]) -> Result<Vec<Fate>>;

    /// Commits the name of a step, durably. Not on the step's connection.
    async fn name_step(&self, name: &str) -> Result<()>;

    /// Remembers the id of a signed request; `false` if it was used before.
    async fn redeem(&self, id: &str) -> Result<bool>;

    /// Whether it was used before.
    async fn is_redeemed(&self, id: &str) -> Result<bool>;
}

/// How a follower that sleeps is told; see the module [`bell`](crate::postgres). Outside of transactions.
#[async_trait]
pub trait Bell: Send + Sync {
    /// Listens from now on; `false` where nobody would ring.
    async fn listen(&self) -> Result<bool>;

    /// Rings by hand, with a word.
    async fn ring(&self, word: &str) -> Result<()>;

    /// Falls asleep, if nothing is on the queue and no writer is at work.
    async fn doze(&self) -> Result<Doze>;

    /// Comes back when somebody has rung, or the connection is gone; the last word.
    async fn rung(&self) -> String;

    /// Whether the session in which the next transaction runs is the one that listens.
    async fn is_listening(&self) -> Result<bool> {
        Ok(true)
    }

    /// Wakes up: nobody rings from now on.
    fn rouse(&self);

    /// Waits until the writers at work have ended, for a time; whether they have. Who comes meanwhile rings.
    async fn wait_behind(&self) -> Result<bool>;

    /// What this connection is called where it waits; `None` where nobody would ring.
    async fn waiter(&self) -> Result<Option<i32>>;

    /// Falls asleep, if nothing is on the queue and the connection `waiter` waits behind one writer only.
    async fn doze_behind(&self, waiter: i32) -> Result<Doze>;

    /// Wakes up from that: `waiter` waits no longer.
    fn call_off(&self, waiter: i32);
}

/// Is told each message as it comes.
pub type ReadsMessage<'a> = dyn FnMut(&Taken) + Send + 'a;

/// The queue. Messages are in the order of their ids, which is not the order in which they were committed.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Takes the oldest messages off the queue, each told to `read` as it comes, in any order.
    async fn take(&self, take: Take<'_>, read: &mut ReadsMessage<'_>) -> Result<TakenMessages>;

    /// Takes these, and gives those that were there, in order. With `keeps` they are retained.
    async fn acknowledge(&self, ids: &[i64], keeps: bool) -> Result<Vec<Taken>>;

    /// Marks keys of a table; how many messages that made.
    async fn mark(&self, table: &str, keys: &[MarkedKey]) -> Result<i64>;

    /// Puts messages on the queue: under the id that each had, where that is free and was given out; else behind all.
    async fn send_again(&self, messages: &[(Option<i64>, String)]) -> Result<()>;

    /// Makes dead letters of messages that are too large to be fetched; how many.
    async fn dead_letter_large(&self, ids: &[i64], reason: &str) -> Result<u64>;

    /// Whether any message is there.
    async fn has_any(&self) -> Result<bool>;

    /// The same outside of any transaction, and seldom wrong.
    async fn peek(&self) -> Result<bool>;

    /// How many there are; an estimate where that takes too long. Outside of any transaction.
    async fn depth(&self) -> Result<i64>;

    /// How many there are; `None` where that takes too long. Outside of any transaction.
    async fn counted(&self) -> Result<Option<i64>>;
}

/// Rebuilds, retained messages, dead letters, comparisons and definitions.
#[async_trait]
pub trait Books: Send + Sync {
    /// Asks for tables to be copied from the start.
    async fn schedule(&self, names: &[&str], reason: Reason) -> Result<()>;

    /// Asks for what a table no longer has to be removed; a copy under way goes on.
    async fn schedule_sweep(&self, name: &str) -> Result<()>;

    /// Begins all rebuilds anew, also those that are done.
    async fn restart_rebuilds(&self) -> Result<()>;

    /// Forgets all rebuilds.
    async fn cancel_rebuilds(&self) -> Result<()>;

    /// What is under way, in the order in which it was asked for.
    async fn pending(&self) -> Result<Vec<Rebuild>>;

    /// How many tables of `schema.json` are under way.
    async fn rebuilding(&self) -> Result<u64>;

    /// Records how far a rebuild is.
    async fn record_rebuild(&self, rebuild: &Rebuild) -> Result<()>;

    /// The replica has no row of these tables, whose copies have not begun.
    async fn note_empty(&self, names: &[&str]) -> Result<()>;

    /// Says why a rebuild waits.
    async fn set_problem(&self, name: &str, problem: &str) -> Result<()>;

    /// Retains the positions of a step, and forgets what is older than `window`.
    async fn retain(&self, after: &Head, tokens: &[String], copied: &BTreeSet<String>, window: Duration) -> Result<()>;

    /// The steps that are retained of an epoch, oldest first.
    async fn retained(&self, epoch: &str) -> Result<Vec<RetainedStep>>;

    /// Whether what was taken at `seq` or later can have its places on the queue again.
    async fn can_put_back(&self, epoch: &str, seq: i64) -> Result<bool>;

    /// Puts all of it back; how many messages.
    async fn put_back(&self, epoch: &str, seq: i64) -> Result<u64>;

    /// Writes dead letters; not twice the same, as far as `known` tells.
    async fn dead_letter(&self, letters: &[DeadLetter], known: &Supersedable) -> Result<()>;

    /// Forgets letters that are superseded, and notes it on those that are in part; how many went.
    async fn supersede(&self, superseded: &Superseded) -> Result<u64>;

    /// The letters that a newer state of their keys would supersede.
    async fn supersedable(&self) -> Result<Supersedable>;

    /// The letters of one table, as far as they tell a key.
    async fn letters_of(&self, table: &str) -> Result<Vec<Dead>>;

    /// How far the comparison of a table is; from the start where it was ordered otherwise.
    async fn comparison(&self, table: &str, ordering: &str) -> Result<Pass>;

    /// Records how far it is.
    async fn record_comparison(&self, table: &str, pass: &Pass, ordering: &str) -> Result<()>;

    /// Records that a comparison which began `seconds` ago went through the whole table.
    async fn finish_comparison(&self, table: &str, pass: &Pass, seconds: Option<f64>) -> Result<()>;

    /// What was compared is not what is in the replica now.
    async fn forget_compared(&self) -> Result<()>;

    /// The tables whose definitions are recorded.
    async fn recorded_definitions(&self) -> Result<BTreeSet<String>>;

    /// Records the definitions by which the replica is kept; the tables that have to be brought up to date for it.
    async fn record_definitions(&self, definitions: &DefinitionVersion) -> Result<Vec<Outgrown>>;
}
