//! What the source's catalog said when it was last read.

use super::{Worker, lacking};
use crate::drift::traits::{self, Traits};
use crate::drift::watch::Watch;
use crate::drift::{evolve, shape::Shape};
use crate::error::Result;
use crate::postgres::Client;
use crate::schema::Schema;
use crate::schema::catalog::SourceTable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All that depends on the source's catalog.
pub(super) struct Known {
    /// How to see whether it has changed.
    pub watch: Watch,
    /// What it gave.
    pub fingerprint: String,
    /// What is replicated, with the columns that tables follow their source by.
    pub schema: Arc<Schema>,
    /// The tables.
    pub sources: BTreeMap<String, SourceTable>,
    /// The shape that they give the replica.
    pub shape: Shape,
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
        let shape = Shape::of(&schema, &sources, &traits)?;
        Ok(Self { watch, fingerprint, schema, sources, shape })
    }
}
