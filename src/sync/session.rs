//! What one drain holds: its connections, and what it knows of both sides between two steps.

use super::beside::Beside;
use super::kept::Connected;
use super::lookout::Lookout;
use super::tables::Tables;
use super::worker::Worker;
use crate::core::error::{Error, Result, Side};
use crate::core::event::Event;
use crate::core::failpoint::Rule;
use crate::core::position::{Head, Provenance};
use crate::core::schema::Schema;
use crate::postgres::books::dead_letters::Supersedable;
use crate::postgres::books::rebuilds::Rebuild;
use crate::postgres::catalog::SourceTable;
use crate::postgres::drift::Drift;
use crate::postgres::drift::definition_version::DefinitionVersion;
use crate::postgres::link::{Known, Link};
use crate::postgres::queue;
use crate::replica::Replica;
use crate::replica::inventory::Inventory;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What one drain holds: its connections, and what it knows of both sides.
pub(super) struct Session<'a> {
    pub(super) worker: &'a Worker,
    pub(super) link: Box<dyn Link>,
    /// When that was opened.
    pub(super) connected_at: Instant,
    /// What it knows of the catalog was read for an earlier drain, and no step has looked yet.
    pub(super) knows_the_past: bool,
    pub(super) replica: Replica,
    /// Where it is.
    pub(super) address: String,
    /// That is not where it was, and has been said.
    pub(super) has_moved: bool,
    pub(super) sources: BTreeMap<String, SourceTable>,
    /// Where the replica is; `None` until compared with the progress.
    pub(super) head: Option<Head>,
    /// When it last answered.
    pub(super) seen: Instant,
    /// What each table is doing.
    pub(super) tables: Tables,
    /// Dead letters that an applied key would supersede.
    pub(super) dead_letters: Supersedable,
    /// How many there were then, and the last one.
    pub(super) dead_letters_as_of: Vec<i64>,
    /// Tables that wait to be rebuilt, as of the last step.
    pub(super) pending: Vec<Rebuild>,
    /// Those of them whose tables have no row, as the step's commit is to note.
    pub(super) empty: Vec<String>,
    /// Those that were seen to have rows.
    pub(super) filled: BTreeSet<String>,
    /// Messages left, by count at the start.
    pub(super) queued: i64,
    /// A second connection, which can commit while the step's transaction is open.
    pub(super) beside: Arc<Beside<'a>>,
    /// Ends with the first step that leaves nothing at its snapshot.
    pub(super) ends_caught_up: bool,
    /// Changes are applied as they come: what each step does is not worth a line in the log.
    pub(super) is_following: bool,
    /// Whether the catalog is looked at on the second connection.
    pub(super) lookout: Lookout,
    /// Another worker had the queue when the last step began.
    pub(super) was_busy: bool,
    /// Notes of other workers that found the queue busy, as of the last snapshot.
    pub(super) notes: i64,
    /// What it drains for is to compare these tables; then it waits for those that others have locked.
    pub(super) compared: Vec<String>,
    /// The epoch that this drain has announced to heal the two sides.
    pub(super) healing: Option<String>,
    /// The catalog's before `sources` was read.
    pub(super) fingerprint: String,
    /// What has drifted, as far as the log has been told.
    pub(super) drift: Vec<Drift>,
    /// What the replica had then, if it was looked at for that.
    pub(super) drift_of: Option<Inventory>,
    /// What is replicated, with the columns that tables follow their source by.
    pub(super) schema: Arc<Schema>,
    /// The version of the definitions that this schema gives the replica.
    pub(super) definition_version: DefinitionVersion,
    /// The replica lacks columns of it.
    pub(super) lacks_columns: bool,
    /// Rows of tables whose copies have ended in this session.
    pub(super) copied: BTreeMap<String, i64>,
}

impl<'a> Session<'a> {
    /// Gives everything back at once; if the connection is gone, Postgres does so by itself.
    pub(super) async fn abandon(&self) {
        let rollback = tokio::time::timeout(Duration::from_secs(2), self.link.rollback());
        if !matches!(rollback.await, Ok(Ok(()))) {
            tracing::debug!("the connection is gone; Postgres rolls its transaction back");
        }
    }

    /// Ends well: its connection waits for the next one, unless something is to be tried anew then.
    pub(super) fn end(self) {
        let lacks_nothing = self.sources.values().all(|source| source.lacking.is_empty());
        if self.worker.is_stopping() || !self.tables.is_as_usual() || !lacks_nothing {
            return;
        }
        let Self { fingerprint, schema, sources, definition_version, .. } = self;
        let worker = self.worker;
        worker.kept.put(Connected {
            link: self.link,
            known: Known { fingerprint, schema, sources, definition_version },
            drift: self.drift_of.map(|there| (there, self.drift)),
            since: self.connected_at,
            is_kept: true,
        });
        if worker.is_stopping() {
            worker.let_go(); // it was told so meanwhile
        }
    }

    /// Whether `setup`'s triggers mark this table, so that images of it are leftovers.
    pub(super) fn is_captured(&self, table: &str) -> bool {
        self.sources.get(table).is_some_and(SourceTable::is_marked)
    }

    /// The tables that this step has locked.
    pub(super) fn read_sources(&self) -> Vec<&SourceTable> {
        self.sources.values().filter(|source| self.tables.is_read(&source.table.name)).collect()
    }

    /// The tables that the next step locks.
    pub(super) fn wanted_sources(&self) -> Vec<&SourceTable> {
        self.tables.wanted().filter_map(|name| self.sources.get(name)).collect()
    }

    /// What stays on the queue.
    pub(super) fn waiting(&self) -> queue::Paused<'_> {
        if !Rule::MarksWait.holds() {
            return queue::Paused::default();
        }
        let marks: Vec<&str> = self.tables.waiting().collect();
        let stays = |table: &&str| self.is_captured(table) || self.tables.is_refused_by_target(table);
        let images = marks.iter().copied().filter(stays).collect();
        queue::Paused { marks, images }
    }

    /// Locks the tables that are compared.
    pub(super) fn lock_compared(&mut self) {
        for name in &self.compared {
            if self.sources.get(name).is_some_and(|source| source.unpageable().is_none()) {
                self.tables.read(name);
            }
        }
    }

    /// Gives the step a name that Postgres has committed: for rows that no message names.
    pub(super) async fn name_step(&self) -> Result<Arc<Provenance>> {
        let name = self.worker.chance.token();
        self.other().await?.name_step(&name).await?;
        Ok(Arc::new(Provenance::named(name)))
    }

    /// The second connection.
    pub(super) async fn other(&self) -> Result<&dyn Link> {
        self.beside.link().await
    }

    /// Waits until all that the step's snapshot saw is on disk, where a session with `synchronous_commit = off` may have
    /// committed what a crash could still undo.
    pub(super) async fn ensure_durable(&self) -> Result<()> {
        let position = self.link.wal_position().await?;
        self.other().await?.flush().await?;
        match self.link.is_flushed(&position).await? {
            true => Ok(()),
            false => Err(Error::retry("Postgres has not flushed its WAL yet; it will be tried again")),
        }
    }

    /// Whether another worker has found the queue busy since this step began, and waits for its turn.
    pub(super) async fn is_wanted(&self) -> Result<bool> {
        Ok(self.other().await?.calls().await? != self.notes)
    }

    /// The tables whose rows are read by marks.
    pub(super) fn marked(&self) -> BTreeSet<String> {
        self.sources.values().filter(|s| s.is_marked()).map(|s| s.table.name.clone()).collect()
    }

    /// Marks of this table stay queued, and where the target does not take it, its images; said once a drain.
    pub(super) async fn pause(&mut self, table: &str, problem: &str, side: Side) -> Result<()> {
        tracing::error!(table, "changes of this table wait on the queue: {problem}");
        self.tables.pause(table, problem, side);
        // Each session finds it anew.
        if !self.worker.paused().contains_key(table) {
            self.link.tell(&[Event::table_paused(table, problem)]).await?;
        }
        self.postpone(table, problem).await
    }

    /// This table is not rebuilt until somebody acts; said once a drain.
    pub(super) async fn postpone(&mut self, name: &str, problem: &str) -> Result<()> {
        if self.tables.stick(name) {
            self.link.set_problem(name, problem).await?;
            if self.pending.iter().any(|r| r.name == name) {
                tracing::error!(table = name, "this table cannot be rebuilt: {problem}");
            }
        }
        Ok(())
    }
}
