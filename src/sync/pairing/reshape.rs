//! How a drain follows changed definitions: DDL that comes between two steps, and a replica whose rows were
//! kept by another definition than this worker's. The latter gets the columns that it lacks, and the tables
//! concerned are copied again. Drops nothing.

use crate::core::error::{ErrorKind, Result, Side};
use crate::core::failpoint;
use crate::core::position::Head;
use crate::postgres::books::rebuilds::Reason;
use crate::postgres::drift;
use crate::postgres::link::{Known, Link};
use crate::replica::change;
use crate::replica::change::Change;
use crate::sync::alone::alone;
use crate::sync::session::Session;
use std::collections::BTreeMap;

impl Session<'_> {
    /// Whether DDL came since the catalog was read, by what the step has `seen` of it; then it has been read again.
    pub(in crate::sync) async fn has_catalog_changed(&mut self, seen: &str) -> Result<bool> {
        if seen == self.fingerprint {
            return Ok(false);
        }
        self.link.rollback().await?;
        tracing::info!("the catalog has changed: the definitions of the tables are read again");
        let Known { fingerprint, schema, sources, definition_version } = self.link.known().await?;
        (self.fingerprint, self.sources, self.definition_version) = (fingerprint, sources, definition_version);
        self.head = None; // which tables are captured is told to the replica
        if schema != self.schema {
            self.lacks_columns = self.replica.prepare(&schema).await?.lacks_columns(&schema);
            self.schema = schema;
        }
        self.tables.read_only(&self.marked());
        self.lock_compared();
        self.tell_drift().await?;
        Ok(true)
    }

    /// Says in the log what has drifted since it was last told. What the replica has is left out: nobody but this
    /// worker alters it.
    async fn tell_drift(&mut self) -> Result<()> {
        let drift = self.link.drift(None).await?;
        drift::warn(drift.iter().filter(|one| !self.drift.contains(one)));
        self.link.tell(&self.worker.told.new_drift(&drift)).await?;
        (self.drift, self.drift_of) = (drift, None);
        Ok(())
    }

    /// Gives the replica, which stands at `head`, the version of this worker's definitions. Columns that it lacks are
    /// added, and nothing else is done then; else, in the step's transaction, tables whose rows were kept by another
    /// definition are copied again. A worker with an older schema.json does the same, so that nothing goes stale unseen.
    pub(in crate::sync) async fn reshape(&mut self, head: Head) -> Result<()> {
        if self.lacks_columns {
            return self.alter_replica(head).await;
        }
        let mut outgrown = BTreeMap::new();
        let kept = self.link.recorded_definitions().await?;
        for name in self.tables.created().filter(|name| kept.contains(*name)) {
            outgrown.insert(name.to_owned(), "the replica no longer had it".to_owned());
        }
        for grown in self.link.record_definitions(&self.definition_version).await? {
            if grown.is_swept {
                tracing::warn!(table = grown.table, "rows that are gone are looked for: {}", grown.why);
                self.link.schedule_sweep(&grown.table).await?;
            } else {
                outgrown.insert(grown.table, grown.why);
            }
        }
        self.copy_again(self.link.as_ref(), &outgrown).await?;
        self.link.commit().await?;
        self.tables.forget_created();
        self.head = Some(head);
        Ok(())
    }

    /// Adds the columns that the replica lacks, in place of the step: that may take long, and nobody's table is held
    /// meanwhile.
    async fn alter_replica(&mut self, head: Head) -> Result<()> {
        self.link.rollback().await?;
        let refused = alone(self.link.as_ref(), self.add_columns(&head)).await?;
        for (table, problem) in refused {
            self.pause(&table, &problem, Side::Target).await?;
        }
        self.lacks_columns = false;
        self.head = Some(head);
        Ok(())
    }

    /// Which tables the replica does not let be altered, and why.
    async fn add_columns(&self, head: &Head) -> Result<BTreeMap<String, String>> {
        let mut outgrown = BTreeMap::new();
        let mut additions = change::additions(&self.replica.inventory().await?, &self.schema);
        additions.retain(|added| !self.tables.is_refused_by_target(&added.table));
        for added in &additions {
            tracing::info!(table = added.table, "the replica changes: {}", added.what);
            if added.needs_copy {
                outgrown.insert(added.table.clone(), added.what.clone());
            }
        }
        // Committed before: an answer that is lost must not leave a column that nothing fills.
        self.copy_again(self.other().await?, &outgrown).await?;
        failpoint::reach(failpoint::ALTERING);
        self.alter_each(head, additions).await
    }

    /// Alters table after table: one that the replica does not let be altered waits alone.
    async fn alter_each(&self, head: &Head, additions: Vec<Change>) -> Result<BTreeMap<String, String>> {
        let mut by_table: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for added in additions {
            by_table.entry(added.table).or_default().extend(added.statements);
        }
        let mut refused = BTreeMap::new();
        for (table, statements) in by_table {
            match self.replica.alter(head, statements).await {
                Err(e) if !e.is_passing() && e.kind() != &ErrorKind::WholeSide => {
                    refused.insert(table, format!("the replica's table cannot follow its source: {e}"));
                }
                done => done?,
            }
        }
        Ok(refused)
    }

    async fn copy_again(&self, link: &dyn Link, outgrown: &BTreeMap<String, String>) -> Result<()> {
        let mut names = Vec::new();
        for (name, why) in outgrown {
            match self.sources.get(name).and_then(|source| source.unpageable()) {
                None => {
                    tracing::warn!(table = name, "the table is copied again: {why}");
                    names.push(name.as_str());
                }
                Some(problem) if self.sources.get(name).is_some_and(|source| source.captured) => {
                    tracing::error!(table = name, "the table has to be copied again ({why}), and waits: {problem}");
                    names.push(name.as_str());
                }
                Some(problem) => {
                    tracing::warn!(table = name, "older rows stay as they are ({why}): {problem}");
                }
            }
        }
        if !names.is_empty() {
            link.schedule(&names, Reason::Evolve).await?;
        }
        Ok(())
    }
}
