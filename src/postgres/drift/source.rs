//! What the catalog says about the captured tables now: columns, keys, triggers, and where a renamed table
//! is. One query; changes nothing.

use super::recorded::{Records, SourceColumn};
use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::{ColumnType, Schema};
use crate::postgres::catalog::columns;
use crate::postgres::{Client, catalog};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// A source table as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CurrentTable {
    /// Its OID; 0 if there is none of that name.
    pub oid: u32,
    /// The name that the captured table has now, if it is another.
    pub moved_to: Option<String>,
    /// Its columns.
    pub columns: Vec<SourceColumn>,
    /// The sets of columns that identify a row, each sorted; the primary key first.
    pub keys: Vec<Vec<String>>,
    /// Our triggers by event, and when they fire: `A` is always.
    pub triggers: BTreeMap<String, String>,
    /// Partitions whose rows nothing captures.
    pub uncaptured_partitions: i64,
    /// Its `relkind`: `r` and `p` can be captured.
    pub relkind: String,
    /// Its `relpersistence`: `p` survives a crash.
    pub persistence: String,
    /// Inheritance children, whose rows it shows.
    pub children: i64,
    /// Whether it is a partition or an inheritance child itself.
    pub is_child: bool,
    /// Whether logical replication fills it.
    pub is_subscribed: bool,
    /// Partitions that a crash empties, or that are somewhere else.
    pub unsafe_partitions: i64,
    /// What its triggers run, hashed, by event.
    pub functions: BTreeMap<String, String>,
    /// How its columns would be kept without loss; empty where none has come since `setup`.
    pub kinds: BTreeMap<String, ColumnType>,
}

impl CurrentTable {
    /// How a column would be kept without loss.
    pub fn kind(&self, column: &str) -> ColumnType {
        self.kinds.get(column).copied().unwrap_or(ColumnType::Text)
    }
}

/// Asks for every table of `schema`.
pub async fn read(
    client: &Client,
    schema: &Schema,
    records: &Records,
    queue: &QueueName,
) -> Result<BTreeMap<String, CurrentTable>> {
    catalog::begin(client).await?;
    let found = read_within(client, schema, records, queue).await?;
    client.commit().await?;
    Ok(found)
}

/// The same in a transaction that [`catalog::begin`] began.
pub(crate) async fn read_within(
    client: &Client,
    schema: &Schema,
    records: &Records,
    queue: &QueueName,
) -> Result<BTreeMap<String, CurrentTable>> {
    let tables: Vec<_> = schema.tables().collect();
    let names: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
    let schemas: Vec<&str> = tables.iter().map(|t| t.source.schema.as_str()).collect();
    let sources: Vec<&str> = tables.iter().map(|t| t.source.table.as_str()).collect();
    let captured: Vec<u32> = tables.iter().map(|t| records.get(&t.name).map_or(0, |r| r.oid)).collect();
    let prefix = format!("pgflume_{}_", queue.as_str());
    let parameters = [
        (&names as _, Type::TEXT_ARRAY),
        (&schemas as _, Type::TEXT_ARRAY),
        (&sources as _, Type::TEXT_ARRAY),
        (&captured as _, Type::OID_ARRAY),
        (&prefix as _, Type::TEXT),
    ];
    let rows = client.query_typed(include_str!("../../../sql/drift_sources.sql"), &parameters).await?;
    let mut tables = rows.iter().map(|row| Ok((row.try_get(0)?, found(row)?))).collect::<Result<_>>()?;
    add_kinds(client, records, &mut tables).await?;
    Ok(tables)
}

/// Only of tables that have new columns.
async fn add_kinds(client: &Client, records: &Records, tables: &mut BTreeMap<String, CurrentTable>) -> Result<()> {
    let has_grown = |(name, found): &(&String, &mut CurrentTable)| {
        records
            .get(*name)
            .is_some_and(|r| found.oid != r.oid || found.columns.iter().any(|c| c.number > r.definition.known))
    };
    let grown: Vec<&mut CurrentTable> = tables.iter_mut().filter(has_grown).map(|(_, found)| found).collect();
    if grown.is_empty() {
        return Ok(());
    }
    let oids: Vec<u32> = grown.iter().map(|found| found.oid).collect();
    let mut typed = columns::read(client, &oids).await?;
    for found in grown {
        let columns = typed.remove(&found.oid).unwrap_or_default().into_iter();
        found.kinds = columns.map(|c| (c.name, c.pg_type.default_type())).collect();
    }
    Ok(())
}

fn found(row: &Row) -> Result<CurrentTable> {
    Ok(CurrentTable {
        oid: row.try_get(1)?,
        moved_to: row.try_get(2)?,
        columns: json(row, 3)?,
        keys: json(row, 4)?,
        triggers: json(row, 5)?,
        uncaptured_partitions: row.try_get(6)?,
        relkind: row.try_get(7)?,
        persistence: row.try_get(8)?,
        children: row.try_get(9)?,
        is_child: row.try_get::<_, Option<bool>>(10)?.unwrap_or(false),
        is_subscribed: row.try_get(11)?,
        unsafe_partitions: row.try_get(12)?,
        functions: json(row, 13)?,
        kinds: BTreeMap::new(),
    })
}

fn json<T: DeserializeOwned + Default>(row: &Row, index: usize) -> Result<T> {
    match row.try_get::<_, Option<&str>>(index)? {
        None => Ok(T::default()),
        Some(text) => serde_json::from_str(text)
            .map_err(|e| Error::retry(format!("the catalog gave an answer that cannot be read ({e})"))),
    }
}
