//! What the catalog said of the pulled tables when it was last read.

use super::dialect::Postgres;
use super::wanted::Wanted;
use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::postgres::Client;
use crate::postgres::catalog::{self, Access, SourceTable};
use crate::postgres::drift::watch::Watch;
use crate::postgres::drift::{definition_version, traits};
use crate::provider::stamps::{self, Ladder, Listed, StampOptions};
use crate::provider::{Described, Description, Promise};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_postgres::Row;
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
    /// Those whose changes are told by stamps, or not at all.
    listed: BTreeMap<String, Listed>,
    /// What the rows of views come from.
    origins: BTreeMap<u32, Origin>,
}

/// What the rows of a view or a foreign table come from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    /// A text that any change of it makes another.
    definition: String,
    /// A function of somebody's own.
    own_function: Option<String>,
    /// A materialized view that was never refreshed has no rows, not even none.
    is_populated: bool,
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

    /// How the changed rows of a table are told, where not by the transactions that wrote them.
    pub fn listed(&self, name: &str) -> Option<&Listed> {
        self.listed.get(name)
    }

    /// Whether it still holds, at the caller's snapshot.
    pub async fn is_current(&self, client: &Client) -> Result<bool> {
        let queue = QueueName::parse(NO_QUEUE).map_err(|e| Error::halt(e.to_string()))?;
        let now = Watch::bare().look(client, &self.description.schema, &queue).await?;
        let oids: Vec<u32> = self.origins.keys().copied().collect();
        Ok(now == self.fingerprint && origins(client, &oids).await? == self.origins)
    }
}

/// Reads it.
pub(super) async fn read(
    client: &Client,
    wanted: &Wanted,
    row_bytes: i64,
    stamp_options: &StampOptions,
) -> Result<Known> {
    let queue = QueueName::parse(NO_QUEUE).map_err(|e| Error::halt(e.to_string()))?;
    let (schema, forbidden) = readable(client, wanted, &queue).await?;
    let schema = &schema;
    // First of all: what changes while the rest is read is seen by the next look.
    catalog::begin(client).await?;
    let fingerprint = Watch::bare().look(client, schema, &queue).await?;
    client.commit().await?;
    let catalog = catalog::read_shown(client, schema, &queue).await?;
    let traits = traits::read_bare(client, schema, &queue).await?;
    let Kinds { obstacles, unversioned } = kinds(client, &catalog.tables).await?;
    let is_listed = |source: &SourceTable| source.kind.shows_others() || unversioned.contains(&source.oid);
    let listed_oids: Vec<u32> =
        catalog.tables.values().filter(|source| is_listed(source)).map(|source| source.oid).collect();
    let origins = origins(client, &listed_oids).await?;
    let columns = columns(client, &listed_oids).await?;
    for table in stamp_options.columns.keys().filter(|table| !catalog.tables.contains_key(*table)) {
        tracing::warn!(table, "`changed` names a table that is not pulled: correct it");
    }
    let (mut sources, mut tables, mut listed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (name, mut source) in catalog.tables {
        source.most_bytes = row_bytes;
        let mut problem = source.unpageable().or_else(|| obstacles.get(&source.oid).cloned());
        let mut traits = traits.get(&name).cloned();
        let mut promise = match &source.table.filter {
            None => Promise::Exact,
            // What it calls is not looked through.
            Some(_) => {
                Promise::ExactBut("functions that `where` calls and that are replaced: compare after that".into())
            }
        };
        if is_listed(&source) {
            let origin = origins.get(&source.oid);
            traits::note_origin(&mut traits, origin.map(|origin| origin.definition.as_str()).unwrap_or_default());
            let stamps = stamps::choose::<Postgres>(&source.table, columns.get(&source.oid), &stamp_options.columns);
            problem = problem.or_else(|| origin.and_then(|origin| origin.problem(&source))).or(stamps.clone().err());
            let stamps = stamps.unwrap_or_default();
            promise = match stamps.is_empty() {
                true => Promise::Compared,
                false => Promise::Stamped(stamps.iter().map(|stamp| stamp.column.clone()).collect()),
            };
            let is_compared = stamp_options.is_compared;
            let (ladder, compare) = (Ladder::of(stamp_options.every), stamp_options.compare);
            listed.insert(name.clone(), Listed { stamps, ladder, is_compared, compare });
        }
        let described = Described {
            is_told: false,
            untold: None,
            table: source.table.clone(),
            definition: definition_version::of_pulled(&source, traits.as_ref())?,
            // Each range of a view would be another run of its query.
            sorts_alike: problem.is_none() && !is_listed(&source) && source.sorts_alike(),
            finds_unchanged: is_listed(&source),
            is_digested: false,
            types: source.types(),
            problem,
            promise,
        };
        tables.insert(name.clone(), described);
        sources.insert(name, Arc::new(source));
    }
    let description = Arc::new(Description { schema: schema.clone(), forbidden, tables, ..Description::default() });
    Ok(Known { fingerprint, description, sources, listed, origins })
}

impl Origin {
    /// Why rows that come from it are not read.
    fn problem(&self, source: &SourceTable) -> Option<String> {
        if !self.is_populated {
            return Some(format!(
                "{} has no rows yet: run `refresh materialized view` on it",
                source.table.source.quoted()
            ));
        }
        // On one line, whatever the name is.
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        let function: String = self.own_function.as_ref()?.chars().map(clean).collect();
        Some(format!(
            "the {} {} calls {function}, a function of neither its owner nor a superuser, which would run with the rights of the worker: let the view's owner own it, or do without it",
            source.kind.name(),
            source.table.source.quoted()
        ))
    }
}

/// What the rows of these views and foreign tables come from.
async fn origins(client: &Client, oids: &[u32]) -> Result<BTreeMap<u32, Origin>> {
    if oids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = client.query_typed(include_str!("../../../sql/listed.sql"), &[(&oids, Type::OID_ARRAY)]).await?;
    let origin = |row: &Row| {
        Ok((
            row.try_get(0)?,
            Origin { definition: row.try_get(1)?, own_function: row.try_get(2)?, is_populated: row.try_get(3)? },
        ))
    };
    rows.iter().map(origin).collect()
}

/// The columns of these relations, with their types as Postgres writes them without digits.
async fn columns(client: &Client, oids: &[u32]) -> Result<BTreeMap<u32, BTreeMap<String, String>>> {
    if oids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = "select a.attrelid, a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, null)
               from pg_catalog.pg_attribute a where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped";
    let mut columns: BTreeMap<u32, BTreeMap<String, String>> = BTreeMap::new();
    for row in client.query_typed(sql, &[(&oids, Type::OID_ARRAY)]).await? {
        columns.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?, row.try_get(2)?);
    }
    Ok(columns)
}

/// The definitions, without tables that were named by a pattern only and that may not be read; and those.
async fn readable(client: &Client, wanted: &Wanted, queue: &QueueName) -> Result<(Arc<Schema>, BTreeSet<String>)> {
    let schema = wanted.schema(client).await?;
    let sources = catalog::read_shown(client, &schema, queue).await?.tables;
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

/// Which relations have rows that no transaction can be told of.
#[derive(Default)]
struct Kinds {
    /// Those that cannot be read at all, and why.
    obstacles: BTreeMap<u32, String>,
    /// Those that are kept by another access method than `heap`.
    unversioned: BTreeSet<u32>,
}

async fn kinds(client: &Client, sources: &BTreeMap<String, SourceTable>) -> Result<Kinds> {
    let sql = "select c.oid, c.relkind = 'r' and exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid),
                      coalesce(pg_catalog.bool_or(l.relkind = 'f' and l.oid <> c.oid), false),
                      coalesce(pg_catalog.bool_or(l.relkind = 'r' and a.amname <> 'heap'), false)
               from pg_catalog.pg_class c
               cross join lateral (select c.oid union select p.relid from pg_catalog.pg_partition_tree(c.oid) p) tree(oid)
               join pg_catalog.pg_class l on l.oid = tree.oid
               left join pg_catalog.pg_am a on a.oid = l.relam
               where c.oid = any($1)
               group by c.oid";
    let oids: Vec<u32> = sources.values().map(|source| source.oid).filter(|oid| *oid != 0).collect();
    let mut kinds = Kinds::default();
    for row in client.query_typed(sql, &[(&oids, Type::OID_ARRAY)]).await? {
        let (oid, is_parent, is_partly_foreign) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let problem = match (is_parent, is_partly_foreign) {
            (true, _) => "it shows rows of inheritance children: pull the children, or partition it instead",
            (_, true) => {
                "partitions of it are foreign tables: leave it out and pull the partitions, or replicate them where they live"
            }
            _ if row.try_get(3)? => {
                kinds.unversioned.insert(oid);
                continue;
            }
            _ => continue,
        };
        kinds.obstacles.insert(oid, problem.to_owned());
    }
    Ok(kinds)
}
