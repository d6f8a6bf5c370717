//! Rows of the replica that stand in the way of others: where its table declares another key beside the one by which
//! rows are written, a value of it may have moved from one row to another. They make way within the transaction that
//! was rejected. Those that it does not write itself are marked first, so that they are read again.

use super::displaced::Displaced;
use crate::core::batch::{Item, RowState};
use crate::core::error::{Error, Result};
use crate::core::message;
use crate::core::schema::Table;
use crate::core::value::{Cell, Key};
use crate::replica::{Replica, Work};
use crate::sync::session::Session;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Keys of one mark, as the capture triggers make them.
const MARKED_KEYS: usize = 500;

/// Keys that a step has written, as hashes: what it wrote is as its snapshot has it, and collides for good.
#[derive(Debug, Default)]
pub(in crate::sync) struct Written(HashSet<u64>);

impl Written {
    /// Adds rows of tables that have another key.
    pub fn add(&mut self, replica: &Replica, items: &[Item]) {
        for run in items.chunk_by(|a, b| a.table.name == b.table.name) {
            if run.first().is_some_and(|item| replica.rival(&item.table).is_some()) {
                self.0.extend(run.iter().filter(|i| i.state != RowState::Gone).map(|i| hash(&i.table, &i.key)));
            }
        }
    }

    fn has(&self, table: &Table, key: &Key) -> bool {
        self.0.contains(&hash(table, key))
    }
}

fn hash(table: &Table, key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    table.name.hash(&mut hasher);
    key.iter().for_each(|cell| cell.to_postgres_text().hash(&mut hasher));
    hasher.finish()
}

/// A batch for which others make way.
pub(in crate::sync) struct Cleared {
    /// It.
    pub work: Work,
    /// Rows that it removes: their table, their key, and that of the row for which they go.
    pub displaced: Vec<(Arc<Table>, Key, Key)>,
}

impl Cleared {
    /// It is applied.
    pub fn note(self, displaced: &Displaced) {
        let entries = self.displaced.into_iter().map(|(table, key, other)| ((table.name.clone(), key), other));
        displaced.lock().extend(entries);
    }
}

/// Whether a row has a value that another row of the replica has.
pub(in crate::sync) fn is_collision(error: &Error) -> bool {
    error.is_rejection() && error.to_string().contains("UNIQUE constraint failed")
}

/// `work`, with what stands in its way removed first; `None` if nothing does that may.
pub(in crate::sync) async fn make_way(
    session: &Session<'_>,
    written: &Written,
    work: &Work,
) -> Result<Option<Cleared>> {
    let (mut first, mut displaced) = (BTreeSet::new(), Vec::new());
    for run in work.items().chunk_by(|a, b| a.table.name == b.table.name) {
        let Some(table) = run.first().map(|item| &item.table) else { continue };
        let Some(rival) = session.replica.rival(table) else { continue };
        let wanted: BTreeMap<Vec<Cell>, &Item> =
            run.iter().filter_map(|item| Some((values(item, &rival)?, item))).collect();
        let keys: BTreeSet<&Key> = run.iter().map(|item| &item.key).collect();
        for (key, held) in session.replica.holders(table, &rival, wanted.keys()).await? {
            let Some(item) = wanted.get(&held).filter(|item| item.key != key) else { continue };
            let is_stale = || !written.has(table, &key) && !session.worker.displaced.has(&table.name, &item.key, &key);
            if keys.contains(&key) {
                first.insert((table.name.clone(), key));
            } else if item.images.is_empty() && is_stale() {
                displaced.push((table.clone(), key, item.key.clone()));
            }
        }
    }
    if first.is_empty() && displaced.is_empty() {
        return Ok(None);
    }
    mark(session, &displaced).await?;
    let mut items: Vec<Item> = work.items().iter().map(|item| renewed(item, &first)).collect();
    items.extend(displaced.iter().map(|(table, key, _)| Item {
        table: table.clone(),
        key: key.clone(),
        state: RowState::Gone,
        images: Vec::new(),
    }));
    let range = 0..items.len();
    Ok(Some(Cleared { work: Work { items: Arc::new(items), range, ..Work::default() }, displaced }))
}

/// What a row sets the other key to; `None` where it does not, or to NULL, which collides with nothing.
fn values(item: &Item, rival: &[usize]) -> Option<Vec<Cell>> {
    let RowState::Row { columns, cells, .. } = &item.state else { return None };
    let value = |column: &usize| columns.iter().position(|at| at == column).and_then(|at| cells.get(at));
    rival.iter().map(|column| value(column).filter(|cell| **cell != Cell::Null).cloned()).collect()
}

/// The item, its old row deleted first where that is in the way and all of it is known.
fn renewed(item: &Item, first: &BTreeSet<(String, Key)>) -> Item {
    let mut item = item.clone();
    let is_first = first.contains(&(item.table.name.clone(), item.key.clone()));
    if let RowState::Row { columns, replace, .. } = &mut item.state {
        *replace |= is_first && columns.len() == item.table.columns.len();
    }
    item
}

/// Before they go: whatever fails from here on, they are read again. Committed at once, beside the step.
async fn mark(session: &Session<'_>, displaced: &[(Arc<Table>, Key, Key)]) -> Result<()> {
    if displaced.is_empty() {
        return Ok(());
    }
    let mut messages = Vec::new();
    for run in displaced.chunk_by(|a, b| a.0.name == b.0.name) {
        for part in run.chunks(MARKED_KEYS) {
            let keys: Vec<message::MarkedKey> =
                part.iter().filter_map(|(_, key, _)| key.iter().map(Cell::to_postgres_text).collect()).collect();
            messages.push((None, message::mark_of(&part[0].0.name, &keys)));
        }
        tracing::info!(
            table = run[0].0.name,
            rows = run.len(),
            "rows of the replica have values of its own primary key that are other rows' by now: they make way, and are read again"
        );
    }
    session.other().await?.send_again(&messages).await
}
