//! What the catalog said of the pulled tables when it was last read.

use super::wanted::Wanted;
use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::postgres::Client;
use crate::postgres::catalog::{self, Access, SourceTable};
use crate::postgres::drift::watch::Watch;
use crate::postgres::drift::{definition_version, traits};
use crate::provider::{Described, Description, Promise};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_postgres::types::Type;

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
pub(super) async fn read(client: &Client, wanted: &Wanted, row_bytes: i64) -> Result<Known> {
    let queue = QueueName::parse(NO_QUEUE).map_err(|e| Error::halt(e.to_string()))?;
    let (schema, forbidden) = readable(client, wanted, &queue).await?;
    let schema = &schema;
    // First of all: what changes while the rest is read is seen by the next look.
    catalog::begin(client).await?;
    let fingerprint = Watch::bare().look(client, schema, &queue).await?;
    client.commit().await?;
    let catalog = catalog::read(client, schema, &queue).await?;
    let traits = traits::read_bare(client, schema, &queue).await?;
    let obstacles = obstacles(client, &catalog.tables).await?;
    let (mut sources, mut tables) = (BTreeMap::new(), BTreeMap::new());
    for (name, mut source) in catalog.tables {
        source.most_bytes = row_bytes;
        let problem = source.unpageable().or_else(|| obstacles.get(&source.oid).cloned());
        let promise = match &source.table.filter {
            None => Promise::Exact,
            // What it calls is not looked through.
            Some(_) => {
                Promise::ExactBut("functions that `where` calls and that are replaced: compare after that".into())
            }
        };
        let described = Described {
            table: source.table.clone(),
            definition: definition_version::of_pulled(&source, traits.get(&name))?,
            sorts_alike: problem.is_none() && source.sorts_alike(),
            problem,
            promise,
        };
        tables.insert(name.clone(), described);
        sources.insert(name, Arc::new(source));
    }
    Ok(Known { fingerprint, description: Arc::new(Description { schema: schema.clone(), forbidden, tables }), sources })
}

/// The definitions, without tables that were named by a pattern only and that may not be read; and those.
async fn readable(client: &Client, wanted: &Wanted, queue: &QueueName) -> Result<(Arc<Schema>, BTreeSet<String>)> {
    let schema = wanted.schema(client).await?;
    let sources = catalog::read(client, &schema, queue).await?.tables;
    let is_left_out = |source: &SourceTable| {
        let name = &source.table.source;
        source.access == Access::Forbidden && !wanted.spells_out(&name.schema, &name.table)
    };
    let left_out: BTreeSet<String> =
        sources.values().filter(|s| is_left_out(s)).map(|s| s.table.name.clone()).collect();
    if left_out.is_empty() {
        return Ok((schema, left_out));
    }
    tracing::debug!(tables = ?left_out, "these tables may not be read and are left out");
    Ok((Arc::new(schema.of(|table| !left_out.contains(table))), left_out))
}

/// Why the rows of tables, by their oids, cannot be told by the transaction that wrote them.
async fn obstacles(client: &Client, sources: &BTreeMap<String, SourceTable>) -> Result<BTreeMap<u32, String>> {
    let sql = "select c.oid, c.relkind = 'r' and exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid),
                      (select pg_catalog.min(coalesce(a.amname::pg_catalog.text, 'a foreign server')) from pg_catalog.pg_class l
                       left join pg_catalog.pg_am a on a.oid = l.relam
                       where (l.oid = c.oid or l.oid in (select p.relid from pg_catalog.pg_partition_tree(c.oid) p))
                           and (l.relkind = 'f' or l.relkind = 'r' and a.amname <> 'heap'))
               from pg_catalog.pg_class c where c.oid = any($1)";
    let oids: Vec<u32> = sources.values().map(|source| source.oid).filter(|oid| *oid != 0).collect();
    let mut obstacles = BTreeMap::new();
    for row in client.query_typed(sql, &[(&oids, Type::OID_ARRAY)]).await? {
        let (is_parent, kept_by): (bool, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
        let problem = match kept_by {
            Some(by) => format!(
                "rows of it are kept by {by}, where nobody can tell which transaction wrote them: leave it out, or replicate them where they live"
            ),
            None if is_parent => {
                "it shows rows of inheritance children: pull the children, or partition it instead".to_owned()
            }
            None => continue,
        };
        obstacles.insert(row.try_get(0)?, problem);
    }
    Ok(obstacles)
}
