//! How the source, `schema.json`, the capture and the replica have moved apart since `setup`, each with the
//! command that fixes it. Takes a client and what the replica has; changes nothing. `compare` and `danger` are pure.

mod compare;
mod danger;
pub mod definition_version;
pub mod evolve;
mod finding;
mod queue;
pub mod recorded;
pub mod source;
pub(crate) mod traits;
pub mod watch;

pub use finding::{Drift, DriftKind};

use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::postgres::Client;
use crate::replica::inventory::Inventory;
use std::collections::BTreeSet;

/// Everything that has drifted; nothing where there never was a set-up. `replica`: what it has, if it answers.
pub async fn check(
    client: &Client,
    queue: &QueueName,
    schema: &Schema,
    replica: Option<&Inventory>,
) -> Result<Vec<Drift>> {
    let records = recorded::read(client, queue).await?;
    let found = source::read(client, schema, &records, queue).await?;
    if records.is_empty() {
        let captured = replica.map(|there| &there.captured);
        return Ok(compare::forgotten(schema, &found, captured.unwrap_or(&BTreeSet::new())));
    }
    let effective = evolve::extend(schema, &records, &found);
    let mut drift = compare::sides(schema, &records, &found);
    drift.extend(queue::check(client, queue).await?);
    if let Some(there) = replica.filter(|there| there.has_bookkeeping()) {
        drift.extend(compare::replica(&effective, &records, there));
    }
    Ok(drift)
}

/// Says in the log what has drifted.
pub fn warn<'a>(drift: impl IntoIterator<Item = &'a Drift>) {
    for one in drift {
        match one.kind.is_fault() {
            true => tracing::warn!(table = one.table, "schema drift: {}", one.line()),
            false => tracing::info!(table = one.table, "schema drift: {}", one.line()),
        }
    }
}
