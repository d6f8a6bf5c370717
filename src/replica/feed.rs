//! What a writer does so that clients can be fed, beside what each batch writes into the log ([`feed_log`]).

use super::inventory::Inventory;
use super::store::{Statement, Work};
use super::{Replica, feed_log, head};
use crate::core::error::Result;
use crate::core::position::Head;
use crate::core::schema::{Schema, Table};
use crate::core::value::Cell;
use std::sync::atomic::Ordering;

impl Replica {
    /// Makes what the log needs where tables of a sync are fed, and forgets those that no longer are.
    pub async fn prepare_feed(&self, there: &Inventory, sync: &str, schema: &Schema) -> Result<()> {
        let fed: Vec<&Table> = schema.tables().map(|table| &**table).filter(|table| table.feed.is_some()).collect();
        self.logging.is_on.store(!fed.is_empty(), Ordering::Relaxed);
        let is_there = there.tables.contains_key(feed_log::TABLES);
        if fed.is_empty() && !is_there {
            return Ok(());
        }
        let known = match is_there {
            true => self.query(feed_log::SELECT_FED, vec![Cell::Text(sync.to_owned())]).await?,
            false => Vec::new(),
        };
        let is_known = |table: &&Table| {
            let row = [Cell::Text(table.name.clone()), Cell::Text(feed_log::filter_text(table))];
            known.iter().any(|known| known.starts_with(&row))
        };
        if !is_there || known.len() != fed.len() || !fed.iter().all(is_known) {
            self.store.write(Work { before: feed_log::register(sync, &fed), ..Work::default() }).await?;
        }
        let is_cut = !known.is_empty() && known.iter().all(|row| row.last() == Some(&Cell::Integer(1)));
        self.logging.is_to_cut.store(!is_cut, Ordering::Relaxed);
        Ok(())
    }

    /// Whether clients wait to hear that all tables equal the source.
    pub(crate) fn is_to_cut(&self) -> bool {
        self.logging.is_on.load(Ordering::Relaxed) && self.logging.is_to_cut.load(Ordering::Relaxed)
    }

    /// Says that at this head all tables of a sync equal its source's snapshot of this time.
    pub(crate) async fn cut(&self, head: &Head, sync: &str, at: Option<&str>) -> Result<()> {
        let before = std::iter::once(head::assert_at(Some(head)))
            .chain(feed_log::record(sync, head, head, &[], &[]))
            .chain(feed_log::cut(sync, at, self.logging.forgets()))
            .collect();
        self.store.write(Work { before, ..Work::default() }).await?;
        self.logging.is_to_cut.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Rows are as they were once: what clients were told since is not what comes now.
    pub(crate) async fn break_feed(&self) -> Result<()> {
        let before = self.breaking_feed().await?;
        if before.is_empty() { Ok(()) } else { self.store.write(Work { before, ..Work::default() }).await }
    }

    /// What a change that is not logged does to the log, where there is one.
    pub(crate) async fn breaking_feed(&self) -> Result<Vec<Statement>> {
        let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1";
        let is_there = !self.query(sql, vec![Cell::Text(feed_log::TABLES.to_owned())]).await?.is_empty();
        self.logging.is_to_cut.store(true, Ordering::Relaxed);
        Ok(if is_there { vec![feed_log::begin_anew()] } else { Vec::new() })
    }
}
