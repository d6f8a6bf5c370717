//! What the replica has: tables, columns, indexes. Takes the rows of one query, gives what is there and
//! how far it is from `schema.json`. Changes nothing.

use super::freshness;
use super::head;
use super::store::{Rows, Statement};
use super::unique::Unique;
use crate::core::error::{Error, Result};
use crate::core::schema::{Schema, Table, ddl};
use crate::core::value::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One row for each column of a table, one for each index or trigger, and one for each column of a unique index
/// over all rows (of the rowid, which ends such an index where the table has one, number -1).
pub(super) const SELECT: &str = "SELECT m.type, m.name, m.tbl_name, iif(m.type = 'table', instr(lower(m.sql), 'collate') > 0, m.sql), p.name, p.pk, p.type, p.\"notnull\" \
     FROM sqlite_master m LEFT JOIN pragma_table_info(m.name) p ON m.type = 'table' WHERE m.type IN ('table', 'index', 'trigger') \
     UNION ALL SELECT 'unique', i.name, m.name, i.origin, x.name, x.cid, x.coll, x.\"key\" FROM sqlite_master m \
     JOIN pragma_index_list(m.name) i ON i.\"unique\" = 1 AND i.partial = 0 JOIN pragma_index_xinfo(i.name) x ON x.\"key\" = 1 OR x.cid = -1 \
     WHERE m.type = 'table'";

/// What the database has; keys are names in lower case, as SQLite compares them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The tables.
    pub tables: BTreeMap<String, Vec<ReplicaColumn>>,
    /// The indexes that have a name of their own.
    pub indexes: BTreeMap<String, Made>,
    /// The triggers.
    pub triggers: BTreeMap<String, Made>,
    /// What makes rows of each table unique, by the name of the index.
    pub(super) uniques: BTreeMap<String, BTreeMap<String, Unique>>,
    /// Tables of which the bookkeeping says that they were captured.
    pub captured: BTreeSet<String>,
    /// The tables that may compare otherwise than byte by byte.
    pub(super) collated: BTreeSet<String>,
}

impl Inventory {
    /// The same without these tables, and what hangs on them.
    pub(crate) fn without(&self, tables: &[&str]) -> Self {
        let gone: BTreeSet<String> = tables.iter().map(|name| name.to_lowercase()).collect();
        let mut rest = self.clone();
        rest.tables.retain(|name, _| !gone.contains(name));
        rest.indexes.retain(|_, index| !gone.contains(&index.on));
        rest.triggers.retain(|_, trigger| !gone.contains(&trigger.on));
        rest.uniques.retain(|name, _| !gone.contains(name));
        rest.collated.retain(|name| !gone.contains(name));
        rest
    }
}

/// A column as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaColumn {
    /// Its name as it was written.
    pub name: String,
    /// Whether it is part of the primary key.
    pub in_key: bool,
    /// Its declared type.
    pub declared: String,
    /// Whether it is declared NOT NULL.
    pub not_null: bool,
}

/// An index or trigger as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its name as it was written.
    pub name: String,
    /// The table that it is on, in lower case.
    pub on: String,
    /// What makes it; empty for what SQLite made by itself.
    pub sql: String,
}

/// How a table of the replica differs from `schema.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gap {
    /// It lacks the table.
    Table,
    /// It lacks a column.
    Column(String),
    /// A column is declared so that values would not stay what they are: its name and declared type.
    Type(String, String),
    /// It has another primary key, and cannot have ours beside it.
    Key,
    /// It has another primary key, and lacks the unique index over ours.
    Unique,
}

impl Inventory {
    pub(super) fn read(rows: Rows) -> Self {
        let mut there = Self::default();
        for row in rows {
            let [Cell::Text(kind), Cell::Text(name), Cell::Text(on), sql, column, number, text, flag] = &row[..] else {
                continue;
            };
            if kind == "unique" {
                let of_table = there.uniques.entry(on.to_lowercase()).or_default();
                of_table.entry(name.to_lowercase()).or_default().add(sql, column, number, text, flag);
            } else if let (Cell::Text(column), Cell::Integer(pk), Cell::Text(declared)) = (column, number, text) {
                let not_null = *flag == Cell::Integer(1);
                let found =
                    ReplicaColumn { name: column.clone(), in_key: *pk > 0, declared: declared.clone(), not_null };
                there.tables.entry(name.to_lowercase()).or_default().push(found);
                if *sql == Cell::Integer(1) {
                    there.collated.insert(name.to_lowercase());
                }
            } else if kind != "table" {
                let sql = if let Cell::Text(sql) = sql { sql.clone() } else { String::new() };
                let made = Made { name: name.clone(), on: on.to_lowercase(), sql };
                let kind = if kind == "index" { &mut there.indexes } else { &mut there.triggers };
                kind.insert(name.to_lowercase(), made);
            }
        }
        there
    }

    /// What the bookkeeping of an older version lacks, or what is left of it.
    pub(super) fn upgrade(&self) -> Vec<Statement> {
        let columns = [
            ("_pgflume_ledger", "messages", "TEXT NOT NULL DEFAULT ''"),
            ("_pgflume_ledger", "digest", "TEXT NOT NULL DEFAULT ''"),
            ("_pgflume_head", "owner", "TEXT"),
            ("_pgflume_head", "captured", "TEXT"),
            ("_pgflume_freshness", "checked_at", "TEXT"),
        ];
        let lacks = |(table, column, _): &(&str, &str, &str)| {
            self.tables.contains_key(*table) && self.column(table, column).is_none()
        };
        let add = |(table, column, kind)| format!("ALTER TABLE {table} ADD COLUMN {column} {kind}").into();
        let mut all: Vec<Statement> = columns.into_iter().filter(lacks).map(add).collect();
        if self.has_bookkeeping() {
            all.extend(self.make_readable());
        }
        all
    }

    /// What readers look at, where an older version did not make it.
    pub(super) fn make_readable(&self) -> Vec<Statement> {
        if freshness::MADE.iter().all(|name| self.tables.contains_key(*name)) {
            return Vec::new();
        }
        let mut made: Vec<&str> = freshness::CREATE.to_vec();
        made.extend(self.column("_pgflume_head", "owner").is_some().then_some(freshness::SEED_QUEUE));
        made.extend(self.tables.contains_key("_pgflume_pulls").then_some(freshness::SEED_PULLS));
        made.into_iter().map(|sql| sql.to_owned().into()).collect()
    }

    /// Whether a head can be read.
    pub(crate) fn has_bookkeeping(&self) -> bool {
        head::TABLES.iter().all(|name| self.tables.contains_key(*name))
    }

    /// Whether there is a part of it: then it is ours, whatever became of the rest.
    pub(crate) fn has_any_bookkeeping(&self) -> bool {
        head::TABLES.iter().any(|name| self.tables.contains_key(*name))
    }

    /// A column, whatever the case of its name.
    pub fn column(&self, table: &str, column: &str) -> Option<&ReplicaColumn> {
        let columns = self.tables.get(&table.to_lowercase())?;
        columns.iter().find(|c| c.name.to_lowercase() == column.to_lowercase())
    }

    /// How one table differs.
    pub(crate) fn gaps(&self, table: &Table) -> Vec<Gap> {
        if !self.tables.contains_key(&table.name.to_lowercase()) {
            return vec![Gap::Table];
        }
        let mut gaps = Vec::new();
        for column in &table.columns {
            match self.column(&table.name, &column.name) {
                None => gaps.push(Gap::Column(column.name.clone())),
                Some(found) if !ddl::fits(&found.declared, column.kind) => {
                    gaps.push(Gap::Type(column.name.clone(), found.declared.clone()));
                }
                Some(_) => {}
            }
        }
        gaps.extend(self.key_gap(table));
        gaps
    }

    /// Whether columns are to be added, or made anew as their source is by now, before batches can be applied.
    pub(crate) fn lacks_columns(&self, schema: &Schema) -> bool {
        let is_open = |t: &Table, gap: &Gap| match gap {
            Gap::Column(_) => true,
            Gap::Type(column, _) => t.follows(column),
            Gap::Table | Gap::Key | Gap::Unique => false,
        };
        schema.tables().any(|t| self.gaps(t).iter().any(|gap| is_open(t, gap)))
    }

    /// Tables that were there once, since the bookkeeping still is.
    pub(crate) fn lost_tables(&self, schema: &Schema) -> BTreeSet<String> {
        let is_lost = |t: &&Arc<Table>| self.has_bookkeeping() && !self.tables.contains_key(&t.name.to_lowercase());
        schema.tables().filter(is_lost).map(|t| t.name.clone()).collect()
    }

    /// Refuses what neither a batch nor an added column could make good.
    pub fn check(&self, schema: &Schema) -> Result<()> {
        schema.tables().try_for_each(|table| {
            self.check_names(table)?;
            self.gaps(table).into_iter().try_for_each(|gap| check_gap(table, gap))
        })
    }

    /// SQLite keeps tables and indexes in one name space.
    fn check_names(&self, table: &Table) -> Result<()> {
        let names = table.indexes.iter().map(|index| ddl::index_name(table, index));
        match names.into_iter().find(|name| self.tables.contains_key(&name.to_lowercase())) {
            None => Ok(()),
            Some(name) => Err(Error::halt(format!(
                "the replica has a table that is called {name:?}, as an index of table {:?} would be: rename that, or leave the index out of schema.json",
                table.name
            ))),
        }
    }

    /// Indexes that are not made, because one of that name is on another table.
    pub(super) fn misplaced(&self, schema: &Schema) -> Vec<String> {
        let of = |table: &Arc<Table>| {
            let names: Vec<_> = table.indexes.iter().map(|index| ddl::index_name(table, index)).collect();
            let on = table.name.to_lowercase();
            names.into_iter().filter(move |n| self.indexes.get(&n.to_lowercase()).is_some_and(|made| made.on != on))
        };
        schema.tables().flat_map(of).collect()
    }
}

fn check_gap(table: &Table, gap: Gap) -> Result<()> {
    let name = &table.name;
    let remedy = "run `pgflume setup` with LIBSQL_URL to rebuild it by schema.json, or start the worker with the schema.json that it was last set up by";
    match gap {
        Gap::Type(column, declared) if mangles(table, &column, &declared) && !table.follows(&column) => {
            Err(Error::halt(format!(
                "the replica's table {name:?} declares the column {column:?} as {declared}, which would turn text into numbers: {remedy}"
            )))
        }
        Gap::Key => {
            Err(Error::halt(format!("the replica's table {name:?} has another primary key than schema.json: {remedy}")))
        }
        Gap::Table | Gap::Column(_) | Gap::Type(..) | Gap::Unique => Ok(()),
    }
}

fn mangles(table: &Table, column: &str, declared: &str) -> bool {
    table.position(column).is_some_and(|i| ddl::mangles(declared, table.columns[i].kind))
}
