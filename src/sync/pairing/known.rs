//! What the source's catalog said when it was last read.

use super::lacking;
use crate::core::error::Result;
use crate::core::schema::Schema;
use crate::postgres::Client;
use crate::postgres::catalog::SourceTable;
use crate::postgres::drift::definition_version::DefinitionVersion;
use crate::postgres::drift::traits::Traits;
use crate::postgres::drift::watch::Watch;
use crate::postgres::drift::{evolve, traits};
use crate::sync::worker::Worker;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All that depends on the source's catalog.
pub(in crate::sync) struct Known {
    /// How to see whether it has changed.
    pub watch: Watch,
    /// What it gave.
    pub fingerprint: String,
    /// What is replicated, with the columns that tables follow their source by.
    pub schema: Arc<Schema>,
    /// The tables.
    pub sources: BTreeMap<String, SourceTable>,
    /// The version of the definitions that they give the replica.
    pub definition_version: DefinitionVersion,
}

impl Known {
    /// Reads it, outside of a step.
    pub async fn read(client: &Client, worker: &Worker) -> Result<Self> {
        // First of all: what changes while the rest is read is seen by the next look.
        let (watch, fingerprint) = Watch::begin(client, &worker.schema, &worker.queue).await?;
        let (schema, catalog) = evolve::effective_catalog(client, &worker.schema, &worker.queue).await?;
        let mut sources = catalog.tables;
        sources.values_mut().for_each(|source| source.most_bytes = worker.row_bytes);
        let schema = lacking::without(schema, &sources);
        let traits: BTreeMap<String, Traits> = traits::read(client, &schema, &worker.queue).await?;
        let definition_version = DefinitionVersion::of(&schema, &sources, &traits)?;
        Ok(Self { watch, fingerprint, schema, sources, definition_version })
    }
}
