//! What the catalog says about the server and the queue, and what `setup` refuses about them; the source
//! tables are looked at in `tables`. Reads only.

use super::facts::{Exposed, Facts, Forgotten, Inspected, Server};
use super::names::function_prefix;
use super::options::SetupOptions;
use super::run::failed;
use super::source::by_source;
use super::tables::Finding;
use super::template::shown;
use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::{Schema, SourceName, quote};
use crate::postgres::Client;
use crate::postgres::installing::{OUR_ROLES, OURS};
use tokio_postgres::types::Type;

/// The oldest PGMQ that this works with.
const OLDEST_PGMQ: (u32, u32) = (1, 4);

/// Columns of a queue's table that we rely on.
const QUEUE_COLUMNS: i64 = 5;

/// Reads the catalog. The error lists every refusal, each with its remedy.
pub(crate) async fn inspect(
    client: &Client,
    schema: &Schema,
    queue: &QueueName,
    options: &SetupOptions,
) -> Result<Facts> {
    client.batch_execute(&[OURS, OUR_ROLES].concat()).await.map_err(|e| failed("nothing was changed", e))?;
    let mut refusals = Vec::new();
    let mut warnings = Vec::new();
    for name in options.row_triggers.iter().filter(|n| schema.get(n).is_none()) {
        refusals.push(format!("--row-triggers {}: schema.json has no such table; use a name from there", shown(name)));
    }
    let server = server(client).await?;
    refuse_server(&server, &mut refusals);
    let queue_has_rls = queues(client, &server, queue, &mut refusals, &mut warnings).await?;
    let mut sources = Vec::new();
    for ((schema_name, table), tables) in by_source(schema.tables()) {
        let name = SourceName { schema: schema_name, table };
        let mut found =
            Finding { client, queue, options, name: &name, refusals: &mut refusals, warnings: &mut warnings };
        sources.extend(found.source(tables, queue_has_rls.unwrap_or(false)).await?);
    }
    refuse_overlap(&sources, &mut refusals);
    let forgotten = forgotten(client, queue, &sources).await?;
    if !options.allow_drop {
        warn_about_forgotten(&forgotten, &mut warnings);
    }
    if !refusals.is_empty() {
        return Err(Error::halt(format!(
            "nothing was changed, because this cannot be set up:\n  - {}",
            refusals.join("\n  - ")
        )));
    }
    let exposed = Exposed::read(client).await?;
    Ok(Facts { server, sources, warnings, queues_exist: queue_has_rls.is_some(), forgotten, exposed })
}

async fn server(client: &Client) -> Result<Server> {
    let row = client.query_typed_one(include_str!("../../../sql/inspect_server.sql"), &[]).await?;
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
    let rows = client.query_typed(include_str!("../../../sql/inspect_queue.sql"), &[(&name, Type::TEXT)]).await?;
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
            "{table} has the trigger {}, which would run in every write to a source table; drop it (PGMQ's notifications: `select pgmq.disable_notify_insert(...)`)",
            shown(&trigger)
        ));
    }
    if rls {
        warnings.push(format!("{table} has row-level security, which the worker switches off to be sure of its reads: its role needs BYPASSRLS or must own the table"));
    }
    Ok(Some(rls))
}

/// Tables that this queue captures and `schema.json` does not name. Left alone: it may be the wrong file.
async fn forgotten(client: &Client, queue: &QueueName, sources: &[Inspected]) -> Result<Vec<Forgotten>> {
    let prefix = function_prefix(queue);
    let rows = client.query_typed(include_str!("../../../sql/teardown_triggers.sql"), &[(&prefix, Type::TEXT)]).await?;
    let mut found = Vec::new();
    for row in rows {
        let on = SourceName { schema: row.try_get(0)?, table: row.try_get(1)? };
        if !sources.iter().any(|s| s.source.name == on || s.source.partitions.contains(&on)) {
            found.push(Forgotten { on, triggers: row.try_get(2)? });
        }
    }
    Ok(found)
}

fn warn_about_forgotten(forgotten: &[Forgotten], warnings: &mut Vec<String>) {
    for Forgotten { on, triggers } in forgotten {
        let drops: Vec<_> =
            triggers.iter().map(|t| format!("drop trigger {} on {}", quote(t), shown(&on.quoted()))).collect();
        warnings.push(format!(
            "{} is captured but not in schema.json, so its marks are skipped; add it there, or run setup with --allow-drop, or: {}",
            shown(&on.quoted()),
            drops.join("; ")
        ));
    }
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
