//! The locks of a step, taken so that nobody's migration suffers: no table is held while another is waited for, and no
//! wait is as long as Postgres takes to look for deadlocks. Whoever closes a circle of waits is ended by Postgres; a
//! step that holds nothing is in no circle. A table that others keep is left aside, and the rest goes on without it.

use super::session::Session;
use super::tables::PATIENCE;
use crate::core::error::{Error, ErrorKind, Result, Side};
use crate::postgres::link::Begun;
use tokio::time::Instant;

/// Tries in one step to get all locks at once, each after a wait for the table that was locked.
const TRIES: u32 = 3;

impl Session<'_> {
    /// Begins a step's transaction with the locks of all tables that it may read and of the queue, at once or not at
    /// all. Whether it could.
    pub(super) async fn begin_locked(&mut self) -> Result<bool> {
        let begun_at = Instant::now();
        let mut tries = 0;
        while tries < TRIES {
            let wanted = self.wanted_sources();
            match self.link.begin(&wanted).await {
                Ok(Begun::Locked) => {
                    // The others are read already.
                    if self.tables.is_any_aside() {
                        let names: Vec<String> = wanted.iter().map(|source| source.table.name.clone()).collect();
                        self.tables.locked(&names);
                    }
                    return Ok(true);
                }
                Ok(Begun::QueueTaken) => {
                    let is_free = self.link.wait_for_queue().await?;
                    if begun_at.elapsed() > PATIENCE {
                        return if is_free { Ok(false) } else { Err(queue_locked()) };
                    }
                }
                Ok(Begun::TableTaken) => {
                    self.give_way().await?;
                    tries += 1;
                }
                Err(e) => return Err(self.unlockable(e).await?),
            }
        }
        Ok(false)
    }

    /// Whether a drain that finds nothing else to do waits for tables that others have locked: a comparison as long as
    /// it may, others for a while, and following looks again in any case.
    pub(super) fn waits_for_locks(&self) -> bool {
        self.tables.is_any_aside() && !self.is_following && (!self.compared.is_empty() || self.tables.is_any_fresh())
    }

    /// Waits for a moment for what others have locked. What they keep is left aside.
    async fn give_way(&mut self) -> Result<()> {
        for name in self.link.blocked(&self.wanted_sources()).await? {
            let Some(source) = self.sources.get(&name) else { continue };
            if !self.link.wait_for_table(source).await? {
                self.tables.put_aside(&name);
            }
        }
        self.tables.tell_late();
        Ok(())
    }

    /// The step met a lock within its transaction, of an index that is being rebuilt, say, or of a message that another
    /// consumer has read: whether to begin again, without the tables that are locked.
    pub(super) async fn leave_locked_aside(&mut self) -> Result<bool> {
        self.link.rollback().await?;
        let blocked = self.link.blocked(&self.read_sources()).await?;
        blocked.iter().for_each(|table| self.tables.put_aside(table));
        let is_worth_a_try = !blocked.is_empty() || self.tables.is_worth_a_try();
        if is_worth_a_try && blocked.is_empty() {
            tokio::time::sleep(self.link.lock_wait()).await;
        }
        Ok(is_worth_a_try)
    }

    /// Finds the table that cannot be locked at all, so that the others can go on.
    async fn unlockable(&self, error: Error) -> Result<Error> {
        if error.cause().is_none() {
            return Ok(error);
        }
        self.link.rollback().await?;
        for source in self.wanted_sources() {
            if let Err(e) = self.link.wait_for_table(source).await {
                return Ok(match e.kind() {
                    ErrorKind::Overtaken => e,
                    _ => e.of_table(&source.table.name, Side::Source),
                });
            }
        }
        Ok(error)
    }
}

fn queue_locked() -> Error {
    Error::new(
        ErrorKind::Locked,
        "another session keeps a lock on the queue's table that shuts writers out (see pg_locks); it will be tried again, and nothing is lost",
    )
}
