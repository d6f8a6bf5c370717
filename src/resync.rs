//! `pgflume resync` and `POST /resync`: asks for tables to be rebuilt from Postgres while the replica stays
//! readable. The steps of the next drains do it ([`crate::sync`]). Takes a worker and names; reads no row.

use crate::error::Result;
use crate::progress;
use crate::resyncs::{self, Reason};
use crate::schema::Schema;
use crate::sync::Worker;
use std::collections::BTreeSet;

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

/// Asks for `names`, which `schema.json` has, to be rebuilt from the start.
pub async fn request(worker: &Worker, names: &[&str]) -> Result<()> {
    let client = worker.postgres().pinned().await?;
    progress::ensure(&client, worker.queue()).await?;
    resyncs::schedule(&client, worker.queue(), names, Reason::Request, false).await?;
    tracing::info!(tables = ?names, "these tables will be rebuilt");
    Ok(())
}
