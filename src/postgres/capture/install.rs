//! The set-up from end to end: looks, makes steps, runs them or writes them down.

use super::facts::Facts;
use super::inspect;
use super::options::SetupOptions;
use super::plan::{self, Need, PlanStep};
use super::report::SetupReport;
use super::run::run;
use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::core::secret::Secret;
use crate::postgres::{Client, PgUrl, Purpose};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// Makes Postgres ready. On an error everything before the failed step is in place, and running again
/// goes on from there.
pub async fn setup(
    postgres: &PgUrl,
    schema: &Schema,
    queue: &QueueName,
    options: &SetupOptions,
) -> Result<SetupReport> {
    let client = postgres.pinned(Purpose::Setup).await?;
    let facts = inspect::inspect(&client, schema, queue, options).await?;
    let mut report = SetupReport::new(&facts, queue, options);
    for step in plan::steps(&facts, queue, options)? {
        if step.is_done {
            report.unchanged.push(step.title);
            continue;
        }
        match (run(&client, &step.title, &step.transaction()).await, step.need) {
            (Ok(()), _) => report.done.push(step.title),
            (Err(error), Need::Optional(remedy)) => {
                let (title, text) = (format!("{}: ", step.title), error.to_string());
                report.warn(format!("{title}{}; {remedy}", text.strip_prefix(&title).unwrap_or(&text)));
            }
            (Err(error), Need::Required) => return Err(error),
        }
    }
    let before = address(&client).await?;
    store(&client, &facts, options, &mut report).await?;
    let is_moved = before.is_some() && address(&client).await? != before;
    report.check_settings(&client, queue, is_moved).await?;
    if facts.server.has_cron {
        report.check_job(&client).await?;
    }
    Ok(report)
}

/// What a set-up would make in Postgres that is not there yet, for people. Changes nothing.
pub async fn plan(postgres: &PgUrl, schema: &Schema, queue: &QueueName, options: &SetupOptions) -> Result<Vec<String>> {
    let client = postgres.pinned(Purpose::Setup).await?;
    let facts = inspect::inspect(&client, schema, queue, options).await?;
    let steps = plan::steps(&facts, queue, options)?.into_iter();
    Ok(steps.filter(|step| !step.is_done && !step.is_routine).map(|step| step.title).collect())
}

/// The same as a script for review, or for a migration file. Changes nothing; holds no secret.
pub async fn print(postgres: &PgUrl, schema: &Schema, queue: &QueueName, options: &SetupOptions) -> Result<String> {
    let client = postgres.pinned(Purpose::Setup).await?;
    let facts = inspect::inspect(&client, schema, queue, options).await?;
    let report = SetupReport::new(&facts, queue, options);
    Ok(script(&plan::steps(&facts, queue, options)?, &report, &facts))
}

fn script(steps: &[PlanStep], report: &SetupReport, facts: &Facts) -> String {
    let mut text = include_str!("../../../sql/script_head.sql").to_owned();
    for warning in report.warnings() {
        text.push_str(&format!("-- Warning: {warning}\n"));
    }
    for step in steps {
        text.push_str(&format!("\n-- ======== {} ========\n{}", step.title, step.transaction()));
    }
    let secrets = if facts.server.has_vault {
        include_str!("../../../sql/secrets_vault.sql")
    } else {
        include_str!("../../../sql/secrets_table.sql")
    };
    text.push_str(&format!("\n{secrets}"));
    text
}

/// Where cron posts.
async fn address(client: &Client) -> Result<Option<String>> {
    Ok(client.query_typed_one("select pgflume.get_libsql_sync_url()", &[]).await?.try_get(0)?)
}

/// Puts the address and the secret where `pgflume.get_libsql_…()` look for them.
async fn store(client: &Client, facts: &Facts, options: &SetupOptions, report: &mut SetupReport) -> Result<()> {
    let sql = if facts.server.has_vault {
        include_str!("../../../sql/store_vault.sql")
    } else {
        include_str!("../../../sql/store_table.sql")
    };
    let place = if facts.server.has_vault { "Vault" } else { "pgflume.settings" };
    let values = [
        ("libsql_sync_url", options.sync_url.as_deref()),
        ("libsql_webhook_signature", options.webhook_signature.as_ref().map(Secret::expose)),
    ];
    for (name, value) in values.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        let changed = client.query_typed(sql, &[(&name, Type::TEXT), (&value, Type::TEXT)]).await.map_err(|e| {
            // Not even a hint of the value: neither message nor cause are passed on.
            Error::halt(format!(
                "{name} could not be stored in {place} (SQLSTATE {}); check the rights of this role there",
                e.code().map_or("none", SqlState::code)
            ))
        })?;
        if changed.is_empty() {
            report.unchanged.push(format!("{name} in {place}"));
        } else {
            report.done.push(format!("{name} in {place}"));
        }
    }
    Ok(())
}
