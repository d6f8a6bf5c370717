//! How the source, `schema.json`, the capture and the replica have moved apart since `setup`, each with the
//! command that mends it. Takes a client and what the replica has; changes nothing. `compare` and `danger` are pure.

mod compare;
mod danger;
pub mod definition_version;
pub mod evolve;
mod queue;
pub mod recorded;
pub mod source;
pub mod traits;
pub mod watch;

use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::core::words;
use crate::postgres::Client;
use crate::replica::inventory::Inventory;
use serde::Serialize;
use std::collections::BTreeSet;

/// One thing that is no longer as it was set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// The table's name in `schema.json`.
    pub table: String,
    /// The column, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Of which kind.
    pub kind: Kind,
    /// What is different.
    pub problem: String,
    /// What to do about it.
    #[serde(rename = "mend")]
    pub remedy: String,
}

/// The kinds of drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The source lacks a column that is replicated.
    ColumnMissing,
    /// A column of the source has another type.
    ColumnRetyped,
    /// The source has a new column that is not replicated.
    ColumnAdded,
    /// The source's rows are no longer identified by the key.
    KeyChanged,
    /// The source is gone.
    TableMissing,
    /// The source has another name.
    TableRenamed,
    /// Triggers are missing, or do not fire for every change.
    CaptureMissing,
    /// The source is such that its rows can change without a mark.
    SourceUnsafe,
    /// The queue, which is `table`, is not as it was set up: marks may get lost, or writes fail.
    Queue,
    /// `schema.json` differs from what was set up.
    SchemaChanged,
    /// The replica lacks what the next drain adds.
    ReplicaLacks,
    /// A table of the replica differs so that batches cannot be applied faithfully.
    ReplicaDiffers,
    /// The replica still has what was replicated once.
    ReplicaExtra,
}

impl Kind {
    /// Whether somebody has to act; the rest is for information.
    pub fn is_fault(self) -> bool {
        !matches!(self, Self::ColumnAdded | Self::ReplicaLacks)
    }
}

impl Drift {
    /// Table, problem and remedy in one line.
    pub fn line(&self) -> String {
        let column = self.column.as_ref().map(|c| format!(".{c}")).unwrap_or_default();
        // Names of columns and types are those of whoever owns the table.
        words::clean(&format!("{}{column}: {}: {}", self.table, self.problem, self.remedy), words::ERROR_CHARS)
    }
}

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
