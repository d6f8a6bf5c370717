//! What one libSQL transaction applies: table → key → row or gone, each key once. Takes changes in
//! message order and rows as read; gives items sorted by table and key. No IO.

use crate::core::schema::Table;
use crate::core::value::{Cell, Key};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The columns that a row sets: positions in the table's columns, the key's included.
pub type ColumnSet = Arc<[usize]>;

/// What a key becomes.
#[derive(Debug, Clone, PartialEq)]
pub enum RowState {
    /// The row does not exist.
    Gone,
    /// The row has these cells; columns that are not listed stay as they are, or become NULL if the
    /// row was deleted on the way (`replace`).
    Row {
        /// Which columns.
        columns: ColumnSet,
        /// Their cells.
        cells: Vec<Cell>,
        /// Delete the old row first.
        replace: bool,
    },
}

/// One key's fate in a batch.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its table.
    pub table: Arc<Table>,
    /// Its key.
    pub key: Key,
    /// What it becomes.
    pub state: RowState,
    /// The image messages that this came from (`msg_id`); empty for marks.
    pub images: Vec<i64>,
}

impl Item {
    /// Approximate size of its cells, in bytes.
    pub fn bytes(&self) -> usize {
        let row: &[Cell] = if let RowState::Row { cells, .. } = &self.state { cells } else { &[] };
        self.key.iter().chain(row).map(Cell::bytes).sum()
    }

    /// Whether it makes a column (by position) NULL.
    pub(crate) fn sets_null(&self, column: usize) -> bool {
        match &self.state {
            RowState::Gone => false,
            RowState::Row { columns, cells, .. } => {
                columns.iter().zip(cells).any(|(at, cell)| *at == column && *cell == Cell::Null)
            }
        }
    }
}

/// An image's row: its key, the columns that it sets, their cells.
pub type Row = (Key, ColumnSet, Vec<Cell>);

/// One change carried by a message with an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The key that ends: a delete's, or an update's old one if it changed.
    pub gone: Option<Key>,
    /// The new row.
    pub row: Option<Row>,
}

/// Collects changes, last state of each key wins.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    tables: BTreeMap<String, (Arc<Table>, Keys)>,
    /// Tables to be emptied first.
    emptied: BTreeMap<String, Arc<Table>>,
    rows: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    state: RowState,
    images: Vec<i64>,
}

/// The keys of one table. What is read by close keys mostly comes in their order, and needs no tree then.
#[derive(Debug)]
enum Keys {
    Ascending(Vec<(Key, Entry)>),
    Any(BTreeMap<Key, Entry>),
}

impl Default for Keys {
    fn default() -> Self {
        Self::Ascending(Vec::new())
    }
}

impl Keys {
    fn len(&self) -> usize {
        match self {
            Self::Ascending(entries) => entries.len(),
            Self::Any(entries) => entries.len(),
        }
    }

    fn get(&self, key: &Key) -> Option<&Entry> {
        match self {
            Self::Ascending(entries) => {
                let at = entries.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
                entries.get(at).map(|(_, entry)| entry)
            }
            Self::Any(entries) => entries.get(key),
        }
    }

    /// Sets what a key becomes. An image is listed beside those that the key has, a mark takes their place.
    fn put(&mut self, key: Key, state: RowState, image: Option<i64>) {
        if let Self::Ascending(entries) = self {
            if entries.last().is_none_or(|(last, _)| *last < key) {
                entries.push((key, Entry { state, images: image.into_iter().collect() }));
                return;
            }
            *self = Self::Any(std::mem::take(entries).into_iter().collect());
        }
        if let Self::Any(entries) = self {
            let entry = entries.entry(key).or_insert_with(|| Entry { state: RowState::Gone, images: Vec::new() });
            entry.state = state;
            match image {
                Some(msg_id) => entry.images.push(msg_id),
                None => entry.images.clear(),
            }
        }
    }

    /// In the order of the keys.
    fn into_items(self, table: &Arc<Table>) -> Vec<Item> {
        let item = |(key, Entry { state, images })| Item { table: table.clone(), key, state, images };
        match self {
            Self::Ascending(entries) => entries.into_iter().map(item).collect(),
            Self::Any(entries) => entries.into_iter().map(item).collect(),
        }
    }
}

impl Batch {
    /// Keys in it.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Approximate size of its cells, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.rows == 0 && self.emptied.is_empty()
    }

    /// A whole row as read from the source: it supersedes whatever is known of the key.
    pub fn set_row(&mut self, table: &Arc<Table>, key: Key, columns: &ColumnSet, cells: Vec<Cell>) {
        let state = RowState::Row { columns: columns.clone(), cells, replace: false };
        self.put(table, key, state, None);
    }

    /// A marked key that the source does not have. A row that was read for the same key stands.
    pub fn set_gone(&mut self, table: &Arc<Table>, key: Key) {
        let read = self
            .tables
            .get(&table.name)
            .and_then(|(_, keys)| keys.get(&key))
            .is_some_and(|e| e.images.is_empty() && matches!(e.state, RowState::Row { .. }));
        if !read {
            self.put(table, key, RowState::Gone, None);
        }
    }

    /// The source's table is empty: so becomes the replica's.
    pub fn empty_table(&mut self, table: &Arc<Table>) {
        if let Some((_, keys)) = self.tables.remove(&table.name) {
            self.rows -= keys.len();
        }
        self.emptied.insert(table.name.clone(), table.clone());
    }

    /// Applies an image's change on top of what the batch holds.
    pub fn merge(&mut self, table: &Arc<Table>, change: Change, msg_id: i64) {
        if let Some(key) = change.gone {
            self.put(table, key, RowState::Gone, Some(msg_id));
        }
        if let Some((key, columns, cells)) = change.row {
            let state = self.merged(table, &key, columns, cells);
            self.put(table, key, state, Some(msg_id));
        }
    }

    fn merged(&self, table: &Arc<Table>, key: &Key, columns: ColumnSet, cells: Vec<Cell>) -> RowState {
        let before = self.tables.get(&table.name).and_then(|(_, keys)| keys.get(key)).map(|e| &e.state);
        match before {
            Some(RowState::Gone) => RowState::Row { columns, cells, replace: true },
            Some(RowState::Row { columns: old, cells: old_cells, replace }) if old != &columns => {
                let mut all: BTreeMap<usize, Cell> = old.iter().copied().zip(old_cells.iter().cloned()).collect();
                all.extend(columns.iter().copied().zip(cells));
                let (columns, cells): (Vec<_>, Vec<_>) = all.into_iter().unzip();
                RowState::Row { columns: columns.into(), cells, replace: *replace }
            }
            Some(RowState::Row { replace, .. }) => RowState::Row { columns, cells, replace: *replace },
            None => RowState::Row { columns, cells, replace: false },
        }
    }

    fn put(&mut self, table: &Arc<Table>, key: Key, state: RowState, image: Option<i64>) {
        self.bytes += key.iter().map(Cell::bytes).sum::<usize>();
        if let RowState::Row { cells, .. } = &state {
            self.bytes += cells.iter().map(Cell::bytes).sum::<usize>();
        }
        let (_, keys) = match self.tables.get_mut(&table.name) {
            Some(known) => known,
            None => self.tables.entry(table.name.clone()).or_insert_with(|| (table.clone(), Keys::default())),
        };
        let before = keys.len();
        keys.put(key, state, image);
        self.rows += keys.len() - before;
    }

    /// The tables to empty and the items, sorted by table and key; the batch is empty afterwards.
    pub fn take(&mut self) -> (Vec<Arc<Table>>, Vec<Item>) {
        let batch = std::mem::take(self);
        let items = batch.tables.into_values().flat_map(|(table, keys)| keys.into_items(&table));
        (batch.emptied.into_values().collect(), items.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::schema::Schema;
    use proptest::prelude::*;

    fn table() -> Arc<Table> {
        let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","a":"TEXT","b":"TEXT"}}}"#;
        Schema::parse(json).unwrap().get("t").unwrap().clone()
    }

    fn key(i: i64) -> Key {
        vec![Cell::Integer(i)]
    }

    fn row(id: i64, columns: &[usize], texts: &[&str]) -> super::Row {
        let mut set = vec![0];
        set.extend(columns);
        let mut cells = vec![Cell::Integer(id)];
        cells.extend(texts.iter().map(|t| Cell::Text((*t).into())));
        (key(id), set.into(), cells)
    }

    fn upsert(id: i64, columns: &[usize], texts: &[&str]) -> Change {
        Change { gone: None, row: Some(row(id, columns, texts)) }
    }

    fn states(batch: &mut Batch) -> Vec<(Key, RowState)> {
        batch.take().1.into_iter().map(|i| (i.key, i.state)).collect()
    }

    #[test]
    fn the_last_image_of_a_key_wins_and_keeps_columns_that_it_lacks() {
        let (t, mut batch) = (table(), Batch::default());
        batch.merge(&t, upsert(1, &[1], &["old"]), 1);
        batch.merge(&t, upsert(1, &[2], &["b"]), 2);
        batch.merge(&t, upsert(1, &[1], &["new"]), 3);
        let (key, columns, cells) = row(1, &[1, 2], &["new", "b"]);
        assert_eq!(batch.rows(), 1);
        assert_eq!(states(&mut batch), [(key, RowState::Row { columns, cells, replace: false })]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn each_key_comes_once_in_order_whatever_order_they_are_put_in(
            mut puts in proptest::collection::vec((0..40_i64, any::<bool>()), 0..40),
            is_ascending in any::<bool>(),
        ) {
            if is_ascending {
                puts.sort_unstable();
            }
            let (t, mut batch, mut expected) = (table(), Batch::default(), BTreeMap::<_, (String, Vec<i64>)>::new());
            for (n, (id, is_image)) in (0_i64..).zip(puts) {
                let text = n.to_string();
                let (last, images) = expected.entry(id).or_default();
                last.clone_from(&text);
                let (k, columns, cells) = row(id, &[1, 2], &[&text, &text]);
                if is_image {
                    images.push(n);
                    batch.merge(&t, Change { gone: None, row: Some((k, columns, cells)) }, n);
                } else {
                    images.clear();
                    batch.set_row(&t, k, &columns, cells);
                }
            }
            prop_assert_eq!(batch.rows(), expected.len());
            let items = batch.take().1.into_iter().map(|item| {
                let RowState::Row { cells, .. } = item.state else { panic!("a row is gone") };
                (item.key, (cells[1].clone(), item.images))
            });
            let expected = expected.into_iter().map(|(id, (text, images))| (key(id), (Cell::Text(text), images)));
            prop_assert_eq!(items.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_row_inserted_after_its_delete_keeps_nothing_of_the_old_one() {
        let (t, mut batch) = (table(), Batch::default());
        batch.merge(&t, Change { gone: Some(key(1)), row: None }, 1);
        batch.merge(&t, upsert(1, &[1], &["x"]), 2);
        let (_, items) = batch.take();
        assert!(matches!(items[0].state, RowState::Row { replace: true, .. }));
        assert_eq!(items[0].images, [1, 2]);
    }

    #[test]
    fn a_changed_key_moves_the_row_and_a_swap_ends_right() {
        let (t, mut batch) = (table(), Batch::default());
        for (from, to, a) in [(1, 9, "one"), (2, 1, "two"), (9, 2, "one")] {
            let change = Change { gone: Some(key(from)), row: Some(row(to, &[1, 2], &[a, "-"])) };
            batch.merge(&t, change, from);
        }
        let ends: Vec<_> = states(&mut batch)
            .into_iter()
            .map(|(k, s)| {
                (
                    k,
                    match s {
                        RowState::Gone => None,
                        RowState::Row { cells, .. } => Some(cells[1].clone()),
                    },
                )
            })
            .collect();
        let text = |t: &str| Some(Cell::Text(t.into()));
        assert_eq!(ends, [(key(1), text("two")), (key(2), text("one")), (key(9), None)]);
    }

    #[test]
    fn a_row_read_from_the_source_supersedes_images_and_stands_against_gone() {
        let (t, mut batch) = (table(), Batch::default());
        batch.merge(&t, upsert(1, &[1], &["image"]), 7);
        let (k, columns, cells) = row(1, &[1, 2], &["read", "read"]);
        batch.set_row(&t, k, &columns, cells);
        batch.set_gone(&t, key(1));
        let (_, items) = batch.take();
        assert!(matches!(&items[0].state, RowState::Row { cells, .. } if cells[1] == Cell::Text("read".into())));
        assert!(items[0].images.is_empty());
    }
}
