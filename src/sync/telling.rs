//! Tells readers of the replica how fresh it is and what its tables are doing, where no batch does: when nothing has
//! changed for as long as a heartbeat takes, or a table does something else by now.

use super::session::Session;
use super::take::reader::ReaderReport;
use crate::core::error::Result;
use crate::core::schema::Table;
use crate::postgres::books::progress::Snapshot;
use crate::postgres::books::rebuilds::{Phase, Rebuild};
use crate::postgres::catalog::SourceTable;
use crate::replica::freshness::{Feeds, Freshness, TableState};
use crate::replica::target::Target;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Session<'_> {
    /// The sync, as readers know it.
    pub(super) fn feeds(&self) -> Feeds<'_> {
        Feeds::Queue(self.worker.queue.as_str())
    }

    /// After a step in which nothing was to be written.
    pub(super) async fn tell_unchanged(&mut self, snapshot: &Snapshot, read: &ReaderReport) -> Result<()> {
        let is_aside = self.tables.is_any_aside();
        let is_caught_up = read.is_caught_up() && !is_aside && self.is_whole(&[]);
        if read.has_taken_all {
            self.worker.impatience.calm();
        }
        let is_due = self.worker.heartbeat.is_some_and(|every| self.worker.told.is_silent_for(every));
        let freshness = Freshness {
            checked_at: Some(snapshot.at.clone()),
            is_caught_up,
            is_drained: read.has_taken_all && !is_aside,
            queued: read.left,
            seen: snapshot.seen.clone(),
        };
        self.tell(is_due.then_some(&freshness), &[]).await?;
        if is_caught_up && self.replica.is_to_cut(self.feeds(), is_due).await? {
            self.cut(snapshot, &BTreeSet::new()).await?;
        } else if !is_caught_up && read.has_taken_all {
            self.cut_aside(snapshot, &[], &read.swept).await?;
        }
        // A replica that never equalled the source does not by being left alone.
        let told = &self.worker.told;
        let has_equalled = told.seen().borrow().is_some()
            || is_caught_up && told.is_unknown() && self.replica.seen(self.feeds().name()).await?.is_some();
        if is_caught_up && has_equalled {
            told.see(snapshot.seen.clone());
        }
        Ok(())
    }

    /// Tells clients that all tables equal the source but those that wait, or are rebuilt, after a step that has `rebuilt` these.
    pub(super) async fn cut_aside(
        &self,
        snapshot: &Snapshot,
        rebuilt: &[Rebuild],
        swept: &BTreeSet<String>,
    ) -> Result<bool> {
        let is_done = |name: &str| rebuilt.iter().any(|one| one.name == name && one.phase == Phase::Done);
        let pending = self.pending.iter().map(|one| &one.name).filter(|name| !is_done(name));
        let held = self.tables.waiting().map(str::to_owned).chain(pending.cloned()).chain(swept.iter().cloned());
        let held = held.collect();
        match self.replica.is_to_cut_aside(&held) {
            true => self.cut(snapshot, &held).await.map(|()| true),
            false => Ok(false),
        }
    }

    /// Tells clients of what a step has brought after which more is left, where they have waited for too long: the tables
    /// are as the replica has them, which may be no moment of the source.
    pub(super) async fn cut_impatiently(
        &self,
        snapshot: &Snapshot,
        rebuilt: &[Rebuild],
        swept: &BTreeSet<String>,
    ) -> Result<()> {
        let impatience = &self.worker.impatience;
        if impatience.is_at_end() && self.cut_aside(snapshot, rebuilt, swept).await? {
            self.worker.figures.cut_impatiently();
            impatience.calm();
        }
        Ok(())
    }

    async fn cut(&self, snapshot: &Snapshot, held: &BTreeSet<String>) -> Result<()> {
        match &self.head {
            Some(head) => self.replica.cut(head, self.feeds().name(), Some(&snapshot.at), held).await,
            None => Ok(()),
        }
    }

    /// Whether no table waits to be rebuilt, nor for somebody who lets it be, after a step that has `rebuilt` these.
    pub(super) fn is_whole(&self, rebuilt: &[Rebuild]) -> bool {
        let is_done = |name: &str| rebuilt.iter().any(|one| one.name == name && one.phase == Phase::Done);
        self.pending.iter().all(|one| is_done(&one.name))
    }

    /// After a step that is acknowledged: what comes of it is known, whether or not readers can be told.
    pub(super) async fn tell_acknowledged(&mut self, rebuilt: &[Rebuild]) {
        let done = rebuilt.iter().filter(|rebuild| rebuild.phase == Phase::Done);
        self.copied.extend(done.map(|rebuild| (rebuild.name.clone(), rebuild.rows)));
        if let Err(e) = self.tell(None, rebuilt).await {
            tracing::warn!(error = %e, "readers of the replica are not told what its tables are doing; they will be");
        }
    }

    async fn tell(&mut self, freshness: Option<&Freshness>, rebuilt: &[Rebuild]) -> Result<()> {
        let Some(head) = &self.head else { return Ok(()) };
        if matches!(self.worker.target, Target::Given(_)) {
            return Ok(()); // a simulator counts what is written
        }
        let doing = self.doing(rebuilt);
        let said: Vec<(String, String)> = doing
            .iter()
            .map(|one| (format!("{}: {}", one.table, one.state), one.problem.clone().unwrap_or_default()))
            .collect();
        if freshness.is_none() && self.worker.told.has_told(&head.epoch, &said) {
            return Ok(());
        }
        let states: Vec<TableState> = doing.into_iter().map(|one| self.whole(one)).collect();
        // Until it is known to have arrived.
        self.worker.told.forget();
        self.replica.tell(head, self.feeds(), freshness, &states).await?;
        self.worker.told.note(&head.epoch, said);
        Ok(())
    }

    /// What each table is doing, as of a step that has `rebuilt` these; cheap, because it is asked after each step.
    fn doing(&self, rebuilt: &[Rebuild]) -> Vec<TableState> {
        let problems = self.tables.problems();
        let state = |name: &str| {
            let rebuild = rebuilt.iter().chain(&self.pending).find(|rebuild| rebuild.name == name);
            let rebuild = rebuild.filter(|rebuild| rebuild.phase != Phase::Done);
            let problem = problems.get(name).cloned().or_else(|| rebuild.and_then(|rebuild| rebuild.problem.clone()));
            match (problem, rebuild) {
                (Some(problem), _) => ("waiting", Some(problem)),
                (None, Some(_)) => ("copying", None),
                (None, None) => ("following", None),
            }
        };
        let of = |table: &Arc<Table>| {
            let (state, problem) = state(&table.name);
            TableState { table: table.name.clone(), state, problem, ..TableState::default() }
        };
        self.schema.tables().map(of).collect()
    }

    /// The same with what else readers are told.
    fn whole(&self, doing: TableState) -> TableState {
        let source = self.schema.get(&doing.table).map(|table| table.source.written()).unwrap_or_default();
        let rows = self.copied.get(&doing.table).copied();
        let types = self.sources.get(&doing.table).and_then(SourceTable::types);
        TableState { source, rows, types, ..doing }
    }
}
