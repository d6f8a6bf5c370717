//! What a writer does so that clients can be fed, beside what each batch writes into the log ([`feed_log`]).

use super::feed_log::{Cut, Fed};
use super::freshness::Feeds;
use super::head::At;
use super::inventory::Inventory;
use super::store::{Rows, Statement, Work};
use super::{Replica, feed_log, head};
use crate::core::batch::{Item, RowState};
use crate::core::error::Result;
use crate::core::position::Head;
use crate::core::schema::{Schema, Table};
use crate::core::value::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Replica {
    /// The log that its batches write is kept for so long.
    pub fn keep_feed_for(&self, retention: Duration) {
        self.logging.keep_for(retention);
    }

    /// Makes what the log needs where tables of a sync are fed, and forgets those that no longer are.
    pub async fn prepare_feed(&self, there: &Inventory, sync: Feeds<'_>, schema: &Schema) -> Result<()> {
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
        let has = |name: &str| there.tables.contains_key(name);
        let is_of_old = there.column(feed_log::LOG, "key").is_some();
        let is_there = has(feed_log::TABLES) && has(feed_log::PAST_CUTS) && !is_of_old;
        if !fed.is_empty() || is_there {
            let rows = if is_there { self.store.query(feed_log::select_fed(sync)).await? } else { Rows::new() };
            let known = Known::read(rows);
            let is_known = |table: &&Table| {
                let filter = feed_log::filter_text(table);
                known.iter().any(|known| known.name == table.name && known.filter == filter)
            };
            if !is_there || known.len() != fed.len() || !fed.iter().all(is_known) {
                let register = if is_of_old { feed_log::register_anew } else { feed_log::register };
                let before = register(sync.name(), &list);
                self.store.write(Work { before, ..Work::default() }).await?;
            }
            let is_as_cut = |known: &Known| known.is_held || known.is_cut;
            self.logging.is_to_cut.store(known.is_empty() || !known.iter().all(is_as_cut), Ordering::Relaxed);
            self.logging.hold(&names(&known, |known| known.is_held));
            self.logging.note_whole(names(&known, |known| known.is_whole));
        }
        self.logging.feed(list);
        Ok(())
    }

    /// Whether clients wait to hear that all tables equal the source; `is_to_look`: the replica is asked.
    pub(crate) async fn is_to_cut(&self, sync: Feeds<'_>, is_to_look: bool) -> Result<bool> {
        if self.logging.fed().names.is_empty() {
            return Ok(false);
        }
        if self.is_to_cut_aside(&BTreeSet::new()) {
            return Ok(true);
        }
        if !is_to_look {
            return Ok(false);
        }
        let known = Known::read(self.store.query(feed_log::select_fed(sync)).await?);
        Ok(known.is_empty() || !known.iter().all(|known| known.is_cut && !known.is_held))
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
        let cut = Cut { at: at.map(str::to_owned), held: held.clone(), unseen: BTreeSet::new() };
        let before = std::iter::once(head::assert_at(Some(head)))
            .chain(feed_log::record(sync, &fed, (head, head), &[]))
            .chain(feed_log::cut(Feeds::Queue(sync), &fed, &cut))
            .collect();
        self.store.write(Work { before, ..Work::default() }).await?;
        self.logging.added(Some(&cut));
        Ok(())
    }

    /// Positions of rows of a copy that the replica has as they are, where all rows of their table are there: of such a copy
    /// clients are told what differs only. Right for a batch that starts from where the replica was then.
    pub(super) async fn unchanged(&self, at: At<'_>, items: &[Item]) -> Result<BTreeSet<usize>> {
        let (fed, mut unchanged, mut start) = (self.logging.fed(), BTreeSet::new(), 0);
        for run in items.chunk_by(|one, other| one.table.name == other.table.name) {
            let (first, table) = (start, &run[0].table);
            start += run.len();
            let is_asked = fed.names.contains(&table.name) && run.iter().all(is_row);
            if !is_asked || !self.is_whole(&table.name).await? {
                continue;
            }
            let Some(found) = self.compare(table, run, None, at).await? else { return Ok(BTreeSet::new()) };
            let differing: BTreeSet<usize> =
                found.missing.into_iter().chain(found.different).chain(found.refused).collect();
            unchanged.extend((0..run.len()).filter(|at| !differing.contains(at)).map(|at| first + at));
        }
        Ok(unchanged)
    }

    /// Whether all rows of a fed table are there: another worker may have brought the last of them.
    async fn is_whole(&self, table: &str) -> Result<bool> {
        if self.logging.is_whole(table) {
            return Ok(true);
        }
        let sql = "SELECT 1 FROM _pgflume_feed_tables WHERE name = ?1 AND is_whole";
        let is_whole = !self.query(sql, vec![Cell::Text(table.to_owned())]).await?.is_empty();
        if is_whole {
            self.logging.note_whole_table(table);
        }
        Ok(is_whole)
    }

    /// Rows are as they were once, or these tables are made anew: what clients were told is not what comes now.
    pub(crate) async fn break_feed(&self, tables: Option<&[&str]>) -> Result<()> {
        let before = self.breaking_feed(tables).await?;
        if before.is_empty() { Ok(()) } else { self.store.write(Work { before, ..Work::default() }).await }
    }

    /// What a change of these tables, or of all, does to the log that is not logged, where there is one.
    pub(super) async fn breaking_feed(&self, tables: Option<&[&str]>) -> Result<Vec<Statement>> {
        self.doubt_cut();
        self.logging.doubt_whole(tables);
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

    /// What it does to the log that a batch of a sync moves it on and touches no row.
    pub(super) async fn carrying(&self, sync: &str, from: &Head, to: &Head) -> Result<Option<Statement>> {
        Ok(self.has_feed().await?.then(|| feed_log::carry(sync, from, to)))
    }

    async fn has_feed(&self) -> Result<bool> {
        let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1";
        Ok(!self.query(sql, vec![Cell::Text(feed_log::TABLES.to_owned())]).await?.is_empty())
    }
}

/// A table that is fed, as the replica knows it.
struct Known {
    name: String,
    filter: String,
    is_whole: bool,
    is_held: bool,
    /// It is whole, and as of the last cut.
    is_cut: bool,
}

impl Known {
    fn read(rows: Rows) -> Vec<Self> {
        let read = |row: Vec<Cell>| {
            let [Cell::Text(name), Cell::Text(filter), Cell::Integer(is_whole), Cell::Integer(is_held), is_cut] =
                &row[..]
            else {
                return None;
            };
            let (is_whole, is_held, is_cut) = (*is_whole != 0, *is_held != 0, *is_cut == Cell::Integer(1));
            Some(Self { name: name.clone(), filter: filter.clone(), is_whole, is_held, is_cut: is_whole && is_cut })
        };
        rows.into_iter().filter_map(read).collect()
    }
}

fn names(known: &[Known], of: fn(&Known) -> bool) -> BTreeSet<String> {
    known.iter().filter(|known| of(known)).map(|known| known.name.clone()).collect()
}

/// Whether it sets all columns of its row.
fn is_row(item: &Item) -> bool {
    matches!(&item.state, RowState::Row { columns, replace: false, .. } if columns.len() == item.table.columns.len())
}
