//! One source table under inspection: what it is, which columns and keys it has, what its `where` uses,
//! which triggers are on it; and what `setup` refuses about it. The probe of a `where` is made in a
//! transaction that is rolled back.

use super::facts::Inspected;
use super::names::Event;
use super::options::SetupOptions;
use super::source::{ReplicatedTable, Source};
use super::template::shown;
use super::types::SourceColumn;
use super::uses::{self, Uses};
use super::{losses, takeover};
use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::{SourceName, Table, quoted_list};
use crate::postgres::Client;
use crate::postgres::catalog::{casts, columns as typed};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_postgres::types::Type;

/// One source table under inspection.
pub(crate) struct Finding<'a> {
    /// Where to ask.
    pub client: &'a Client,
    /// The queue that it will feed.
    pub queue: &'a QueueName,
    /// What was asked for.
    pub options: &'a SetupOptions,
    /// The table.
    pub name: &'a SourceName,
    /// Grows by what is wrong with it.
    pub refusals: &'a mut Vec<String>,
    /// Grows by what has to be said about it.
    pub warnings: &'a mut Vec<String>,
}

struct Relation {
    oid: u32,
    kind: String,
    is_child: bool,
    owner: String,
    is_subscribed: bool,
    has_row_security: bool,
}

impl Finding<'_> {
    pub(super) fn refuse(&mut self, table: &str, what: impl AsRef<str>) {
        self.refusals.push(format!("$.{}: {}", shown(table), what.as_ref()));
    }

    /// `None` if something about it was refused.
    pub async fn source(&mut self, tables: Vec<Arc<Table>>, queue_has_rls: bool) -> Result<Option<Inspected>> {
        let before = self.refusals.len();
        let first = tables.first().map(|t| t.name.clone()).unwrap_or_default();
        let Some(relation) = self.relation(&first).await? else {
            return Ok(None);
        };
        let columns = self.columns(relation.oid).await?;
        let keys = self.keys(relation.oid).await?;
        let partitions = self.partitions(&relation).await?;
        let mut targets = Vec::new();
        let casts = casts::read(self.client, &[relation.oid]).await?;
        let types = typed::read(self.client, &[relation.oid]).await?.remove(&relation.oid).unwrap_or_default();
        for table in &tables {
            for (path, problem) in losses::refusals(table, &types).into_iter().chain(casts::problems(table, &casts)) {
                self.refuse(&path, problem);
            }
            self.writable(table, relation.oid, relation.has_row_security, &columns).await?;
            targets.extend(self.target(table, relation.oid, &columns, &keys).await?);
        }
        if self.refusals.len() > before {
            return Ok(None);
        }
        let asked = tables.iter().any(|t| self.options.row_triggers.contains(&t.name));
        let source = Source {
            name: self.name.clone(),
            by_row: relation.kind == "p" || relation.is_child || relation.is_subscribed || asked,
            partitions: partitions.iter().map(|(_, name)| name.clone()).collect(),
            partitioned_by: (relation.kind == "p").then_some(relation.owner),
            targets,
            queue_has_rls,
        };
        let oids = std::iter::once(relation.oid).chain(partitions.iter().map(|(oid, _)| *oid)).collect();
        self.compare(source, oids).await.map(Some)
    }

    async fn relation(&mut self, table: &str) -> Result<Option<Relation>> {
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&self.name.schema, Type::TEXT), (&self.name.table, Type::TEXT)];
        let rows = self.client.query_typed(include_str!("../../../sql/inspect_source.sql"), &params).await?;
        let shown_name = shown(&self.name.quoted());
        let Some(row) = rows.first() else {
            self.refuse(table, format!("there is no table {shown_name} in this database; create it, correct `source`, or take it out of schema.json"));
            return Ok(None);
        };
        let relation = Relation {
            oid: row.try_get(0)?,
            kind: row.try_get(1)?,
            is_child: row.try_get(3)?,
            owner: row.try_get(7)?,
            is_subscribed: row.try_get(8)?,
            has_row_security: row.try_get(5)?,
        };
        let (persistence, has_children, owned): (String, bool, bool) =
            (row.try_get(2)?, row.try_get(4)?, row.try_get(6)?);
        let quoted = self.name.quoted();
        if !["r", "p"].contains(&relation.kind.as_str()) {
            self.refuse(
                table,
                format!("{shown_name} is not an ordinary or partitioned table; name the table behind it as `source`"),
            );
            return Ok(None);
        }
        if persistence != "p" {
            self.refuse(table, format!("{shown_name} is unlogged or temporary, and a crash would empty it unseen; run `alter table {quoted} set logged`"));
        }
        if has_children {
            self.refuse(table, format!("{shown_name} has inheritance children, whose rows it shows but does not own; replicate the children, or make it a partitioned table"));
        }
        if !owned {
            self.refuse(
                table,
                format!("{shown_name} belongs to {}; run setup as that role or a member of it", shown(&relation.owner)),
            );
            return Ok(None);
        }
        self.warn_of(&relation);
        Ok(Some(relation))
    }

    /// What to look out for with it.
    fn warn_of(&mut self, relation: &Relation) {
        let shown_name = shown(&self.name.quoted());
        let mut warn = |is_so: bool, what: &str| self.warnings.extend(is_so.then(|| format!("{shown_name} {what}")));
        warn(
            relation.has_row_security,
            "has row-level security: the worker's login role needs BYPASSRLS (`alter role ... bypassrls`) or must own the table, else every read is refused",
        );
        warn(
            relation.kind == "p",
            "is partitioned: partitions that come and go are followed; run setup again after adding some, so that a TRUNCATE of a single one is told from VACUUM FULL",
        );
        warn(
            relation.is_subscribed,
            "is filled by logical replication, which fires row triggers only: it gets row triggers",
        );
    }

    async fn columns(&self, oid: u32) -> Result<BTreeMap<String, SourceColumn>> {
        let rows =
            self.client.query_typed(include_str!("../../../sql/inspect_columns.sql"), &[(&oid, Type::OID)]).await?;
        let column = |row: &tokio_postgres::Row| {
            let name: String = row.try_get(0)?;
            Ok((
                name.clone(),
                SourceColumn {
                    name,
                    not_null: row.try_get(1)?,
                    is_virtual: row.try_get(2)?,
                    base: row.try_get(3)?,
                    is_array: row.try_get(4)?,
                    is_enum: row.try_get(5)?,
                    own_type: row.try_get(6)?,
                    is_domain_of_enum: row.try_get(7)?,
                },
            ))
        };
        rows.iter().map(column).collect()
    }

    async fn keys(&self, oid: u32) -> Result<Vec<BTreeSet<String>>> {
        let rows = self.client.query_typed(include_str!("../../../sql/inspect_keys.sql"), &[(&oid, Type::OID)]).await?;
        let key = |row: &tokio_postgres::Row| Ok(row.try_get::<_, Vec<String>>(1)?.into_iter().collect());
        rows.iter().map(key).collect()
    }

    async fn partitions(&self, relation: &Relation) -> Result<Vec<(u32, SourceName)>> {
        if relation.kind != "p" {
            return Ok(Vec::new());
        }
        let rows = self
            .client
            .query_typed(include_str!("../../../sql/inspect_partitions.sql"), &[(&relation.oid, Type::OID)])
            .await?;
        let partition = |row: &tokio_postgres::Row| {
            Ok((row.try_get(0)?, SourceName { schema: row.try_get(1)?, table: row.try_get(2)? }))
        };
        rows.iter().map(partition).collect()
    }

    async fn target(
        &mut self,
        table: &Arc<Table>,
        oid: u32,
        columns: &BTreeMap<String, SourceColumn>,
        keys: &[BTreeSet<String>],
    ) -> Result<Option<ReplicatedTable>> {
        let source = shown(&self.name.quoted());
        let Some(key) = self.key(table, columns, keys) else { return Ok(None) };
        let named: BTreeSet<_> = key.iter().map(|c| c.name.clone()).collect();
        let Some((filter, mut uses)) = self.filter(table).await? else {
            return Ok(None);
        };
        uses.add(
            uses::of_key(self.client, oid, &table.key_columns().map(|c| c.name.as_str()).collect::<Vec<_>>()).await?,
        );
        self.warnings.extend(
            uses.closed
                .iter()
                .map(|what| format!("{source}: {what}; until then changes of this table wait on the queue")),
        );
        let names: BTreeSet<&String> =
            table.columns.iter().map(|c| &c.name).chain(&filter).filter(|n| !named.contains(*n)).collect();
        let watched: Vec<_> = names.iter().filter_map(|n| columns.get(*n)).cloned().collect();
        // Columns that come later matter too where the table follows its source.
        let sees_all = !table.evolve && watched.iter().all(|c| !c.is_virtual);
        Ok(Some(ReplicatedTable { table: table.clone(), key, watched: sees_all.then_some(watched), uses }))
    }

    /// Its key's columns; `None` if one was refused, or another column is not there.
    fn key(
        &mut self,
        table: &Table,
        columns: &BTreeMap<String, SourceColumn>,
        keys: &[BTreeSet<String>],
    ) -> Option<Vec<SourceColumn>> {
        let source = shown(&self.name.quoted());
        let missing: Vec<_> = table.columns.iter().filter(|c| !columns.contains_key(&c.name)).collect();
        for column in &missing {
            let path = format!("{}.columns.{}", table.name, column.name);
            self.refuse(&path, format!("{source} has no such column; add it there or take it out of schema.json"));
        }
        if !missing.is_empty() {
            return None;
        }
        let key: Vec<_> = table.key_columns().filter_map(|c| columns.get(&c.name)).cloned().collect();
        let named: BTreeSet<_> = key.iter().map(|c| c.name.clone()).collect();
        if !keys.contains(&named) || key.iter().any(|c| !c.not_null) {
            self.refuse(
                &format!("{}.primaryKey", table.name),
                format!(
                    "{source} has no primary key, and no unique constraint over NOT NULL columns, on exactly these columns; \
                     name its key here, or run `alter table {} add primary key ({})`",
                    self.name.quoted(),
                    quoted_list(table.key_columns().map(|c| c.name.as_str())),
                ),
            );
            return None;
        }
        if let Some(column) = key.iter().find(|c| c.is_domain_of_enum) {
            self.refuse(
                &format!("{}.columns.{}", table.name, column.name),
                "is a domain over an enum, and Postgres cannot look keys of such a type up; give the column the enum itself",
            );
            return None;
        }
        Some(key)
    }

    /// The columns that `where` uses, and what else; `None` if it was refused. A partial index accepts just what we
    /// need: an immutable condition over the row's own columns.
    async fn filter(&mut self, table: &Table) -> Result<Option<(BTreeSet<String>, Uses)>> {
        let Some(condition) = &table.filter else {
            return Ok(Some((BTreeSet::new(), Uses::default())));
        };
        let probed = probe(self.client, self.name, condition).await;
        self.client.rollback().await?;
        match probed {
            Ok(found) => Ok(Some(found)),
            Err(error) if blames_the_condition(&error) => {
                let why = error.to_string();
                let why = why.trim_start_matches("Postgres: ").split("; ").next().unwrap_or_default().to_owned();
                self.refuse(
                    &format!("{}.where", table.name),
                    format!("Postgres does not take it as the condition of an index ({why}); write an immutable condition over the row's own columns, with types and functions of other schemas qualified"),
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Compares what is there with what should be.
    async fn compare(&mut self, source: Source, oids: Vec<u32>) -> Result<Inspected> {
        let names: Vec<String> = Event::ALL.iter().map(|e| e.trigger(self.queue)).collect();
        let rows = self
            .client
            .query_typed(
                include_str!("../../../sql/inspect_triggers.sql"),
                &[(&oids, Type::OID_ARRAY), (&names, Type::TEXT_ARRAY)],
            )
            .await?;
        let found = rows.iter().map(takeover::ExistingTrigger::read).collect::<Result<Vec<_>>>()?;
        let has_rows = self.has_rows(&oids).await?;
        takeover::compare(source, self.queue, &found, has_rows)
    }

    /// By its size: a SELECT would have Postgres evaluate expressions of its owner's as whoever installs.
    async fn has_rows(&self, oids: &[u32]) -> Result<bool> {
        let sql = "select coalesce(pg_catalog.bool_or(pg_catalog.pg_relation_size(t.oid) > 0), false)
                   from pg_catalog.unnest($1::pg_catalog.oid[]) t(oid)";
        Ok(self.client.query_typed_one(sql, &[(&oids, Type::OID_ARRAY)]).await?.try_get(0)?)
    }
}

/// Syntax, names, types, mutability; not a missing right or a lock.
fn blames_the_condition(error: &Error) -> bool {
    error
        .sqlstate()
        .is_some_and(|code| code != "42501" && ["42", "22", "0A"].iter().any(|class| code.starts_with(class)))
}

/// Begins a transaction, which is then to be rolled back.
async fn probe(client: &Client, name: &SourceName, condition: &str) -> Result<(BTreeSet<String>, Uses)> {
    client.begin("", "set local client_min_messages = warning; set local lock_timeout = '2s'").await?;
    client.batch_execute(&format!("create temporary table pgflume_probe (like {})", name.quoted())).await?;
    // One statement by the protocol: a condition that tries to be more than a condition is an error.
    client.execute_typed(&format!("create index on pg_temp.pgflume_probe ((1)) where ({condition}\n)"), &[]).await?;
    let rows = client.query_typed(include_str!("../../../sql/inspect_filter.sql"), &[]).await?;
    let columns = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<_>>()?;
    Ok((columns, uses::of_filter(client).await?))
}
