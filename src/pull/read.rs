//! What was read of a table, sorted: rows, what is gone, and what cannot be taken over. No IO.

use crate::core::batch::{Batch, ColumnSet, Item};
use crate::core::error::{Error, Result, Side};
use crate::core::keys::texts_of;
use crate::core::message::MarkedKey;
use crate::core::schema::Table;
use crate::provider::{Found, Unfit};
use crate::replica::pulls::Letter;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows of one table that may become dead letters before it waits for somebody to look at it.
const MOST_LETTERS: usize = 1_000;

/// What was read, each key once.
pub(super) struct Read {
    /// Rows and what is gone, by key.
    pub items: Vec<Item>,
    /// What cannot be taken over.
    pub unfit: Vec<Unfit>,
}

/// Sorts what was read of a table.
pub(super) fn sorted(table: &Arc<Table>, found: Vec<Found>) -> Read {
    let columns: ColumnSet = (0..table.columns.len()).collect();
    let (mut batch, mut unfit) = (Batch::default(), Vec::new());
    for found in found {
        match found {
            Found::Row(key, cells) => batch.set_row(table, key, &columns, cells),
            Found::Gone(key) => batch.set_gone(table, key),
            Found::Unfit(row) => unfit.push(row),
        }
    }
    Read { items: batch.take().1, unfit }
}

/// Dead letters of rows that cannot be taken over, but for those that are known.
pub(super) fn letters(
    table: &Table,
    dead: Option<&BTreeMap<MarkedKey, String>>,
    unfit: Vec<Unfit>,
) -> Result<Vec<Letter>> {
    let known = dead.map_or(0, BTreeMap::len);
    let is_new = |row: &Unfit| dead.is_none_or(|dead| !dead.contains_key(&row.key));
    let letter = |row: Unfit| Letter { table: table.name.clone(), key: row.key, class: row.class, reason: row.problem };
    let letters: Vec<Letter> = unfit.into_iter().filter(is_new).map(letter).collect();
    match letters.last() {
        Some(last) if known + letters.len() > MOST_LETTERS => Err(Error::halt(format!(
            "more than {MOST_LETTERS} rows of the table {:?} cannot be taken over, the last because: {}; correct its definition or the rows",
            table.name, last.reason
        ))
        .of_table(&table.name, Side::Source)),
        _ => Ok(letters),
    }
}

/// Dead letters that these rows make good.
pub(super) fn covered(dead: Option<&BTreeMap<MarkedKey, String>>, items: &[Item]) -> Vec<MarkedKey> {
    let Some(dead) = dead.filter(|dead| !dead.is_empty()) else { return Vec::new() };
    items.iter().filter_map(|item| texts_of(&item.key)).filter(|key| dead.contains_key(key)).collect()
}
