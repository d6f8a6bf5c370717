//! The rebuilding half of a reader: the next pages of the tables in `pgflume.resyncs`, at the step's own
//! snapshot, after the messages. Marks that are still queued only ever bring something newer; a table
//! that images feed waits until all of them are taken. Writes nothing.

use super::absent::absent;
use super::intake::is_damaged;
use super::reader::Reader;
use crate::core::absent::Absent;
use crate::core::batch::{ColumnSet, Item, RowState};
use crate::core::error::{Error, Result};
use crate::core::failpoint::Rule;
use crate::core::keys::{key_of, texts_of};
use crate::core::message::MarkedKey;
use crate::core::schema::ColumnType;
use crate::core::value::{Cell, Key};
use crate::postgres::books::dead_letters::Refusal;
use crate::postgres::books::rebuilds::{Phase, Rebuild};
use crate::postgres::catalog::SourceTable;
use crate::postgres::rows::fault::{Fault, NO_UTF8_KEY, unreadable};
use crate::postgres::rows::page;
use crate::sync::attempt::Unreadable;
use futures_util::TryStreamExt;
use std::sync::Arc;
use tokio::time::Instant;

/// Rows of one libSQL transaction of a page.
const BATCH_ROWS: usize = 10_000;

/// What is left of a page that took too long.
const SLOW_PARTS: i64 = 8;

/// Keys of the replica looked up at once: a server answers at most 10 MB.
pub(in crate::sync) const SWEEP_KEYS: i64 = 2_000;

/// The same where keys are numbers.
const SWEEP_NUMBERS: i64 = 10_000;

/// Rows of one rebuild that may become dead letters before it waits for somebody to look at it.
const MAX_UNFIT: i64 = 1_000;

impl Reader<'_> {
    /// Reads pages until the step has had its time or no table is left that can be rebuilt now.
    pub(in crate::sync) async fn rebuild(&mut self) -> Result<()> {
        let mut is_named = false;
        for mut rebuild in self.session.pending.clone() {
            // Truncated in this very step: it is swept from the start by the next.
            if self.report.swept.contains(&rebuild.name) {
                continue;
            }
            let Some(source) = self.session.sources.get(&rebuild.name).filter(|s| self.may_rebuild(s)) else {
                continue;
            };
            if !rebuild.is_under_way() {
                continue;
            }
            if !is_named {
                self.provenance = self.session.name_step().await?;
                is_named = true;
            }
            rebuild.begin_by(source.ordering());
            rebuild.problem = None; // it can be done now
            let after = self.rebuild_table(source, rebuild.clone()).await?;
            let has_time = !after.is_under_way();
            if after != rebuild {
                self.report.rebuilt.push(after);
            }
            if !has_time {
                break;
            }
        }
        Ok(())
    }

    /// Page after page of one table.
    async fn rebuild_table(&mut self, source: &SourceTable, mut rebuild: Rebuild) -> Result<Rebuild> {
        while rebuild.is_under_way() {
            let Some(rows) = self.session.worker.throttle.rows() else { break };
            let (started, before) = (Instant::now(), rebuild.rows);
            let done = match rebuild.phase {
                Phase::Copy => self.copy(source, &mut rebuild, rows).await,
                _ => self.sweep(source, &mut rebuild).await,
            };
            if let Err(e) = done {
                if !e.is_rejection() {
                    return Err(e);
                }
                tracing::error!(table = rebuild.name, "this table cannot be rebuilt: {e}");
                (rebuild.phase, rebuild.problem) = (Phase::Failed, Some(e.to_string()));
            }
            if !Rule::CursorWithPage.holds() {
                self.session.other().await?.record_rebuild(&rebuild).await?;
            }
            let limited = self.session.worker.throttle.time_of(rebuild.rows - before);
            rebuild.busy_ms += started.elapsed().max(limited).as_millis() as i64;
            if self.is_over() {
                break;
            }
        }
        Ok(rebuild)
    }

    fn may_rebuild(&self, source: &SourceTable) -> bool {
        let name = &source.table.name;
        let is_prepared = self.session.tables.is_read(name) && !self.session.tables.is_stuck(name);
        is_prepared && (source.is_marked() || self.report.has_taken_all)
    }

    /// Whether nothing is left to rebuild after this step.
    pub(in crate::sync) fn is_rebuilt(&self) -> bool {
        let done = self.report.rebuilt.iter().filter(|r| r.phase == Phase::Done).count();
        done == self.session.pending.len() && self.report.swept.is_empty()
    }

    /// Copies one page. One that Postgres cannot put out is tried with fewer rows, until the row that is
    /// at fault stands alone.
    async fn copy(&mut self, source: &SourceTable, rebuild: &mut Rebuild, most_rows: i64) -> Result<()> {
        if rebuild.cursor.is_none() {
            rebuild.estimated = self.session.link.size(source).await?.rows;
        }
        let sizes = &self.session.worker.page_sizes;
        let rows = sizes.of(self.session.link.as_ref(), source).await?.min(most_rows);
        let started = Instant::now();
        let (unfit, dead) = (rebuild.unfit, self.dead_letters.count());
        match self.session.attempt(source, self.copy_page(source, rebuild, rows)).await? {
            Ok(copied) => {
                if copied == rows {
                    sizes.tune(source, rows, started.elapsed());
                }
                Ok(())
            }
            Err(Unreadable { fault, error }) => {
                rebuild.unfit = unfit;
                self.dead_letters.truncate(dead);
                if rows > 1 {
                    // Smaller ones, until the row at fault stands alone.
                    sizes.set(source, rows / if fault == Fault::Slow { SLOW_PARTS } else { 2 });
                    return Ok(());
                }
                self.pass_over(source, rebuild, &unreadable(&error, fault)).await
            }
        }
    }

    /// Reads a page and sends it; how many rows were looked at.
    async fn copy_page(&mut self, source: &SourceTable, rebuild: &mut Rebuild, rows: i64) -> Result<i64> {
        let limits = self.session.worker.budget.limits();
        let after = rebuild.cursor.clone();
        let mut page = self.session.link.page(source, after.as_ref(), rows).await?;
        let columns: ColumnSet = (0..source.table.columns.len()).collect();
        let (mut read, mut bytes, mut items) = (0, 0, Vec::new());
        while let Some(row) = page.try_next().await? {
            read += 1;
            match row {
                Ok((key, cells)) => {
                    bytes += cells.iter().map(Cell::bytes).sum::<usize>();
                    let state = RowState::Row { columns: columns.clone(), cells, replace: false };
                    items.push(Item { table: source.table.clone(), key, state, images: Vec::new() });
                }
                Err(unfit) => {
                    let key = page::marked(source, &page.place()?.unwrap_or_default());
                    self.bury_unfit(source, rebuild, &key, Refusal::Value, &unfit.to_string())?;
                }
            }
            if items.len() >= BATCH_ROWS.min(limits.rows) || bytes >= limits.bytes {
                self.send_items(std::mem::take(&mut items)).await?;
                bytes = 0;
            }
        }
        self.send_items(items).await?;
        let is_end = page.is_last();
        rebuild.cursor = page.place()?;
        rebuild.rows += read;
        self.session.worker.throttle.count(if is_end { read } else { rows });
        if is_end {
            tracing::info!(table = rebuild.name, rows = rebuild.rows, "all rows of the table are copied");
            // What no mark tells of may be gone since it was brought.
            let is_right = rebuild.fresh && source.is_marked();
            (rebuild.phase, rebuild.cursor) = (if is_right { Phase::Done } else { Phase::Sweep }, None);
        }
        Ok(if is_end { read } else { rows })
    }

    /// The next row cannot be read at all: its key waits, and the copy goes on behind it.
    async fn pass_over(&mut self, source: &SourceTable, rebuild: &mut Rebuild, why: &str) -> Result<()> {
        let Some(cursor) = self.session.link.next_place(source, rebuild.cursor.as_ref()).await? else {
            return Err(Error::retry("the row that could not be read is gone; it will be tried again"));
        };
        let key = page::marked(source, &cursor);
        let is_no_utf8 = page::is_escaped(source) && is_damaged(&key);
        let (class, why) = if is_no_utf8 { (Refusal::Value, NO_UTF8_KEY) } else { (Refusal::Source, why) };
        self.bury_unfit(source, rebuild, &key, class, why)?;
        rebuild.cursor = Some(cursor);
        self.session.worker.page_sizes.forget(source);
        Ok(())
    }

    fn bury_unfit(
        &mut self,
        source: &SourceTable,
        rebuild: &mut Rebuild,
        key: &Vec<String>,
        class: Refusal,
        reason: &str,
    ) -> Result<()> {
        rebuild.unfit += 1;
        if rebuild.unfit > MAX_UNFIT {
            return Err(Error::reject(format!(
                "more than {MAX_UNFIT} rows cannot be taken over, the last because: {reason}; correct schema.json or the rows, then run `pgflume resync {}`",
                source.table.name
            )));
        }
        self.dead_letter(&source.table, key, class, reason);
        Ok(())
    }

    /// Removes from the replica what the source lacks, one page of the replica's keys.
    async fn sweep(&mut self, source: &SourceTable, rebuild: &mut Rebuild) -> Result<()> {
        let table = &source.table;
        let after: Option<Key> = rebuild.cursor.as_ref().map(|texts| key_of(&source.table, texts));
        if after.is_none() {
            rebuild.removed += self.session.replica.remove_keyless(table).await?;
        }
        let is_number = |kind| matches!(kind, ColumnType::Integer | ColumnType::Boolean | ColumnType::Real);
        let most = if table.key_columns().all(|c| is_number(c.kind)) { SWEEP_NUMBERS } else { SWEEP_KEYS };
        let keys = self.session.replica.keys_after(table, after.as_ref(), most).await?;
        let is_short = (keys.len() as i64) < most;
        let (known, texts): (Vec<Key>, Vec<MarkedKey>) =
            keys.into_iter().filter_map(|key| texts_of(&key).map(|texts| (key, texts))).unzip();
        let Absent { gone, doubtful } = absent(self.session, source, &texts).await?;
        if !doubtful.is_empty() {
            let keys = doubtful.len();
            tracing::warn!(table = rebuild.name, keys, "Postgres fails at keys that the replica has; they stay");
        }
        rebuild.removed += gone.len() as i64;
        let item = |key: Key| Item { table: table.clone(), key, state: RowState::Gone, images: Vec::new() };
        rebuild.cursor = texts.last().cloned();
        self.send_items(gone.into_iter().map(|i| item(known[i].clone())).collect()).await?;
        if is_short || known.is_empty() {
            tracing::info!(table = rebuild.name, removed = rebuild.removed, "what the source lacks is removed");
            (rebuild.phase, rebuild.cursor) = (Phase::Done, None);
        }
        Ok(())
    }

    async fn send_items(&mut self, items: Vec<Item>) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        self.send_chunk(Vec::new(), Arc::new(items), Vec::new(), None, false).await
    }
}
