//! The locks of a step, taken so that nobody's migration suffers: no table is held while another is waited for, and no
//! wait is as long as Postgres takes to look for deadlocks. Whoever closes a circle of waits is ended by Postgres; a
//! step that holds nothing is in no circle. A table that others keep is left aside, and the rest goes on without it.

use super::aside::PATIENCE;
use super::session::Session;
use crate::core::error::{Error, Result};
use crate::postgres::catalog::SourceTable;
use crate::postgres::{queue, rows};
use std::collections::BTreeMap;
use std::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// Tries in one step to get all locks at once, each after a wait for the table that was locked.
const TRIES: u32 = 3;

/// Why a table waits.
const LOCKED: &str = "another session keeps a lock on it that shuts readers out (see pg_locks); its changes follow when that ends, and nothing is lost";

impl Session<'_> {
    /// Begins a step's transaction with the locks of all tables that it may read and of the queue, at once or not at
    /// all. Whether it could.
    pub(super) async fn begin_locked(&mut self) -> Result<bool> {
        for table in self.aside.due() {
            self.locked.insert(table);
        }
        let begun_at = Instant::now();
        let mut tries = 0;
        while tries < TRIES {
            let locks: Vec<&SourceTable> = self.locked.iter().filter_map(|name| self.sources.get(name)).collect();
            // One round trip: the second is sent behind the first.
            let holding = queue::hold(&self.client, &self.worker.queue);
            let (begun, held) = futures_util::join!(rows::begin(&self.client, &locks, self.server), holding);
            match (begun, held) {
                (Ok(()), Ok(())) => {
                    self.aside.take_back(&self.locked);
                    return Ok(true);
                }
                (Ok(()), Err(e)) if is_locked(&e) => {
                    self.client.rollback().await?;
                    let free = queue::wait_for(&self.client, &self.worker.queue, self.server.lock_wait).await;
                    if begun_at.elapsed() > PATIENCE {
                        return free.map(|()| false);
                    }
                    free.or_else(unless_locked)?;
                }
                (Err(e), _) if is_locked(&e) => {
                    self.give_way().await?;
                    tries += 1;
                }
                (Err(e), _) | (_, Err(e)) => return Err(self.unlockable(e).await?),
            }
        }
        Ok(false)
    }

    /// Whether a drain that finds nothing else to do waits for tables that others have locked: a comparison as long as
    /// it may, others for a while, and following looks again in any case.
    pub(super) fn waits_for_locks(&self) -> bool {
        self.aside.is_any() && !self.is_following && (!self.compared.is_empty() || self.aside.is_fresh())
    }

    /// Tables whose changes stay on the queue, and why.
    pub(super) fn all_paused(&self) -> BTreeMap<String, String> {
        let late = self.aside.late().map(|name| (name.clone(), LOCKED.to_owned()));
        self.paused.iter().map(|(name, problem)| (name.clone(), problem.clone())).chain(late).collect()
    }

    /// Lets go of everything, and waits for a moment for what others have locked. What they keep is left aside.
    async fn give_way(&mut self) -> Result<()> {
        self.client.rollback().await?;
        for name in self.blocked().await? {
            let Some(source) = self.sources.get(&name) else { continue };
            let free = rows::wait_for(&self.client, source, self.server.lock_wait).await;
            if free.as_ref().is_err_and(is_locked) {
                self.locked.remove(&name);
                self.aside.put(&name);
            }
            free.or_else(unless_locked)?;
        }
        for table in self.aside.untold() {
            tracing::warn!(table, "changes of this table wait on the queue: {LOCKED}");
        }
        Ok(())
    }

    /// The step met a lock within its transaction, of an index that is being rebuilt, say, or of a message that another
    /// consumer has read: whether to begin again, without the tables that are locked.
    pub(super) async fn leave_locked_aside(&mut self) -> Result<bool> {
        self.client.rollback().await?;
        let blocked = self.blocked().await?;
        for table in &blocked {
            self.locked.remove(table);
            self.aside.put(table);
        }
        let is_worth_a_try = !blocked.is_empty() || self.aside.is_worth_a_try();
        if is_worth_a_try && blocked.is_empty() {
            tokio::time::sleep(self.server.lock_wait).await;
        }
        Ok(is_worth_a_try)
    }

    /// Those tables of this step that others have locked against readers, or are about to.
    async fn blocked(&self) -> Result<Vec<String>> {
        let locked: Vec<&SourceTable> = self.locked.iter().filter_map(|name| self.sources.get(name)).collect();
        let oids: Vec<u32> = locked.iter().map(|source| source.oid).collect();
        let sql = include_str!("../../sql/locked_tables.sql");
        let rows = self.client.query_typed(sql, &[(&oids, Type::OID_ARRAY)]).await?;
        let found = rows.iter().map(|row| Ok(row.try_get::<_, u32>(0)?)).collect::<Result<Vec<_>>>()?;
        let is_found = |source: &&SourceTable| found.contains(&source.oid);
        Ok(locked.into_iter().filter(is_found).map(|source| source.table.name.clone()).collect())
    }

    /// Finds the table that cannot be locked at all, so that the others can go on.
    async fn unlockable(&self, error: Error) -> Result<Error> {
        if error.sql_state().is_none() {
            return Ok(error);
        }
        self.client.rollback().await?;
        for name in &self.locked {
            let Some(source) = self.sources.get(name) else { continue };
            match rows::wait_for(&self.client, source, self.server.lock_wait).await {
                Err(e) if !is_locked(&e) => return Ok(e.of_table(name)),
                _ => {}
            }
        }
        Ok(error)
    }
}

/// Whether somebody else has a lock that was needed.
pub(super) fn is_locked(error: &Error) -> bool {
    error.sql_state() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

fn unless_locked(error: Error) -> Result<()> {
    if is_locked(&error) { Ok(()) } else { Err(error) }
}
