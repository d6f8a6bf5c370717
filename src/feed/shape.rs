//! What a client asks for: some rows and columns of a table. No IO.

use super::change::{Operation, operations};
use super::changes::Change;
use crate::core::failpoint::FeedRule;
use crate::core::schema::Table;
use crate::core::value::Cell;
use crate::replica::feed_reads::Allowed;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes of the digest in a handle.
const HANDLE_BYTES: usize = 16;

/// Rows and columns of a table.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The table, which is fed.
    pub table: Arc<Table>,
    /// The columns, by position, in the table's order: the key's among them.
    pub columns: Vec<usize>,
    /// The rows.
    pub allowed: Allowed,
    /// The columns by which rows are told apart, in the definition's order.
    compared: Vec<Option<usize>>,
}

impl Shape {
    /// All that is fed of a table; `None` where it is not.
    pub fn of(table: &Arc<Table>) -> Option<Self> {
        let columns = table.fed_columns();
        let compared = table.fed_filters();
        (!columns.is_empty()).then(|| Self { table: table.clone(), columns, allowed: Allowed::new(), compared })
    }

    /// The same with these columns only; or what is wrong with them.
    pub fn with_columns(self, names: &[&str]) -> Result<Self, String> {
        let mut columns = Vec::new();
        for name in names {
            let known = self.table.position(name).filter(|at| self.columns.contains(at));
            columns.push(known.ok_or_else(|| format!("names {name:?}, which is not fed"))?);
        }
        if let Some(lacking) = self.table.key.iter().find(|at| !columns.contains(at)) {
            return Err(format!(
                "lacks {:?}: the columns of the key are always among them",
                self.table.columns[*lacking].name
            ));
        }
        columns.sort_unstable();
        columns.dedup();
        Ok(Self { columns, ..self })
    }

    /// The columns that are read for it: its own, and those by which rows are filtered.
    pub fn needed(&self) -> BTreeSet<usize> {
        self.columns.iter().chain(self.allowed.keys()).copied().collect()
    }

    /// Whether a row with these cells is one of it.
    pub fn has(&self, cells: &[Cell]) -> bool {
        self.allowed.iter().all(|(at, values)| cells.get(*at).is_some_and(|cell| values.contains(cell)))
    }

    /// The same of the columns that rows are filtered by, in the definition's order.
    pub fn had(&self, filters: &[Cell]) -> bool {
        let value = |at: &usize| filters.get(self.compared.iter().position(|filter| *filter == Some(*at))?);
        self.allowed.iter().all(|(at, values)| value(at).is_some_and(|cell| values.contains(cell)))
    }

    /// What brings one who has this shape's rows as they were to what they are.
    pub(super) fn operations(&self, change: &Change, may_lack: bool) -> &'static [Operation] {
        operations(self.had_in(change), self.has_in(change), may_lack && FeedRule::Pair.holds())
    }

    /// Whether a change is one of its rows'.
    pub(super) fn is_touched(&self, change: &Change) -> bool {
        self.had_in(change) || self.has_in(change)
    }

    /// Whether rows are told apart by this column, also as they were.
    pub(super) fn compares(&self, at: usize) -> bool {
        self.compared.contains(&Some(at))
    }

    fn had_in(&self, change: &Change) -> bool {
        change.was.as_ref().is_some_and(|was| self.had(was) || !FeedRule::Before.holds())
    }

    fn has_in(&self, change: &Change) -> bool {
        change.now.as_ref().is_some_and(|cells| self.has(cells))
    }

    /// By what shapes are told apart, whatever of their table's history.
    pub(super) fn name(&self) -> String {
        self.digest("")
    }

    /// By what a client names what it has of a table of this generation since a cut.
    pub fn handle(&self, generation: &str, cut: i64) -> String {
        format!("{}-{cut}", self.digest(generation))
    }

    /// Whether that is what a handle names.
    pub fn is_named(&self, handle: &str, generation: &str) -> bool {
        let parts = handle.rsplit_once('-').filter(|(_, cut)| cut.parse::<i64>().is_ok());
        parts.is_some_and(|(digest, _)| digest == self.digest(generation))
    }

    fn digest(&self, generation: &str) -> String {
        let names: Vec<_> =
            self.columns.iter().map(|&at| (&self.table.columns[at].name, self.table.columns[at].kind.name())).collect();
        let allowed: Vec<_> = self
            .allowed
            .iter()
            .map(|(at, values)| {
                (&self.table.columns[*at].name, values.iter().map(Cell::to_postgres_text).collect::<Vec<_>>())
            })
            .collect();
        let whole = serde_json::json!([self.table.name, generation, names, allowed]).to_string();
        hex::encode(&Sha256::digest(whole)[..HANDLE_BYTES])
    }
}
