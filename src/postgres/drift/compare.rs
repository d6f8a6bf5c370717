//! What was set up against what is there: pure. Takes `schema.json`, the records of `setup`, the catalog and
//! the replica's inventory; gives drift in words, each with its remedy.

use super::finding::{Drift, DriftKind};
use super::recorded::{self, Recorded, Records, SourceColumn};
use super::source::CurrentTable;
use super::{danger, evolve};
use crate::core::schema::{Schema, Table};
use crate::replica::inventory::{Gap, Inventory};
use std::collections::{BTreeMap, BTreeSet};

/// What applies an edit of `schema.json`.
const SETUP: &str = "run `pgflume setup --plan` to see what it would do, then `pgflume setup`";

/// What applies one that drops something.
const SETUP_DROP: &str =
    "name it again in schema.json, or run `pgflume setup --allow-drop` to drop it from the replica";

/// The same where it is a table, which `setup` may as well have been told of after this worker has read its file.
const SETUP_DROP_TABLE: &str = "if it was added to schema.json and set up since this worker began, restart the worker; else name it again, or run `pgflume setup --allow-drop` to drop it from the replica";

/// The sides that Postgres and `schema.json` make up.
pub(super) fn sides(schema: &Schema, records: &Records, found: &BTreeMap<String, CurrentTable>) -> Vec<Drift> {
    let mut drift: Vec<Drift> = recorded::differences(schema, records)
        .into_iter()
        .map(|d| Drift {
            remedy: match (d.is_drop, d.column.is_some()) {
                (true, false) => SETUP_DROP_TABLE,
                (true, true) => SETUP_DROP,
                (false, _) => SETUP,
            }
            .into(),
            table: d.table,
            column: d.column,
            kind: DriftKind::SchemaChanged,
            problem: format!("differs from the last set-up: {}", d.what),
        })
        .collect();
    for table in schema.tables() {
        if let (Some(recorded), Some(found)) = (records.get(&table.name), found.get(&table.name)) {
            drift.extend(Sides { table, recorded, found }.drift());
        }
    }
    drift
}

/// Tables that were captured, as their triggers or the replica (`captured`) say, where Postgres has no record of any
/// set-up: the schema `pgflume`, its records or the capture were removed.
pub(super) fn forgotten(
    schema: &Schema,
    found: &BTreeMap<String, CurrentTable>,
    captured: &BTreeSet<String>,
) -> Vec<Drift> {
    let was = |table: &&std::sync::Arc<Table>| {
        captured.contains(&table.name) || found.get(&table.name).is_some_and(|found| !found.triggers.is_empty())
    };
    let drift = |table: &std::sync::Arc<Table>| {
        Drift {
        table: table.name.clone(),
        column: None,
        kind: DriftKind::CaptureMissing,
        problem: format!(
            "{} was captured, and Postgres has no record of it any more (pgflume.captured): its changes may be lost",
            table.source.quoted()
        ),
        remedy: "run `pgflume setup`, and the worker copies the table again; or `pgflume nuke`, to go on without capture, once `pgflume teardown` has removed what is left of it".into(),
    }
    };
    schema.tables().filter(was).map(drift).collect()
}

/// One table on both sides.
struct Sides<'a> {
    table: &'a Table,
    recorded: &'a Recorded,
    found: &'a CurrentTable,
}

impl Sides<'_> {
    fn one(&self, kind: DriftKind, column: Option<&str>, problem: String, remedy: impl Into<String>) -> Drift {
        let (table, column) = (self.table.name.clone(), column.map(str::to_owned));
        Drift { table, column, kind, problem, remedy: remedy.into() }
    }

    fn drift(&self) -> Vec<Drift> {
        if self.found.oid == 0 {
            return vec![self.absent()];
        }
        let dangers = danger::of(self.table, self.recorded, self.found);
        let mut all: Vec<Drift> = dangers
            .into_iter()
            .map(|(problem, remedy)| self.one(DriftKind::SourceUnsafe, None, problem, remedy))
            .collect();
        if !["r", "p"].contains(&self.found.relkind.as_str()) {
            return all;
        }
        all.extend(self.columns());
        all.extend(self.key());
        all.extend(self.triggers());
        all
    }

    fn absent(&self) -> Drift {
        let source = self.table.source.quoted();
        match &self.found.moved_to {
            Some(name) => self.one(
                DriftKind::TableRenamed,
                None,
                format!("{source} is now called {name}"),
                format!(
                    "set \"source\" of {:?} in schema.json to that name, then run `pgflume setup`",
                    self.table.name
                ),
            ),
            None => self.one(
                DriftKind::TableMissing,
                None,
                format!("{source} is gone"),
                "create it and run `pgflume setup`, or take it out of schema.json and run `pgflume setup --allow-drop`",
            ),
        }
    }

    fn columns(&self) -> Vec<Drift> {
        let mut all = Vec::new();
        for column in &self.table.columns {
            match self.found.columns.iter().find(|c| c.name == column.name) {
                None => all.push(self.missing(&column.name)),
                Some(now) => all.extend(self.retyped(now)),
            }
        }
        if !self.table.evolve {
            all.extend(evolve::new_columns(self.table, self.recorded, self.found).into_iter().map(|c| self.added(c)));
        }
        all
    }

    fn missing(&self, column: &str) -> Drift {
        let source = self.table.source.quoted();
        let (problem, remedy) = match self.new_name(column) {
            Some(now) => (
                format!("{source} no longer has the column {column:?}: it seems to be called {now:?} now"),
                format!(
                    "rename it in schema.json too and run `pgflume setup --allow-drop`: the replica's column {column:?} is dropped, and {now:?} is added and filled; or rename it back"
                ),
            ),
            None => (
                format!("{source} no longer has the column {column:?}; changes of this table wait on the queue"),
                "take it out of schema.json and run `pgflume setup --allow-drop`, or add it to the table again".into(),
            ),
        };
        self.one(DriftKind::ColumnMissing, Some(column), problem, remedy)
    }

    /// The column of the same number, which a rename keeps; else the only new one of the same type.
    fn new_name(&self, column: &str) -> Option<&str> {
        let before = self.recorded.definition.source_columns.iter().find(|c| c.name == column)?;
        let is_same_table = self.found.oid == self.recorded.oid;
        let same = self.found.columns.iter().find(|c| is_same_table && c.number == before.number);
        let unknown = |c: &&SourceColumn| !self.recorded.definition.source_columns.iter().any(|b| b.name == c.name);
        let mut alike = self.found.columns.iter().filter(unknown).filter(|c| c.declared == before.declared);
        let only = alike.next().filter(|_| alike.next().is_none());
        same.or(only).map(|c| c.name.as_str())
    }

    fn retyped(&self, now: &SourceColumn) -> Option<Drift> {
        let before = self.recorded.definition.source_columns.iter().find(|c| c.name == now.name)?;
        (before.declared != now.declared).then(|| {
            self.one(
                DriftKind::ColumnRetyped,
                Some(&now.name),
                format!(
                    "is {} in Postgres now, and was {}; the worker copies the table again",
                    now.declared, before.declared
                ),
                "correct its type in schema.json where the new values need another, then run `pgflume setup`",
            )
        })
    }

    fn added(&self, column: &SourceColumn) -> Drift {
        self.one(
            DriftKind::ColumnAdded,
            Some(&column.name),
            format!("the source has a new column of type {}, which is not replicated", column.declared),
            format!(
                "to replicate it, add \"{}\": \"{}\" to columns in schema.json and run `pgflume setup`; else leave it",
                column.name,
                self.found.kind(&column.name).name()
            ),
        )
    }

    fn key(&self) -> Option<Drift> {
        let key: BTreeSet<&str> = self.table.key_columns().map(|c| c.name.as_str()).collect();
        let is_there = key.iter().all(|name| self.found.columns.iter().any(|c| c.name == *name));
        let identifies = |columns: &Vec<String>| columns.iter().map(String::as_str).collect::<BTreeSet<_>>() == key;
        if !is_there || self.found.keys.iter().any(identifies) {
            return None;
        }
        let source = self.table.source.quoted();
        let remedy = match self.found.keys.first() {
            Some(now) => {
                format!("set primaryKey in schema.json to {}, then run `pgflume setup`; or put the key back", list(now))
            }
            None => format!(
                "run `alter table {source} add primary key ({})`, or name another key in schema.json and run `pgflume setup`",
                crate::core::schema::quoted_list(key.iter().copied())
            ),
        };
        let names: Vec<String> = key.iter().map(|n| (*n).to_owned()).collect();
        Some(self.one(
            DriftKind::KeyChanged,
            None,
            format!("no key of {source} is on {} any more", list(&names)),
            remedy,
        ))
    }

    fn triggers(&self) -> Option<Drift> {
        let state = |event: &String| match self.found.triggers.get(event).map(String::as_str) {
            Some("A") => None,
            Some("D") => Some(format!("the {event} trigger is disabled")),
            Some(_) => Some(format!("the {event} trigger does not fire for every session")),
            None => Some(format!("the {event} trigger is missing")),
        };
        let mut wrong: Vec<String> = self.recorded.definition.triggers.iter().filter_map(state).collect();
        let by_row = self.recorded.definition.triggers.iter().any(|event| event == "row");
        if by_row && self.found.uncaptured_partitions > 0 {
            wrong.push(format!("{} partitions lack an enabled row trigger", self.found.uncaptured_partitions));
        }
        if let Some(event) = danger::replaced(self.recorded, self.found) {
            wrong.push(format!("the {event} trigger runs another function than the one that was set up"));
        }
        (!wrong.is_empty()).then(|| {
            let problem =
                format!("changes of {} are not all captured: {}", self.table.source.quoted(), wrong.join(", "));
            self.one(
                DriftKind::CaptureMissing,
                None,
                problem,
                "run `pgflume setup`: it puts them back, and the worker copies the table again",
            )
        })
    }
}

/// The replica against the definition in force.
pub(super) fn replica(schema: &Schema, records: &Records, there: &Inventory) -> Vec<Drift> {
    let mut drift = Vec::new();
    for table in schema.tables().filter(|t| records.contains_key(&t.name)) {
        drift.extend(there.gaps(table).into_iter().map(|gap| replica_gap(table, gap)));
    }
    let retired = recorded::retired(schema, records);
    for (table, columns) in &retired.columns {
        // What schema.json named until just now is told as such.
        let told = &records[table].definition.columns;
        for column in columns.iter().filter(|c| there.column(table, c).is_some() && !told.contains_key(*c)) {
            drift.push(Drift {
                table: table.clone(),
                column: Some(column.clone()),
                kind: DriftKind::ReplicaExtra,
                problem: "the replica still has this column, which is no longer kept up to date".into(),
                remedy: SETUP_DROP.into(),
            });
        }
    }
    drift
}

fn replica_gap(table: &Table, gap: Gap) -> Drift {
    let rebuild = "run `pgflume setup` with LIBSQL_URL, which rebuilds the table";
    let next = "the next drain adds it: run `pgflume sync`, or wait for the next call";
    let (kind, column, problem, remedy) = match gap {
        Gap::Table => (DriftKind::ReplicaLacks, None, "the replica does not have the table yet".to_owned(), next),
        Gap::Column(name) => {
            (DriftKind::ReplicaLacks, Some(name), "the replica does not have the column yet".to_owned(), next)
        }
        Gap::Type(name, declared) => {
            let wanted = table.columns.iter().find(|c| c.name == name).map_or("", |c| c.kind.name());
            (
                DriftKind::ReplicaDiffers,
                Some(name),
                format!("the replica declares it {declared}, which does not keep {wanted} as it is"),
                rebuild,
            )
        }
        Gap::Unique => {
            (DriftKind::ReplicaLacks, None, "the replica's table has no unique index over its key yet".to_owned(), next)
        }
        Gap::Key => {
            (DriftKind::ReplicaDiffers, None, "the replica's table has another primary key".to_owned(), rebuild)
        }
    };
    Drift { table: table.name.clone(), column, kind, problem, remedy: remedy.into() }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}
