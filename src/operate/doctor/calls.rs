//! Who lets the worker work: the cron job and what it posts, or a worker that follows.

use super::finding::{Finding, asked};
use super::process::Process;
use crate::core::codes;
use crate::core::error::Result;
use crate::postgres::Client;
use std::time::Duration;

/// Asks for what there is.
pub(super) async fn examine(client: &Client, process: &Process) -> Result<Vec<Finding>> {
    let is_there = async |relation: &str| -> Result<bool> {
        let (schema, table) = relation.split_once('.').unwrap_or_default();
        let sql =
            "select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                   where n.nspname = $1 and c.relname = $2 and pg_catalog.has_schema_privilege(n.oid, 'usage')
                       and pg_catalog.has_table_privilege(c.oid, 'select'))";
        let text = tokio_postgres::types::Type::TEXT;
        let row = client.query_typed_one(sql, &[(&schema, text.clone()), (&table, text)]).await?;
        Ok(row.try_get(0)?)
    };
    let is_followed = is_followed(client).await?;
    let mut found = Vec::new();
    if is_there("cron.job").await? && is_there("cron.job_run_details").await? {
        found.extend(asked(client, include_str!("../../../sql/doctor_cron.sql"), &[]).await?);
    } else if !is_followed && !has_extension(client, "pg_cron").await? {
        found.push(
            Finding::new(
                &codes::CRON_MISSING,
                "pg_cron",
                "it is not installed in this database, and no worker follows",
            )
            .mended_by("pgflume serve --follow"),
        );
    }
    if is_followed {
        // Then nothing depends on the posts.
        found.retain(|finding| finding.code != &codes::CRON_MISSING && finding.code != &codes::CRON_DISABLED);
        return Ok(found);
    }
    if found.iter().any(|finding| finding.code == &codes::CRON_MISSING) {
        return Ok(found);
    }
    if !can_post(client).await? {
        let command = "create extension pg_net";
        found.push(Finding::new(&codes::NO_HTTP, "pg_net", "neither pg_net nor http is installed").mended_by(command));
    }
    if is_there("net._http_response").await? {
        found.extend(asked(client, include_str!("../../../sql/doctor_net.sql"), &[]).await?);
    }
    found.extend(posted(client, process).await?);
    Ok(found)
}

/// Whether an extension is installed, whether or not this role may use it.
async fn has_extension(client: &Client, name: &str) -> Result<bool> {
    let sql = "select exists (select from pg_catalog.pg_extension e where e.extname = $1)";
    Ok(client.query_typed_one(sql, &[(&name, tokio_postgres::types::Type::TEXT)]).await?.try_get(0)?)
}

/// A session of a worker that is older is no call's that has just ended.
const SETTLED: Duration = Duration::from_secs(1);

/// Whether a worker is at work in this database that needs no call.
async fn is_followed(client: &Client) -> Result<bool> {
    let sql =
        "select pg_catalog.max(extract(epoch from pg_catalog.clock_timestamp() - a.backend_start))::pg_catalog.float8
               from pg_catalog.pg_stat_activity a where a.datname = pg_catalog.current_database()
               and a.application_name like '% step' and a.pid <> pg_catalog.pg_backend_pid()";
    let mut oldest: Option<f64> = client.query_typed_one(sql, &[]).await?.try_get(0)?;
    if oldest.is_some_and(|seconds| seconds <= SETTLED.as_secs_f64()) {
        // It may have begun just now, or be about to end.
        tokio::time::sleep(SETTLED).await;
        oldest = client.query_typed_one(sql, &[]).await?.try_get(0)?;
    }
    Ok(oldest.is_some_and(|seconds| seconds > SETTLED.as_secs_f64()))
}

async fn can_post(client: &Client) -> Result<bool> {
    let sql = "select exists (select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
               where n.nspname = 'net' and p.proname = 'http_post') or exists (select from pg_catalog.pg_extension e where e.extname = 'http')";
    Ok(client.query_typed_one(sql, &[]).await?.try_get(0)?)
}

/// Where the job posts, and with what secret, where the role may know.
async fn posted(client: &Client, process: &Process) -> Result<Vec<Finding>> {
    let sql = "select n.nspname = 'pgflume' and pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_function_privilege(p.oid, 'execute')
               from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
               where n.nspname = 'pgflume' and p.proname = 'get_libsql_webhook_signature' and p.pronargs = 0";
    let rows = client.query_typed(sql, &[]).await?;
    if !rows.first().map(|row| row.try_get::<_, bool>(0)).transpose()?.unwrap_or_default() {
        return Ok(Vec::new());
    }
    let sql = "select pgflume.get_libsql_sync_url(), pgflume.get_libsql_webhook_signature()";
    let row = client.query_typed_one(sql, &[]).await?;
    let (url, secret): (Option<String>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    let mut found = Vec::new();
    match url.as_deref().map(url::Url::parse) {
        None => found.push(
            Finding::new(&codes::SYNC_URL_MISSING, "libsql_sync_url", "it is not set")
                .mended_by("SYNC_URL=https://worker.example/sync pgflume setup"),
        ),
        Some(Ok(url)) if url.scheme() == "http" && !is_here(&url) => {
            let host = url.host_str().unwrap_or_default();
            found.push(
                Finding::new(&codes::SYNC_URL_PLAIN, "libsql_sync_url", format!("it goes to {host} without TLS"))
                    .mended_by(format!("SYNC_URL=https://{host}/sync pgflume setup")),
            );
        }
        Some(_) => {}
    }
    if let (Some(there), Some(here)) = (secret, process.secret())
        && there != here
    {
        found.push(
            Finding::new(
                &codes::SECRET_DIFFERS,
                "libsql_webhook_signature",
                "it is not this process' WEBHOOK_SIGNATURE",
            )
            .mended_by("pgflume setup"),
        );
    }
    Ok(found)
}

/// Whether it is the machine that Postgres runs on, or its own network.
fn is_here(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || !name.contains('.'),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback() || ip.is_private(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
