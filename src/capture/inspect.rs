//! What the catalog says about the server, the queue and the source tables, and what `setup` refuses.
//! Reads only: the probe of a `where` is made in a transaction that is rolled back.

use super::SetupOptions;
use super::render::{self, Event, Source, Target};
use super::takeover::{self, Leftover};
use super::template::shown;
use super::types::SourceColumn;
use crate::config::QueueName;
use crate::error::{Error, Result};
use crate::schema::{Schema, SourceName, Table, quote, quoted_list};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

/// The oldest PGMQ that this works with.
const OLDEST_PGMQ: (u32, u32) = (1, 4);

/// Columns of a queue's table that we rely on.
const QUEUE_COLUMNS: i64 = 5;

/// Everything that the plan is made from.
#[derive(Debug)]
pub struct Facts {
    /// The server.
    pub server: Server,
    /// The source tables.
    pub sources: Vec<Inspected>,
    /// What is not refused but has to be said.
    pub warnings: Vec<String>,
    /// The queue and its dead letters are both there.
    pub queues_exist: bool,
}

/// What this server has.
#[derive(Debug)]
pub struct Server {
    version: i64,
    /// Who installs.
    pub user: String,
    superuser: bool,
    create_role: bool,
    may_create: bool,
    /// `pgmq.create` is there.
    pub has_pgmq: bool,
    pgmq_extension: Option<String>,
    roles_exist: bool,
    capture_usage: Option<bool>,
    capture_admin: Option<bool>,
    has_schema: bool,
    /// pg_cron is installed in this database.
    pub has_cron: bool,
    /// pg_cron could be installed in this database.
    pub can_cron: bool,
    /// pg_net or the http extension is installed.
    pub has_http: bool,
    /// Supabase Vault is installed.
    pub has_vault: bool,
    /// The queue that the row trigger with images feeds.
    pub image_queue: Option<String>,
}

/// A source table as it is now.
#[derive(Debug)]
pub struct Inspected {
    /// What is to be captured, and how.
    pub source: Source,
    /// Everything is in place already.
    pub is_captured: bool,
    /// Triggers of ours of the other kind.
    pub obsolete: Vec<(SourceName, String)>,
    /// Triggers of the original migration.
    pub leftovers: Vec<Leftover>,
    /// Our capture is new on this table, and rows are there already.
    pub has_older_rows: bool,
}

/// Reads the catalog. The error lists every refusal, each with its mend.
pub async fn inspect(client: &mut Client, schema: &Schema, queue: &QueueName, options: &SetupOptions) -> Result<Facts> {
    let mut refusals = Vec::new();
    let mut warnings = Vec::new();
    for name in options.row_triggers.iter().filter(|n| schema.get(n).is_none()) {
        refusals.push(format!("--row-triggers {}: schema.json has no such table; use a name from there", shown(name)));
    }
    let server = server(client).await?;
    refuse_server(&server, &mut refusals);
    let queue_has_rls = queues(client, &server, queue, &mut refusals, &mut warnings).await?;
    let mut sources = Vec::new();
    for ((schema_name, table), tables) in render::by_source(schema.tables()) {
        let name = SourceName { schema: schema_name, table };
        let mut found = Finding {
            client: &mut *client,
            queue,
            options,
            name: &name,
            refusals: &mut refusals,
            warnings: &mut warnings,
        };
        sources.extend(found.source(tables, queue_has_rls.unwrap_or(false)).await?);
    }
    refuse_overlap(&sources, &mut refusals);
    if !refusals.is_empty() {
        return Err(Error::halt(format!(
            "nothing was changed, because this cannot be set up:\n  - {}",
            refusals.join("\n  - ")
        )));
    }
    Ok(Facts { server, sources, warnings, queues_exist: queue_has_rls.is_some() })
}

async fn server(client: &Client) -> Result<Server> {
    let row = client.query_typed_one(include_str!("../../sql/inspect_server.sql"), &[]).await?;
    Ok(Server {
        version: row.try_get(0)?,
        user: row.try_get(1)?,
        superuser: row.try_get(2)?,
        create_role: row.try_get(3)?,
        may_create: row.try_get(4)?,
        has_pgmq: row.try_get(5)?,
        pgmq_extension: row.try_get(6)?,
        roles_exist: row.try_get(7)?,
        capture_usage: row.try_get(8)?,
        capture_admin: row.try_get(9)?,
        has_schema: row.try_get(10)?,
        has_cron: row.try_get(11)?,
        can_cron: row.try_get(12)?,
        has_http: row.try_get(13)?,
        has_vault: row.try_get(14)?,
        image_queue: row.try_get(15)?,
    })
}

/// The oldest Postgres with `create or replace trigger`.
const OLDEST_POSTGRES: i64 = 140_000;

/// From here on a role that may create roles may not simply join any of them.
const STRICT_ROLES: i64 = 160_000;

fn refuse_server(server: &Server, refusals: &mut Vec<String>) {
    if server.version < OLDEST_POSTGRES {
        refusals.push("this Postgres is older than 14; upgrade it".into());
    }
    let all_there = server.has_schema && server.has_pgmq;
    if !(server.may_create || all_there) {
        refusals.push(format!(
            "role {} may not create schemas in this database; run setup as the database's owner",
            shown(&server.user)
        ));
    }
    if let Some(version) = server.pgmq_extension.as_deref().filter(|v| is_too_old(v)) {
        refusals.push(format!(
            "PGMQ {version} is older than {}.{}; run `alter extension pgmq update`",
            OLDEST_PGMQ.0, OLDEST_PGMQ.1
        ));
    }
    let may_make = server.roles_exist || server.create_role;
    let may_join = server.capture_usage.unwrap_or(true)
        || server.capture_admin.unwrap_or(false)
        || (server.create_role && server.version < STRICT_ROLES);
    let may_use_roles = may_make && may_join;
    if !(server.superuser || may_use_roles) {
        let with = if server.version < STRICT_ROLES { "" } else { " with inherit true, set true" };
        refusals.push(format!(
            "role {user} may not create or join the roles pgflume_capture and pgflume_worker; let an administrator run once: \
             create role pgflume_capture nologin; create role pgflume_worker nologin; grant pgflume_capture to {name}{with}",
            user = shown(&server.user),
            name = quote(&server.user),
        ));
    }
}

fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST_PGMQ
}

/// Checks both queues where they exist. Whether the queue has row-level security; `None` if one is missing.
async fn queues(
    client: &Client,
    server: &Server,
    queue: &QueueName,
    refusals: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<Option<bool>> {
    if !server.has_pgmq {
        return Ok(None);
    }
    let main = queue_table(client, queue.as_str(), refusals, warnings).await?;
    let dead = queue_table(client, &queue.dead(), refusals, warnings).await?;
    Ok(main.and_then(|rls| dead.map(|_| rls)))
}

async fn queue_table(
    client: &Client,
    queue: &str,
    refusals: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<Option<bool>> {
    let name = format!("q_{queue}");
    let table = format!("pgmq.{}", quote(&name));
    let rows = client.query_typed(include_str!("../../sql/inspect_queue.sql"), &[(&name, Type::TEXT)]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let (persistence, kind, rls): (String, String, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (cache, columns, owned): (i64, i64, bool) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    let (owner, trigger): (String, Option<String>) = (row.try_get(6)?, row.try_get(7)?);
    if persistence == "u" {
        refusals.push(format!(
            "{table} is unlogged and loses its messages in a crash; run `alter table {table} set logged`"
        ));
    }
    if kind != "r" {
        refusals.push(format!("{table} is partitioned, and taking from it would be out of order; drain it, drop it with pgmq.drop_queue and let setup create it"));
    }
    if cache > 1 {
        refusals.push(format!("{table} hands out its message ids {cache} at a time, out of order; run `alter table {table} alter column msg_id set cache 1`"));
    }
    if columns < QUEUE_COLUMNS {
        refusals.push(format!("{table} lacks columns of PGMQ 1.4 or newer; update PGMQ"));
    }
    if !owned {
        refusals.push(format!("{table} belongs to {}; run setup as that role or a member of it", shown(&owner)));
    }
    if let Some(trigger) = trigger {
        refusals.push(format!(
            "{table} has the trigger {}, which would run in every write to a source table; drop it (PGMQ's notifications: `select pgmq.disable_notify_insert(…)`)",
            shown(&trigger)
        ));
    }
    if rls {
        warnings.push(format!("{table} has row-level security, which the worker switches off to be sure of its reads: its role needs BYPASSRLS or must own the table"));
    }
    Ok(Some(rls))
}

/// A partition of one source that is a source itself would need two triggers of the same name.
fn refuse_overlap(sources: &[Inspected], refusals: &mut Vec<String>) {
    for outer in sources {
        for partition in sources.iter().filter(|s| outer.source.partitions.contains(&s.source.name)) {
            refusals.push(format!(
                "{}: is a partition of {}, which is replicated as well; keep one of them in schema.json",
                shown(&partition.source.name.quoted()),
                shown(&outer.source.name.quoted()),
            ));
        }
    }
}

/// One source table under inspection.
struct Finding<'a> {
    client: &'a mut Client,
    queue: &'a QueueName,
    options: &'a SetupOptions,
    name: &'a SourceName,
    refusals: &'a mut Vec<String>,
    warnings: &'a mut Vec<String>,
}

struct Relation {
    oid: u32,
    kind: String,
    is_child: bool,
    owner: String,
    is_subscribed: bool,
}

impl Finding<'_> {
    fn refuse(&mut self, table: &str, what: impl AsRef<str>) {
        self.refusals.push(format!("$.{}: {}", shown(table), what.as_ref()));
    }

    /// `None` if something about it was refused.
    async fn source(&mut self, tables: Vec<Arc<Table>>, queue_has_rls: bool) -> Result<Option<Inspected>> {
        let before = self.refusals.len();
        let first = tables.first().map(|t| t.name.clone()).unwrap_or_default();
        let Some(relation) = self.relation(&first).await? else {
            return Ok(None);
        };
        let columns = self.columns(relation.oid).await?;
        let keys = self.keys(relation.oid).await?;
        let partitions = self.partitions(&relation).await?;
        let mut targets = Vec::new();
        for table in &tables {
            targets.extend(self.target(table, &columns, &keys).await?);
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
        let rows = self.client.query_typed(include_str!("../../sql/inspect_source.sql"), &params).await?;
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
        };
        let (persistence, has_children, rls, owned): (String, bool, bool, bool) =
            (row.try_get(2)?, row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
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
        if rls {
            self.warnings.push(format!(
                "{shown_name} has row-level security: the worker's login role needs BYPASSRLS (`alter role … bypassrls`) or must own the table, else every read is refused"
            ));
        }
        if relation.kind == "p" {
            self.warnings.push(format!(
                "{shown_name} is partitioned: after attaching, detaching or adding partitions run setup again, and `pgflume resync` after attaching or detaching one that holds rows"
            ));
        }
        if relation.is_subscribed {
            self.warnings.push(format!(
                "{shown_name} is filled by logical replication, which fires row triggers only: it gets row triggers"
            ));
        }
        Ok(Some(relation))
    }

    async fn columns(&self, oid: u32) -> Result<BTreeMap<String, SourceColumn>> {
        let rows = self.client.query_typed(include_str!("../../sql/inspect_columns.sql"), &[(&oid, Type::OID)]).await?;
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
                    own_text_cast: row.try_get(6)?,
                },
            ))
        };
        rows.iter().map(column).collect()
    }

    async fn keys(&self, oid: u32) -> Result<Vec<BTreeSet<String>>> {
        let rows = self.client.query_typed(include_str!("../../sql/inspect_keys.sql"), &[(&oid, Type::OID)]).await?;
        let key = |row: &tokio_postgres::Row| Ok(row.try_get::<_, Vec<String>>(1)?.into_iter().collect());
        rows.iter().map(key).collect()
    }

    async fn partitions(&self, relation: &Relation) -> Result<Vec<(u32, SourceName)>> {
        if relation.kind != "p" {
            return Ok(Vec::new());
        }
        let rows = self
            .client
            .query_typed(include_str!("../../sql/inspect_partitions.sql"), &[(&relation.oid, Type::OID)])
            .await?;
        let partition = |row: &tokio_postgres::Row| {
            Ok((row.try_get(0)?, SourceName { schema: row.try_get(1)?, table: row.try_get(2)? }))
        };
        rows.iter().map(partition).collect()
    }

    async fn target(
        &mut self,
        table: &Arc<Table>,
        columns: &BTreeMap<String, SourceColumn>,
        keys: &[BTreeSet<String>],
    ) -> Result<Option<Target>> {
        let source = shown(&self.name.quoted());
        let missing: Vec<_> =
            table.columns.iter().filter(|c| !columns.contains_key(&c.name)).map(|c| c.name.clone()).collect();
        for name in &missing {
            let path = format!("{}.columns.{}", table.name, name);
            self.refuse(&path, format!("{source} has no such column; add it there or take it out of schema.json"));
        }
        if !missing.is_empty() {
            return Ok(None);
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
            return Ok(None);
        }
        let Some(filter) = self.filter(table).await? else {
            return Ok(None);
        };
        let names: BTreeSet<&String> =
            table.columns.iter().map(|c| &c.name).chain(&filter).filter(|n| !named.contains(*n)).collect();
        let watched: Vec<_> = names.iter().filter_map(|n| columns.get(*n)).cloned().collect();
        let sees_all = watched.iter().all(|c| !c.is_virtual);
        Ok(Some(Target { table: table.clone(), key, watched: sees_all.then_some(watched) }))
    }

    /// The columns that `where` uses; `None` if it was refused. A partial index accepts just what we need:
    /// an immutable condition over the row's own columns.
    async fn filter(&mut self, table: &Table) -> Result<Option<BTreeSet<String>>> {
        let Some(condition) = &table.filter else {
            return Ok(Some(BTreeSet::new()));
        };
        let transaction = self.client.transaction().await?;
        let probed = probe(&transaction, self.name, condition).await;
        transaction.rollback().await?;
        match probed {
            Ok(columns) => Ok(Some(columns)),
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
                include_str!("../../sql/inspect_triggers.sql"),
                &[(&oids, Type::OID_ARRAY), (&names, Type::TEXT_ARRAY)],
            )
            .await?;
        let found = rows.iter().map(takeover::Found::read).collect::<Result<Vec<_>>>()?;
        let had_triggers = found.iter().any(|f| f.is_ours());
        let has_older_rows = !had_triggers && self.has_rows().await?;
        Ok(takeover::compare(source, self.queue, &found, has_older_rows))
    }

    async fn has_rows(&self) -> Result<bool> {
        let sql = format!("select exists (select from {})", self.name.quoted());
        Ok(self.client.query_typed_one(&sql, &[]).await?.try_get(0)?)
    }
}

/// Syntax, names, types, mutability; not a missing right or a lock.
fn blames_the_condition(error: &Error) -> bool {
    error
        .sql_state()
        .map(tokio_postgres::error::SqlState::code)
        .is_some_and(|code| code != "42501" && ["42", "22", "0A"].iter().any(|class| code.starts_with(class)))
}

async fn probe(transaction: &Transaction<'_>, name: &SourceName, condition: &str) -> Result<BTreeSet<String>> {
    transaction
        .batch_execute(
            "set local search_path = ''; set local client_min_messages = warning; set local lock_timeout = '2s'",
        )
        .await?;
    transaction.batch_execute(&format!("create temporary table pgflume_probe (like {})", name.quoted())).await?;
    // One statement by the protocol: a condition that tries to be more than a condition is an error.
    transaction
        .execute_typed(&format!("create index on pg_temp.pgflume_probe ((1)) where ({condition}\n)"), &[])
        .await?;
    let rows = transaction.query_typed(include_str!("../../sql/inspect_filter.sql"), &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
