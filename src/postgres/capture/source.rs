//! A source table as capture sees it: what the catalog says of it, and what it feeds. No IO.

use super::names::Event;
use super::types::SourceColumn;
use super::uses::Uses;
use crate::core::schema::{SourceName, Table};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A replicated table together with the columns of its source.
#[derive(Debug, Clone)]
pub(crate) struct ReplicatedTable {
    /// From `schema.json`.
    pub table: Arc<Table>,
    /// The key's columns, in `schema.json`'s order.
    pub key: Vec<SourceColumn>,
    /// The other columns whose change matters: replicated, or used by `where`. `None`: any update may matter.
    pub watched: Option<Vec<SourceColumn>>,
    /// What its key and its `where` are written with.
    pub uses: Uses,
}

impl ReplicatedTable {
    /// The columns that are written or compared as their types are.
    pub fn guarded(&self) -> impl Iterator<Item = &SourceColumn> {
        self.key.iter().chain(self.watched.iter().flatten().filter(|c| c.is_compared_by_type()))
    }

    /// The same whatever types its columns have.
    pub fn of_any_types(&self) -> Self {
        let each = |columns: &[SourceColumn]| columns.iter().map(SourceColumn::of_any_type).collect::<Vec<_>>();
        Self { key: each(&self.key), watched: self.watched.as_deref().map(each), ..self.clone() }
    }

    /// The key's column where its values fit into arrays of values of one length, whose parts are found at once.
    pub fn block_key(&self) -> Option<&SourceColumn> {
        match &self.key[..] {
            [key] if key.is_plain() => Some(key),
            _ => None,
        }
    }
}

/// A source table with all that is replicated from it.
#[derive(Debug, Clone)]
pub struct Source {
    /// The table.
    pub name: SourceName,
    /// Row triggers in place of statement triggers.
    pub by_row: bool,
    /// All partitions of a partitioned table, of all levels.
    pub partitions: Vec<SourceName>,
    /// Of a partitioned table: who owns it, and therefore may add partitions.
    pub partitioned_by: Option<String>,
    /// What it feeds.
    pub targets: Vec<ReplicatedTable>,
    /// The queue has row-level security.
    pub queue_has_rls: bool,
}

impl Source {
    /// The events that it is captured by.
    pub fn events(&self) -> &'static [Event] {
        if self.by_row {
            &[Event::Row, Event::Truncate]
        } else {
            &[Event::Insert, Event::Update, Event::Delete, Event::Truncate]
        }
    }
}

/// Targets by source, in the order of the sources' names.
pub(crate) fn by_source<'a>(
    tables: impl Iterator<Item = &'a Arc<Table>>,
) -> BTreeMap<(String, String), Vec<Arc<Table>>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for table in tables {
        found.entry((table.source.schema.clone(), table.source.table.clone())).or_default().push(table.clone());
    }
    found
}
