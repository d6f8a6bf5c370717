//! A database that pgflume has never written to, with tables of our names and rows in them: somebody's data, until
//! they say that it may go. The replica that Capgo's worker left is known by its shape.

use crate::core::error::{Error, Result};
use crate::core::schema::{Schema, Table, quote};
use crate::replica::Replica;
use crate::replica::inventory::{Inventory, ReplicaColumn};
use crate::sync::worker::Worker;

/// The tables of Capgo's worker, each with this column as its primary key.
const CAPGO: [&str; 7] = ["app_versions", "apps", "channel_devices", "channels", "manifest", "orgs", "stripe_info"];
const CAPGO_KEY: &str = "id";

/// Refuses such a database, unless the worker may adopt it.
pub(in crate::sync) async fn refuse(
    worker: &Worker,
    replica: &Replica,
    there: &Inventory,
    schema: &Schema,
) -> Result<()> {
    refuse_pulled(replica, there, schema).await?;
    if worker.adopt || there.has_any_bookkeeping() {
        return Ok(());
    }
    for table in schema.tables() {
        let Some(columns) = there.tables.get(&table.name.to_lowercase()) else { continue };
        if !is_capgos(table, columns) && has_rows(replica, table).await? {
            return Err(Error::side(format!(
                "the replica has a table {:?} with rows in it, and pgflume has never written there: name another database in LIBSQL_URL, or let it be taken over with --adopt (the rows of Postgres replace those)",
                table.name
            )));
        }
    }
    Ok(())
}

/// Tables that a sync pulls are its own.
async fn refuse_pulled(replica: &Replica, there: &Inventory, schema: &Schema) -> Result<()> {
    if !there.has_pulls() {
        return Ok(());
    }
    let owners = replica.owners().await?;
    match schema.tables().find_map(|table| owners.get(&table.name.to_lowercase()).map(|sync| (&table.name, sync))) {
        None => Ok(()),
        Some((table, sync)) => Err(Error::side(format!(
            "the replica's table {table:?} is pulled by the sync {sync:?}, and two cannot write it: leave it out of one of them, or name another replica"
        ))),
    }
}

async fn has_rows(replica: &Replica, table: &Table) -> Result<bool> {
    Ok(!replica.query(format!("SELECT 1 FROM {} LIMIT 1", quote(&table.name)), Vec::new()).await?.is_empty())
}

/// One of its tables, with its key, and no column that this schema.json does not know, or all that it does.
fn is_capgos(table: &Table, columns: &[ReplicaColumn]) -> bool {
    let key: Vec<&str> = columns.iter().filter(|c| c.in_key).map(|c| c.name.as_str()).collect();
    let is_known = |c: &ReplicaColumn| table.position(&c.name).is_some();
    let is_there = |name: &str| columns.iter().any(|c| c.name == name);
    CAPGO.contains(&table.name.as_str())
        && key == [CAPGO_KEY]
        && (columns.iter().all(is_known) || table.columns.iter().all(|c| is_there(&c.name)))
}
