//! The replica behind a network: libSQL in memory, whose requests may arrive late, twice or never.

use super::process::Process;
use super::world::World;
use async_trait::async_trait;
use pgflume::core::error::{Error, Result};
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

fn unanswered(_took_effect: bool) -> Error {
    Error::retry("the replica does not answer")
}

fn unknown(took_effect: bool) -> Error {
    match took_effect {
        true => Error::unknown("the replica does not answer"),
        false => Error::retry("the replica cannot be reached"),
    }
}

/// A write arrives.
pub async fn arrive(world: &World, memory: &Memory, work: Work) -> Result<()> {
    let done = memory.write(work).await;
    if done.is_ok() {
        world.judge_replica();
    }
    done
}

#[async_trait]
impl Store for Remote {
    async fn query(&self, statement: Statement) -> Result<Rows> {
        self.process.act("query", unanswered, self.memory.query(statement)).await
    }

    async fn read(&self, statement: Statement) -> Result<Rows> {
        self.process.act("read", unanswered, self.memory.read(statement)).await
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
        self.process.act("write", unknown, arrive(&world, &self.memory, work)).await
    }
}
