//! Tables with `"evolve": true`: columns that were added to their source since `setup` become part of the
//! definition. Takes what is recorded and what is there, gives the definition in force; stores nothing,
//! so that every worker comes to the same.

use super::recorded::{self, Recorded, Records, SourceColumn};
use super::source::{self, CurrentTable};
use crate::core::error::Result;
use crate::core::failpoint;
use crate::core::queue_name::QueueName;
use crate::core::schema::{Column, Schema, Table};
use crate::postgres::catalog::Catalog;
use crate::postgres::{Client, catalog};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `schema` with the columns that came since.
pub(crate) async fn effective(client: &Client, schema: &Arc<Schema>, queue: &QueueName) -> Result<Arc<Schema>> {
    catalog::begin(client).await?;
    let effective = effective_within(client, schema, queue).await?;
    client.commit().await?;
    Ok(effective)
}

/// The same and what Postgres has of it, at one snapshot: a column that came between two would stay unseen.
pub(crate) async fn effective_catalog(
    client: &Client,
    schema: &Arc<Schema>,
    queue: &QueueName,
) -> Result<(Arc<Schema>, Catalog)> {
    catalog::begin(client).await?;
    let effective = effective_within(client, schema, queue).await?;
    failpoint::reach(failpoint::EFFECTIVE);
    let catalog = catalog::read_within(client, &effective, queue).await?;
    client.commit().await?;
    Ok((effective, catalog))
}

async fn effective_within(client: &Client, schema: &Arc<Schema>, queue: &QueueName) -> Result<Arc<Schema>> {
    if !schema.tables().any(|table| table.evolve) {
        return Ok(schema.clone());
    }
    let records = recorded::read(client, queue).await?;
    if records.is_empty() {
        return Ok(schema.clone());
    }
    let found = source::read_within(client, schema, &records, queue).await?;
    Ok(Arc::new(extend(schema, &records, &found)))
}

/// The same of what is known already.
pub fn extend(schema: &Schema, records: &Records, found: &BTreeMap<String, CurrentTable>) -> Schema {
    let mut more = BTreeMap::new();
    for table in schema.tables().filter(|table| table.evolve) {
        if let (Some(recorded), Some(found)) = (records.get(&table.name), found.get(&table.name)) {
            let column = |c: &SourceColumn| Column { name: c.name.clone(), kind: found.kind(&c.name) };
            let columns = new_columns(table, recorded, found).into_iter();
            more.insert(table.name.clone(), columns.map(column).collect::<Vec<_>>());
        }
    }
    schema.extended(&more)
}

/// The source's columns that came since `setup` and that `table` does not name. A renamed column keeps its
/// number and is not new: it may have been left out on purpose.
pub(crate) fn new_columns<'a>(table: &Table, recorded: &Recorded, found: &'a CurrentTable) -> Vec<&'a SourceColumn> {
    let definition = &recorded.definition;
    let is_same_table = found.oid == recorded.oid;
    let is_new = |c: &&SourceColumn| {
        let lower = c.name.to_lowercase();
        let is_named = table.columns.iter().any(|named| named.name.to_lowercase() == lower);
        let came_since = match is_same_table {
            true => c.number > definition.known,
            false => !definition.source_columns.iter().any(|before| before.name == c.name),
        };
        !is_named && came_since
    };
    found.columns.iter().filter(is_new).collect()
}
