//! Gives tables of the replica that declare another key than `schema.json`'s the unique index over it: once, before
//! the first batch. Where rows have to go for its sake, the table is copied again where it can be.

use crate::core::error::{Error, Result};
use crate::core::schema::{Schema, Table, ddl};
use crate::postgres::books::rebuilds::Reason;
use crate::postgres::catalog::SourceTable;
use crate::postgres::link::Link;
use crate::replica::Replica;
use crate::replica::inventory::Inventory;
use crate::sync::alone::alone;
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Makes what is missing, and drops what another key has left. Whether anything was done.
pub(in crate::sync) async fn complete(
    link: &dyn Link,
    replica: &Replica,
    there: &Inventory,
    (schema, sources): (&Schema, &BTreeMap<String, SourceTable>),
) -> Result<bool> {
    let stale = schema.tables().filter(|table| there.has_stale_key_index(table));
    if stale.count() + there.keyless(schema).count() == 0 {
        return Ok(false);
    }
    for table in there.keyless(schema) {
        let surplus = replica.count_surplus(table).await?;
        if surplus > 0 {
            announce(link, table, sources.get(&table.name), surplus).await?;
        }
    }
    alone(link, make_all(replica, schema)).await?;
    Ok(true)
}

/// Somebody else may have made it since it was looked for.
async fn make_all(replica: &Replica, schema: &Schema) -> Result<()> {
    let there = replica.inventory().await?;
    for table in schema.tables().filter(|table| there.has_stale_key_index(table)) {
        replica.drop_key(table).await?;
        tracing::info!(table = table.name, "dropped the unique index over a key that is no longer the table's");
    }
    for table in there.keyless(schema) {
        make(replica, &there, table).await?;
    }
    Ok(())
}

/// Asks for the copy before rows go: an answer that is lost must not leave a gap that nobody fills.
async fn announce(link: &dyn Link, table: &Table, source: Option<&SourceTable>, surplus: i64) -> Result<()> {
    let name = table.name.as_str();
    if source.is_some_and(SourceTable::can_be_copied) {
        tracing::warn!(
            table = name,
            rows = surplus,
            "rows of the replica share their key with a younger one, or have none: they go, and the table is copied again"
        );
        return link.schedule(&[name], Reason::Evolve).await;
    }
    tracing::warn!(
        table = name,
        rows = surplus,
        "rows of the replica share their key with a younger one, or have none: they go; the table cannot be read in Postgres, so `pgflume resync {name}` once it can"
    );
    Ok(())
}

async fn make(replica: &Replica, there: &Inventory, table: &Table) -> Result<()> {
    let started = Instant::now();
    replica.make_key(there, table).await.map_err(|e| match e.is_rejection() {
        true => Error::retry(format!("the unique index over the key of {:?} could not be made: {e}", table.name)),
        false => e,
    })?;
    let key: Vec<_> = table.key_columns().map(|c| c.name.as_str()).collect();
    tracing::info!(
        table = table.name,
        key = key.join(", "),
        index = ddl::key_index_name(table),
        took_ms = started.elapsed().as_millis() as u64,
        "the replica's table declares another primary key: made a unique index over ours, by which rows are written from now on"
    );
    Ok(())
}
