//! `pgflume resync` and `POST /resync`: asks for tables to be rebuilt from Postgres while the replica stays
//! readable. The steps of the next drains do it ([`crate::sync`]). Takes a worker and names; reads no row.

use crate::core::error::Result;
use crate::core::schema::Schema;
use crate::postgres::books::rebuilds::Reason;
use crate::postgres::books::{progress, rebuilds};
use crate::postgres::{Purpose, rows};
use crate::sync::Worker;
use std::collections::BTreeSet;
use std::time::Duration;

/// Names that `schema.json` does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schema.json names no table {0}: use the names that it has ({1})")]
pub struct UnknownTables(String, String);

/// The tables that `names` stand for: all of them if it is empty.
pub fn tables<'a>(schema: &'a Schema, names: &'a [String]) -> Result<Vec<&'a str>, UnknownTables> {
    let unknown: Vec<_> = names.iter().filter(|n| schema.get(n).is_none()).map(|n| format!("{n:?}")).collect();
    let all: Vec<&str> = schema.tables().map(|t| t.name.as_str()).collect();
    if !unknown.is_empty() {
        return Err(UnknownTables(unknown.join(", "), all.join(", ")));
    }
    Ok(if names.is_empty() {
        all
    } else {
        names.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
    })
}

/// How long a request waits for another one of the same tables.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks for `names`, which `schema.json` has, to be rebuilt from the start.
pub async fn request(worker: &Worker, names: &[&str]) -> Result<()> {
    request_once(worker, names, None).await.map(drop)
}

/// The same for a signed request, whose id works once: `false` if it was used before.
pub(crate) async fn request_once(worker: &Worker, names: &[&str], id: Option<&str>) -> Result<bool> {
    let client = worker.postgres().pinned(Purpose::Resync).await?;
    progress::ensure(&client, worker.queue()).await?;
    rows::begin_waiting(&client, PATIENCE).await?;
    // In the transaction that asks: a request that fails may be tried again with the same id.
    if let Some(id) = id
        && !progress::redeem(&client, id).await?
    {
        client.batch_execute("rollback").await?;
        return Ok(false);
    }
    rebuilds::schedule(&client, worker.queue(), names, Reason::Request).await?;
    client.batch_execute("commit").await?;
    tracing::info!(tables = ?names, "these tables will be rebuilt");
    Ok(true)
}
