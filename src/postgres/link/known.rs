//! What the source's catalog said when it was last read.

use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::postgres::Client;
use crate::postgres::catalog::SourceTable;
use crate::postgres::drift::definition_version::DefinitionVersion;
use crate::postgres::drift::traits::Traits;
use crate::postgres::drift::watch::Watch;
use crate::postgres::drift::{evolve, traits};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All that depends on the source's catalog.
#[derive(Debug, Clone)]
pub struct Known {
    /// A text that any change of it makes another: see [`Source::fingerprint`](super::Source::fingerprint).
    pub fingerprint: String,
    /// What is replicated, with the columns that tables follow their source by.
    pub schema: Arc<Schema>,
    /// The tables.
    pub sources: BTreeMap<String, SourceTable>,
    /// The version of the definitions that they give the replica.
    pub definition_version: DefinitionVersion,
}

/// Reads it, outside of a step, and how to see whether it has changed.
pub(super) async fn read(
    client: &Client,
    declared: &Arc<Schema>,
    queue: &QueueName,
    row_bytes: i64,
) -> Result<(Watch, Known)> {
    // First of all: what changes while the rest is read is seen by the next look.
    let (watch, fingerprint) = Watch::begin(client, declared, queue).await?;
    let (schema, catalog) = evolve::effective_catalog(client, declared, queue).await?;
    let mut sources = catalog.tables;
    sources.values_mut().for_each(|source| source.most_bytes = row_bytes);
    let schema = without_lacking(schema, &sources);
    let traits: BTreeMap<String, Traits> = traits::read(client, &schema, queue).await?;
    let definition_version = DefinitionVersion::of(&schema, &sources, &traits)?;
    Ok((watch, Known { fingerprint, schema, sources, definition_version }))
}

/// The definition that the replica gets: without columns that `schema.json` names and a table that can be looked at does
/// not have, mistyped or dropped. Nobody would take them away again.
fn without_lacking(schema: Arc<Schema>, sources: &BTreeMap<String, SourceTable>) -> Arc<Schema> {
    let lacking: BTreeMap<String, Vec<String>> = sources
        .iter()
        .filter(|(_, source)| !source.lacking.is_empty())
        .map(|(name, source)| (name.clone(), source.lacking.clone()))
        .collect();
    if lacking.is_empty() { schema } else { Arc::new(schema.without(&lacking)) }
}
