//! What `setup` captured: the table `pgflume.captured`. Takes a client, gives definitions; compares them
//! with `schema.json`. Looks at no source table.

use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::{Schema, Table, ddl};
use crate::postgres::Client;
use crate::replica::change::Retired;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::types::Type;

/// A column of a source table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceColumn {
    /// Its name.
    pub name: String,
    /// Its type with length, digits and the like.
    #[serde(rename = "type")]
    pub declared: String,
    /// Its number, which it keeps when it is renamed.
    pub number: i32,
}

/// What a row filter's verdict depends on beside columns: a function that it calls, with whatever arguments, or something
/// of another kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Called {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `operator`, `collation`, `text search` (all of it; without a name); none: a function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// A table as it was captured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Definition {
    /// The quoted name of the source.
    pub source: String,
    /// Names and types in `schema.json`.
    pub columns: BTreeMap<String, String>,
    /// The key's columns, in their order.
    pub key: Vec<String>,
    /// The row filter.
    #[serde(rename = "where")]
    pub filter: Option<String>,
    /// The indexes' columns.
    pub indexes: Vec<Vec<String>>,
    /// Whether columns that are added to the source are replicated by themselves.
    pub evolve: bool,
    /// The triggers that it must have, by event.
    pub triggers: Vec<String>,
    /// The last column's number at that time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub known: i32,
    /// The source's columns at that time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_columns: Vec<SourceColumn>,
    /// Columns that were replicated once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<String>,
    /// What the filter calls that is not Postgres' own.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub calls: BTreeSet<Called>,
    /// What each trigger ran after the set-up, hashed, by event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub functions: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl Definition {
    /// As `schema.json` has it; what the source has is added where it is stored.
    pub fn of(table: &Table, triggers: &[&str]) -> Self {
        let names = |positions: &[usize]| positions.iter().map(|&i| table.columns[i].name.clone()).collect();
        Self {
            source: table.source.quoted(),
            columns: table.columns.iter().map(|c| (c.name.clone(), c.kind.name().to_owned())).collect(),
            key: names(&table.key),
            filter: table.filter.clone(),
            indexes: table.indexes.iter().map(|index| names(index)).collect(),
            evolve: table.evolve,
            triggers: triggers.iter().map(|t| (*t).to_owned()).collect(),
            ..Self::default()
        }
    }
}

/// A table as it was captured, and what it was then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its OID.
    pub oid: u32,
    /// Its definition.
    pub definition: Definition,
}

/// By name in `schema.json`; empty without a set-up.
pub(crate) type Records = BTreeMap<String, Recorded>;

/// Reads them all.
pub async fn read(client: &Client, queue: &QueueName) -> Result<Records> {
    let sql = "select name, source, definition::pg_catalog.text from pgflume.captured where queue = $1";
    let rows = client.query_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?;
    let recorded = |row: &tokio_postgres::Row| {
        let (name, text): (String, String) = (row.try_get(0)?, row.try_get(2)?);
        let definition = serde_json::from_str(&text).map_err(|e| {
            Error::halt(format!("pgflume.captured is damaged ({e}): delete its rows and run `pgflume setup`"))
        })?;
        Ok((name, Recorded { oid: row.try_get(1)?, definition }))
    };
    rows.iter().map(recorded).collect()
}

/// Forgets tables and columns that the replica no longer has.
pub async fn forget(client: &Client, queue: &QueueName, retired: &Retired) -> Result<()> {
    let tables: Vec<&String> = retired.tables.iter().collect();
    for table in ["captured", "shapes", "resyncs"] {
        let sql = format!("delete from pgflume.{table} where queue = $1 and name = any($2)");
        client.execute_typed(&sql, &[(&queue.as_str(), Type::TEXT), (&tables, Type::TEXT_ARRAY)]).await?;
    }
    let columns: Vec<&String> = retired.columns.keys().collect();
    let sql = "update pgflume.captured set definition = definition - 'retired' where queue = $1 and name = any($2)";
    client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT), (&columns, Type::TEXT_ARRAY)]).await?;
    Ok(())
}

/// What may be dropped from the replica: named once, and no longer.
pub(crate) fn retired(schema: &Schema, records: &Records) -> Retired {
    let mut retired = Retired::default();
    for (name, recorded) in records {
        let Some(table) = schema.get(name) else {
            retired.tables.insert(name.clone());
            continue;
        };
        let definition = &recorded.definition;
        let once = definition.columns.keys().chain(&definition.retired);
        let gone: BTreeSet<String> = once.filter(|c| table.position(c).is_none()).cloned().collect();
        if !gone.is_empty() {
            retired.columns.insert(name.clone(), gone);
        }
    }
    retired
}

/// One way in which `schema.json` differs from what was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// The column, if it is about one.
    pub column: Option<String>,
    /// What differs, for people.
    pub what: String,
    /// Data of the replica would go.
    pub is_drop: bool,
    /// A worker can follow without help: the replica only grows, or the table is copied again.
    pub is_additive: bool,
}

/// All of them; none without a set-up.
pub fn differences(schema: &Schema, records: &Records) -> Vec<Difference> {
    if records.is_empty() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for table in schema.tables() {
        match records.get(&table.name) {
            Some(recorded) => all.extend(of_table(table, &recorded.definition)),
            None => all.push(difference(&table.name, None, "the table is new in schema.json")),
        }
    }
    for name in records.keys().filter(|name| schema.get(name).is_none()) {
        all.push(Difference {
            is_drop: true,
            ..difference(name, None, "it was set up, and the schema.json that is in use does not name the table")
        });
    }
    all
}

fn difference(table: &str, column: Option<&str>, what: impl Into<String>) -> Difference {
    let column = column.map(str::to_owned);
    Difference { table: table.to_owned(), column, what: what.into(), is_drop: false, is_additive: true }
}

fn of_table(table: &Table, captured: &Definition) -> Vec<Difference> {
    let now = Definition::of(table, &[]);
    let name = &table.name;
    let mut all = Vec::new();
    for (column, kind) in &now.columns {
        match captured.columns.get(column) {
            None => all.push(difference(name, Some(column), "the column is new in schema.json")),
            Some(before) if before != kind => {
                let what = format!("schema.json has it as {kind}, and had it as {before}");
                let is_additive = declared(before) == declared(kind);
                all.push(Difference { is_additive, ..difference(name, Some(column), what) });
            }
            Some(_) => {}
        }
    }
    for column in captured.columns.keys().filter(|c| !now.columns.contains_key(*c)) {
        let what = "schema.json no longer names the column";
        all.push(Difference { is_drop: true, ..difference(name, Some(column), what) });
    }
    if now.key != captured.key {
        let what = format!("primaryKey is now {}, and was {}", now.key.join(", "), captured.key.join(", "));
        all.push(Difference { is_additive: false, ..difference(name, None, what) });
    }
    if now.filter != captured.filter {
        all.push(difference(name, None, "`where` has changed"));
    }
    if now.source != captured.source {
        all.push(difference(name, None, format!("`source` is now {}, and was {}", now.source, captured.source)));
    }
    if now.indexes != captured.indexes {
        all.push(difference(name, None, "`indexes` has changed"));
    }
    if now.evolve != captured.evolve {
        all.push(difference(name, None, "`evolve` has changed"));
    }
    all
}

fn declared(kind: &str) -> Option<&'static str> {
    crate::core::schema::ColumnType::all().find(|k| k.name() == kind).map(ddl::declared_type)
}
