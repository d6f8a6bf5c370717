//! By which definition the replica's rows are kept. A worker whose definition differs from the last one's
//! has to copy tables again: the columns that it adds have no values yet, and what it leaves out goes stale
//! for those who replicate it. Takes definitions, says which tables; holds the SQL of `pgflume.shapes`.

use super::traits::{self, Effect, Traits};
use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::postgres::Client;
use crate::postgres::catalog::SourceTable;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::types::Type;

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Definition {
    source: String,
    key: Vec<String>,
    filter: Option<String>,
    /// Type in `schema.json` and, where marks are read, in Postgres.
    columns: BTreeMap<String, (String, Option<String>)>,
    /// The columns' numbers in Postgres, where marks are read.
    numbers: BTreeMap<String, i16>,
    /// What else its rows depend on in Postgres, where marks are read.
    #[serde(skip_serializing_if = "Traits::is_empty")]
    traits: Traits,
}

/// A table whose rows have to be brought up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgrown {
    /// Its name in `schema.json`.
    pub table: String,
    /// Why, for people.
    pub why: String,
    /// It is enough to remove what the source no longer has.
    pub is_swept: bool,
}

/// Reasons that are told one by one.
const TOLD: usize = 3;

impl Definition {
    /// `source`: what Postgres has of it, where its rows are read.
    fn of(table: &crate::core::schema::Table, source: Option<&SourceTable>, traits: Option<&Traits>) -> Self {
        let declared = |i: usize| Some(source?.columns.get(i)?.declared.clone());
        let column =
            |(i, c): (usize, &crate::core::schema::Column)| (c.name.clone(), (c.kind.name().to_owned(), declared(i)));
        Self {
            source: table.source.quoted(),
            key: table.key_columns().map(|c| c.name.clone()).collect(),
            filter: table.filter.clone(),
            columns: table.columns.iter().enumerate().map(column).collect(),
            numbers: source.map_or_else(BTreeMap::new, |s| {
                table.columns.iter().zip(&s.columns).map(|(c, found)| (c.name.clone(), found.number)).collect()
            }),
            traits: traits.filter(|_| source.is_some()).cloned().unwrap_or_default(),
        }
    }

    /// Why rows that were kept by `before` are not those that this definition asks for.
    fn outgrows(&self, before: &Self) -> Vec<String> {
        let mut why: Vec<String> = self.columns.keys().filter_map(|name| self.column_outgrows(name, before)).collect();
        if self.key != before.key {
            why.push("the primary key is another".into());
        }
        if self.filter != before.filter {
            why.push("`where` has changed".into());
        }
        if self.source != before.source {
            why.push("`source` has changed".into());
        }
        why
    }

    fn column_outgrows(&self, name: &String, before: &Self) -> Option<String> {
        let (kind, declared) = self.columns.get(name)?;
        let Some((kind_before, declared_before)) = before.columns.get(name) else {
            return Some(format!("the column {name:?} is new"));
        };
        if kind_before != kind {
            return Some(format!("the column {name:?} was {kind_before}, and is {kind}"));
        }
        let (now, then) = (self.numbers.get(name), before.numbers.get(name));
        if now.is_some() && then.is_some() && now != then {
            return Some(format!("the column {name:?} was dropped and made anew in Postgres"));
        }
        match (declared, declared_before) {
            (Some(now), Some(then)) if now != then => {
                Some(format!("the column {name:?} was {then} in Postgres, and is {now}"))
            }
            _ => None,
        }
    }

    /// What has changed in Postgres without a mark.
    fn changes(&self, before: &Self) -> Vec<traits::Change> {
        let matters = |column: &str| self.filter.is_some() || self.columns.contains_key(column);
        traits::changes(&before.traits, &self.traits, &matters, self.filter.is_some())
    }

    /// Types and numbers that cannot be seen now are still those that were seen before.
    fn remember(&mut self, before: &Self) {
        for (name, number) in &before.numbers {
            self.numbers.entry(name.clone()).or_insert(*number);
        }
        for (name, (_, declared)) in &mut self.columns {
            if declared.is_none() {
                *declared = before.columns.get(name).and_then(|(_, d)| d.clone());
            }
        }
        traits::remember(&before.traits, &mut self.traits);
    }
}

/// By what a table is read that is pulled: a text to be kept beside its rows.
pub fn of_pulled(source: &SourceTable, traits: Option<&Traits>) -> Result<String> {
    text(&Definition::of(&source.table, Some(source), traits))
}

/// Why rows that were read by `before` are not those that `now` asks for. Partitions that come and go are seen by their
/// rows.
pub fn outgrown(before: &str, now: &str) -> Option<String> {
    let Ok(now) = serde_json::from_str::<Definition>(now) else { return None };
    let Ok(before) = serde_json::from_str::<Definition>(before) else {
        return Some("by which definition its rows were read is not known".into());
    };
    let mut changes = now.changes(&before);
    changes.retain(|change| change.effect == Effect::Copy);
    Outgrown::of("", now.outgrows(&before), &changes).map(|outgrown| outgrown.why)
}

/// The columns of a definition that [`of_pulled`] wrote.
pub fn columns(definition: &str) -> BTreeSet<String> {
    serde_json::from_str::<Definition>(definition).map(|d| d.columns.into_keys().collect()).unwrap_or_default()
}

/// All tables of a worker.
#[derive(Debug, Clone)]
pub struct DefinitionVersion {
    tables: BTreeMap<String, Definition>,
    hash: String,
}

impl DefinitionVersion {
    /// The version of the definitions that a worker with this schema gives the replica.
    pub fn of(
        schema: &Schema,
        sources: &BTreeMap<String, SourceTable>,
        traits: &BTreeMap<String, Traits>,
    ) -> Result<Self> {
        let of = |t: &std::sync::Arc<crate::core::schema::Table>| {
            let source = sources.get(&t.name).filter(|source| source.is_marked());
            (t.name.clone(), Definition::of(t, source, traits.get(&t.name)))
        };
        let tables: BTreeMap<_, _> = schema.tables().map(of).collect();
        let hash = hex::encode(Sha256::digest(text(&tables)?.as_bytes()));
        Ok(Self { tables, hash })
    }

    /// Stands for all of it in `pgflume.progress`.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// What is recorded of it, for the next version.
    pub fn recorded(&self) -> Recorded {
        Recorded(self.tables.clone())
    }

    /// This version as the successor of what was recorded `before`, and the tables whose rows have to be brought up to
    /// date, with the reasons. `is_forgotten`: something was recorded, and is no longer known. `filled`: those of
    /// the partitions that came which have rows.
    pub fn succeed(
        mut self,
        before: &Recorded,
        is_forgotten: bool,
        filled: &BTreeSet<u32>,
    ) -> (Recorded, Vec<Outgrown>) {
        let mut outgrown = Vec::new();
        if is_forgotten {
            let why = || "by which definition its rows were kept is no longer known".to_owned();
            outgrown.extend(self.tables.keys().filter_map(|name| Outgrown::of(name, vec![why()], &[])));
        }
        // Partitions that came without rows are left out: what was written since then has marks.
        let counts = |change: &traits::Change| match change.effect {
            Effect::CopyUnlessEmpty(oid) => filled.contains(&oid),
            Effect::Copy | Effect::Sweep => true,
        };
        for (name, definition) in &mut self.tables {
            let Some(before) = before.0.get(name) else { continue };
            let changes: Vec<_> = definition.changes(before).into_iter().filter(counts).collect();
            outgrown.extend(Outgrown::of(name, definition.outgrows(before), &changes));
            definition.remember(before);
        }
        for name in before.0.keys() {
            self.tables.entry(name.clone()).or_default(); // the others are kept by nobody from now on
        }
        (Recorded(self.tables), outgrown)
    }

    /// Partitions that came since `before`.
    fn attached(&self, before: &Recorded) -> Vec<u32> {
        let changes =
            |(name, before)| self.tables.get(name).map(|d: &Definition| d.changes(before)).unwrap_or_default();
        let oid = |change: traits::Change| match change.effect {
            Effect::CopyUnlessEmpty(oid) => Some(oid),
            Effect::Copy | Effect::Sweep => None,
        };
        before.0.iter().flat_map(changes).filter_map(oid).collect()
    }

    /// Makes this the version by which the replica is kept, in the caller's transaction, which holds the single
    /// flight. The tables whose rows have to be brought up to date, and why.
    pub async fn store(self, client: &Client, queue: &QueueName) -> Result<Vec<Outgrown>> {
        let before = read(client, queue).await?;
        let is_forgotten = before.0.is_empty() && has_stored(client, queue).await?;
        let filled = filled(client, self.attached(&before)).await?;
        let hash = self.hash.clone();
        let (now, outgrown) = self.succeed(&before, is_forgotten, &filled);
        write(client, queue, &now).await?;
        let sql = "update pgflume.progress set shape = $2 where queue = $1";
        client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT), (&hash, Type::TEXT)]).await?;
        Ok(outgrown)
    }
}

/// The definitions by which the replica's rows are kept, as they are recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded(BTreeMap<String, Definition>);

impl Recorded {
    /// The tables whose rows the replica has.
    pub fn kept(&self) -> BTreeSet<String> {
        let is_kept = |(_, definition): &(&String, &Definition)| **definition != Definition::default();
        self.0.iter().filter(is_kept).map(|(name, _)| name.clone()).collect()
    }
}

impl Outgrown {
    /// `None` if nothing speaks for it.
    fn of(table: &str, mut why: Vec<String>, changes: &[traits::Change]) -> Option<Self> {
        let is_swept = why.is_empty() && changes.iter().all(|change| change.effect == Effect::Sweep);
        for change in changes {
            // What is known more exactly already, or of many partitions alike.
            let is_told = |told: &String| *told == change.what || change.column().is_some_and(|c| told.contains(&c));
            if !why.iter().any(is_told) {
                why.push(change.what.clone());
            }
        }
        if why.is_empty() {
            return None;
        }
        let more = why.len().saturating_sub(TOLD);
        why.truncate(TOLD);
        if more > 0 {
            why.push(format!("and {more} more"));
        }
        Some(Self { table: table.to_owned(), why: why.join("; "), is_swept })
    }
}

/// Those of these partitions that have rows.
async fn filled(client: &Client, attached: Vec<u32>) -> Result<BTreeSet<u32>> {
    if attached.is_empty() {
        return Ok(BTreeSet::new());
    }
    let sql = "select o from pg_catalog.unnest($1::pg_catalog.oid[]) as u(o)
               where pg_catalog.pg_relation_size(o::pg_catalog.regclass) > 0";
    let rows = client.query_typed(sql, &[(&attached, Type::OID_ARRAY)]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn text<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::halt(format!("a definition cannot be written ({e})")))
}

/// Whether definitions were stored since the queue was paired.
async fn has_stored(client: &Client, queue: &QueueName) -> Result<bool> {
    let sql = "select 1 from pgflume.progress where queue = $1 and epoch is not null and shape is not null";
    Ok(!client.query_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?.is_empty())
}

async fn read(client: &Client, queue: &QueueName) -> Result<Recorded> {
    let sql = "select name, definition::pg_catalog.text from pgflume.shapes where queue = $1";
    let rows = client.query_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?;
    let definition = |row: &tokio_postgres::Row| {
        let text: String = row.try_get(1)?;
        // What cannot be read is as good as nothing: the table is copied again.
        Ok((row.try_get(0)?, serde_json::from_str(&text).unwrap_or_default()))
    };
    rows.iter().map(definition).collect::<Result<_>>().map(Recorded)
}

/// The tables whose rows the replica had.
pub async fn kept(client: &Client, queue: &QueueName) -> Result<BTreeSet<String>> {
    Ok(read(client, queue).await?.kept())
}

async fn write(client: &Client, queue: &QueueName, recorded: &Recorded) -> Result<()> {
    let names: Vec<&str> = recorded.0.keys().map(String::as_str).collect();
    let texts = recorded.0.values().map(text).collect::<Result<Vec<_>>>()?;
    let sql = "insert into pgflume.shapes as s (queue, name, definition)
               select $1, n, d::pg_catalog.jsonb from rows from (pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[])) as u(n, d)
               on conflict (queue, name) do update set definition = excluded.definition
               where s.definition is distinct from excluded.definition";
    let parameters =
        [(&queue.as_str() as _, Type::TEXT), (&names as _, Type::TEXT_ARRAY), (&texts as _, Type::TEXT_ARRAY)];
    client.execute_typed(sql, &parameters).await?;
    Ok(())
}

/// Whether [`reset`] has been here, and no worker since.
pub(crate) async fn is_reset(client: &Client, queue: &QueueName, tables: &[&str]) -> Result<bool> {
    if tables.is_empty() {
        return Ok(true);
    }
    let sql = "select p.shape is null and (
                   select pg_catalog.count(*) from pgflume.shapes s
                   where s.queue = p.queue and s.name = any($2) and s.definition = '{}'
               ) = pg_catalog.cardinality($2) from pgflume.progress p where p.queue = $1";
    let rows = client.query_typed(sql, &[(&queue.as_str(), Type::TEXT), (&tables, Type::TEXT_ARRAY)]).await?;
    Ok(rows.first().map(|row| row.try_get::<_, bool>(0)).transpose()?.unwrap_or(false))
}

/// The rows of these tables are kept by no definition any more: the next step of any worker copies them.
pub async fn reset(client: &Client, queue: &QueueName, tables: &[&str]) -> Result<()> {
    let sql = "insert into pgflume.shapes (queue, name, definition) select $1, n, '{}' from pg_catalog.unnest($2::pg_catalog.text[]) as u(n)
               on conflict (queue, name) do update set definition = excluded.definition";
    client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT), (&tables, Type::TEXT_ARRAY)]).await?;
    let sql = "update pgflume.progress set shape = null where queue = $1";
    client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn definition_version(json: &str) -> Definition {
        let schema = Schema::parse(json).unwrap();
        DefinitionVersion::of(&schema, &BTreeMap::new(), &BTreeMap::new()).unwrap().tables.remove("t").unwrap()
    }

    #[test]
    fn only_what_the_rows_lack_makes_a_table_be_copied_again() {
        let small = definition_version(r#"{"t": {"primaryKey": "id", "columns": {"id": "TEXT"}}}"#);
        let large = definition_version(r#"{"t": {"primaryKey": "id", "columns": {"id": "TEXT", "a": "JSON"}}}"#);
        let retyped = definition_version(r#"{"t": {"primaryKey": "id", "columns": {"id": "TEXT", "a": "TEXT"}}}"#);
        let filtered = definition_version(r#"{"t": {"primaryKey": "id", "columns": {"id": "TEXT"}, "where": "true"}}"#);
        assert!(small.outgrows(&small).is_empty());
        assert!(small.outgrows(&large).is_empty(), "an old worker goes on");
        assert!(large.outgrows(&small)[0].contains("\"a\" is new"));
        assert!(!large.outgrows(&retyped).is_empty() && !filtered.outgrows(&small).is_empty());
        assert!(!small.outgrows(&Definition::default()).is_empty());
    }

    #[test]
    fn a_type_that_cannot_be_seen_is_no_other_type() {
        let typed = |declared: Option<&str>| {
            let mut one = definition_version(r#"{"t": {"primaryKey": "id", "columns": {"id": "TEXT"}}}"#);
            one.columns.values_mut().for_each(|(_, d)| *d = declared.map(str::to_owned));
            one
        };
        assert!(!typed(Some("text")).outgrows(&typed(Some("integer"))).is_empty());
        assert!(typed(None).outgrows(&typed(Some("integer"))).is_empty());
        let mut unseen = typed(None);
        unseen.remember(&typed(Some("integer")));
        assert!(!typed(Some("text")).outgrows(&unseen).is_empty());
    }
}
