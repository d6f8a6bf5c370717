//! What a writer does so that clients can be fed, beside what each batch writes into the log ([`feed_log`]).

use super::feed_log::Fed;
use super::inventory::Inventory;
use super::store::{Rows, Statement, Work};
use super::{Replica, feed_log, head};
use crate::core::error::Result;
use crate::core::position::Head;
use crate::core::schema::{Schema, Table};
use crate::core::value::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Replica {
    /// Makes what the log needs where tables of a sync are fed, and forgets those that no longer are.
    pub async fn prepare_feed(&self, there: &Inventory, sync: &str, schema: &Schema) -> Result<()> {
        let can_be_fed = |table: &&Table| match there.has_rowids(table) {
            true => true,
            false => {
                tracing::error!(
                    table = table.name,
                    "this table is not fed: the replica has it WITHOUT ROWID; let POST /nuke make it anew"
                );
                false
            }
        };
        let fed = schema.tables().map(|table| &**table).filter(|table| table.feed.is_some());
        let fed: Vec<&Table> = fed.filter(can_be_fed).collect();
        let list = Arc::new(Fed::of(&fed));
        let is_there = there.tables.contains_key(feed_log::TABLES);
        if !fed.is_empty() || is_there {
            let known = match is_there {
                true => self.query(feed_log::SELECT_FED, vec![Cell::Text(sync.to_owned())]).await?,
                false => Vec::new(),
            };
            let is_known = |table: &&Table| {
                let row = [Cell::Text(table.name.clone()), Cell::Text(feed_log::filter_text(table))];
                known.iter().any(|known| known.starts_with(&row))
            };
            if !is_there || known.len() != fed.len() || !fed.iter().all(is_known) {
                self.store.write(Work { before: feed_log::register(sync, &list), ..Work::default() }).await?;
            }
            self.logging.is_to_cut.store(!is_cut(&known), Ordering::Relaxed);
        }
        self.logging.feed(list);
        Ok(())
    }

    /// Whether clients wait to hear that all tables equal the source; `is_to_look`: the replica is asked.
    pub(crate) async fn is_to_cut(&self, sync: &str, is_to_look: bool) -> Result<bool> {
        if self.logging.fed().names.is_empty() {
            return Ok(false);
        }
        if self.is_to_cut_aside(&BTreeSet::new()) {
            return Ok(true);
        }
        Ok(is_to_look && !is_cut(&self.query(feed_log::SELECT_FED, vec![Cell::Text(sync.to_owned())]).await?))
    }

    /// The same where these tables are held, which are not as the source is.
    pub(crate) fn is_to_cut_aside(&self, held: &BTreeSet<String>) -> bool {
        let is_to_cut = self.logging.is_to_cut.load(Ordering::Relaxed) || !self.logging.holds(held);
        is_to_cut && !self.logging.fed().names.is_empty()
    }

    /// Somebody else may have moved the replica on: whether its last cut is of now is not known.
    pub(crate) fn doubt_cut(&self) {
        self.logging.is_to_cut.store(true, Ordering::Relaxed);
    }

    /// Says that at this head all tables of a sync but those that are held equal its source's snapshot of this time.
    pub async fn cut(&self, head: &Head, sync: &str, at: Option<&str>, held: &BTreeSet<String>) -> Result<()> {
        let fed = self.logging.fed();
        let before = std::iter::once(head::assert_at(Some(head)))
            .chain(feed_log::record(sync, &fed, (head, head), &[], &[]))
            .chain(feed_log::cut(sync, &fed, at, held))
            .collect();
        self.store.write(Work { before, ..Work::default() }).await?;
        self.logging.is_to_cut.store(false, Ordering::Relaxed);
        self.logging.hold(held);
        Ok(())
    }

    /// Rows are as they were once, or these tables are made anew: what clients were told is not what comes now.
    pub(crate) async fn break_feed(&self, tables: Option<&[&str]>) -> Result<()> {
        let before = self.breaking_feed(tables).await?;
        if before.is_empty() { Ok(()) } else { self.store.write(Work { before, ..Work::default() }).await }
    }

    /// What a change of these tables, or of all, does to the log that is not logged, where there is one.
    pub(super) async fn breaking_feed(&self, tables: Option<&[&str]>) -> Result<Vec<Statement>> {
        self.doubt_cut();
        Ok(if self.has_feed().await? { vec![feed_log::begin_anew(tables)] } else { Vec::new() })
    }

    /// What it does to the log that another sync feeds these tables from now on.
    pub(super) async fn unfeeding(&self, tables: &[&str]) -> Result<Vec<Statement>> {
        if !self.has_feed().await? {
            return Ok(Vec::new());
        }
        let sql = "DELETE FROM _pgflume_feed_tables WHERE name IN (SELECT value FROM json_each(?1))";
        Ok(vec![Statement::new(sql, vec![Cell::Text(serde_json::json!(tables).to_string())])])
    }

    async fn has_feed(&self) -> Result<bool> {
        let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1";
        Ok(!self.query(sql, vec![Cell::Text(feed_log::TABLES.to_owned())]).await?.is_empty())
    }
}

/// Whether all of these tables are as of the last cut.
fn is_cut(known: &Rows) -> bool {
    !known.is_empty() && known.iter().all(|row| row.last() == Some(&Cell::Integer(1)))
}
