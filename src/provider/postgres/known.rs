//! What the catalog said of the pulled tables when it was last read.

use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::postgres::Client;
use crate::postgres::catalog::{self, SourceTable};
use crate::postgres::drift::watch::Watch;
use crate::postgres::drift::{definition_version, traits};
use crate::provider::{Described, Description};
use std::collections::BTreeMap;
use std::sync::Arc;

/// No queue: what is asked of triggers and marks finds none.
const NO_QUEUE: &str = "none";

/// All that depends on the catalog.
#[derive(Default)]
pub(super) struct Known {
    /// A text that any change of it makes another.
    fingerprint: String,
    pub description: Arc<Description>,
    sources: BTreeMap<String, Arc<SourceTable>>,
}

impl Known {
    /// A table.
    pub fn source(&self, name: &str) -> Result<Arc<SourceTable>> {
        let unknown = || Error::retry(format!("the table {name:?} was not described yet; it will be tried again"));
        self.sources.get(name).cloned().ok_or_else(unknown)
    }

    /// Several.
    pub fn sources(&self, names: &[&str]) -> Result<Vec<Arc<SourceTable>>> {
        names.iter().map(|name| self.source(name)).collect()
    }

    /// Whether it still holds, at the caller's snapshot.
    pub async fn is_current(&self, client: &Client) -> Result<bool> {
        let queue = QueueName::parse(NO_QUEUE).map_err(|e| Error::halt(e.to_string()))?;
        let now = Watch::bare().look(client, &self.description.schema, &queue).await?;
        Ok(now == self.fingerprint)
    }
}

/// Reads it.
pub(super) async fn read(client: &Client, schema: &Arc<Schema>, row_bytes: i64) -> Result<Known> {
    let queue = QueueName::parse(NO_QUEUE).map_err(|e| Error::halt(e.to_string()))?;
    // First of all: what changes while the rest is read is seen by the next look.
    catalog::begin(client).await?;
    let fingerprint = Watch::bare().look(client, schema, &queue).await?;
    client.commit().await?;
    let catalog = catalog::read(client, schema, &queue).await?;
    let traits = traits::read_bare(client, schema, &queue).await?;
    let (mut sources, mut tables) = (BTreeMap::new(), BTreeMap::new());
    for (name, mut source) in catalog.tables {
        source.most_bytes = row_bytes;
        let described = Described {
            table: source.table.clone(),
            definition: definition_version::of_pulled(&source, traits.get(&name))?,
            problem: source.unpageable(),
            sorts_alike: source.sorts_alike(),
        };
        tables.insert(name.clone(), described);
        sources.insert(name, Arc::new(source));
    }
    Ok(Known { fingerprint, description: Arc::new(Description { schema: schema.clone(), tables }), sources })
}
