//! The replica behind a network: libSQL in memory, whose requests may arrive late or never.

use super::process::Process;
use super::world::World;
use async_trait::async_trait;
use pgflume::core::error::{Error, Result};
use pgflume::core::position::Head;
use pgflume::core::value::Cell;
use pgflume::replica::memory::Memory;
use pgflume::replica::{Opener, Rows, Statement, Store, Work};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Opens it for one process.
pub struct Mooring(pub Arc<Process>);

#[async_trait]
impl Opener for Mooring {
    async fn open(&self) -> Result<Box<dyn Store>> {
        Ok(Box::new(Remote { process: self.0.clone(), memory: self.0.world.replica.clone() }))
    }
}

struct Remote {
    process: Arc<Process>,
    memory: Memory,
}

impl Remote {
    /// What the tables are is asked at the beginning of each drain, and takes half of all time; it changes seldom.
    async fn answer(&self, statement: Statement) -> Result<Rows> {
        // All that is there, which costs more than all the rest.
        if !statement.sql.contains("sqlite_master") || !statement.args.is_empty() {
            return self.memory.query(statement).await;
        }
        let known = self.process.world.tables.lock().unwrap().clone();
        if let Some(rows) = known {
            return Ok(rows);
        }
        let rows = self.memory.query(statement).await?;
        *self.process.world.tables.lock().unwrap() = Some(rows.clone());
        Ok(rows)
    }
}

fn unanswered(_took_effect: bool) -> Error {
    Error::retry("the replica does not answer")
}

fn unknown(took_effect: bool) -> Error {
    match took_effect {
        true => Error::unknown("the replica does not answer"),
        false => Error::retry("the replica cannot be reached"),
    }
}

/// The position that a write was made for: what its first statement compares.
fn made_from(work: &Work) -> Option<Head> {
    match &work.before.first()?.args[..] {
        [
            Cell::Text(epoch),
            Cell::Integer(seq),
            Cell::Text(token),
            Cell::Integer(_),
            Cell::Text(_),
            Cell::Integer(1),
        ] => Some(Head { epoch: epoch.clone(), seq: *seq, token: token.clone() }),
        _ => None,
    }
}

/// A write arrives.
pub async fn arrive(world: &World, memory: &Memory, work: Work) -> Result<()> {
    let (makes_tables, from) = (work.is_long, made_from(&work));
    let before = world.head();
    let done = memory.write(work).await;
    if makes_tables {
        *world.tables.lock().unwrap() = None;
    }
    if done.is_ok() {
        if from.is_some() && from != before {
            world.violate(format!("a batch is written that was made from {from:?}, and the replica was at {before:?}"));
        }
        if world.mood.bad != 0 && makes_tables {
            world.poison();
        }
        world.judge_replica();
    }
    done
}

#[async_trait]
impl Store for Remote {
    async fn query(&self, statement: Statement) -> Result<Rows> {
        self.process.act("query", unanswered, self.answer(statement)).await
    }

    async fn read(&self, statement: Statement) -> Result<Rows> {
        self.process.act("read", unanswered, self.memory.read(statement)).await
    }

    async fn read_together(&self, statements: Vec<Statement>) -> Result<Vec<Rows>> {
        self.process.act("read", unanswered, self.memory.read_together(statements)).await
    }

    async fn write(&self, work: Work) -> Result<()> {
        let world = self.process.world.clone();
        if !self.process.has_flight.load(Ordering::Relaxed) {
            world.violate("a process writes to the replica without the single flight".into());
        }
        if !world.is_quiet() && world.dice.one_in(world.mood.late) {
            world.tell(|| format!("process {}: a write is on its way for long", self.process.name));
            world.late.lock().unwrap().push(work);
            return match world.dice.one_in(2) {
                true => Err(unknown(true)),
                false => self.process.end().await,
            };
        }
        let writing = async {
            if !world.mood.pace.is_zero() && !world.is_quiet() {
                tokio::time::sleep(world.mood.pace).await;
            }
            arrive(&world, &self.memory, work).await
        };
        self.process.act("write", unknown, writing).await
    }
}
