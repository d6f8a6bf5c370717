//! Postgres' side: makes a database ready from `schema.json`, and takes it back. Takes a URL, the
//! schema and a queue; gives a report, or the same SQL as a script. Reads and writes no message.
//!
//! `inspect` and `tables` look and refuse, `plan` makes steps of what they saw with the SQL that `render`
//! writes, this file runs them: one transaction each, one table a transaction, with a bounded wait for
//! locks. Running again changes nothing that is right already.

mod inspect;
mod losses;
mod plan;
mod render;
mod report;
mod tables;
mod takeover;
mod teardown;
mod template;
mod types;
mod uses;

pub use report::SetupReport;
pub use teardown::{TeardownOptions, TeardownReport, teardown};

use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::core::secret::Secret;
use crate::postgres::{Client, PgUrl, Purpose};
use inspect::Facts;
use plan::{Need, Step};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// Longest wait for a lock: while we wait, everybody else waits behind us.
const LOCK_TIMEOUT_MS: u64 = 2_000;

/// How often a step is tried while others hold its locks; with the pauses between, about a minute.
const ATTEMPTS: u32 = 10;

/// First pause after a lost race for a lock; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What `setup` is asked for beyond `schema.json`.
#[derive(Debug, Clone, Default)]
pub struct SetupOptions {
    /// Also remove the row triggers and the cron job of the original migration.
    pub take_over: bool,
    /// Leave the rights on the original migration's functions as they are.
    pub keep_grants: bool,
    /// Where cron posts. `None` leaves what is stored.
    pub sync_url: Option<String>,
    /// The secret of that post. `None` leaves what is stored.
    pub webhook_signature: Option<Secret>,
    /// Tables (by their name in `schema.json`) that get row triggers, because logical replication fills them.
    pub row_triggers: BTreeSet<String>,
    /// When cron posts, if it has no job yet.
    pub schedule: Option<String>,
    /// End the capture of tables that `schema.json` no longer names.
    pub allow_drop: bool,
}

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
    for step in plan::steps(&facts, queue, options) {
        if step.is_done {
            report.unchanged.push(step.title);
            continue;
        }
        match (run(&client, &step.title, &step.transaction()).await, step.need) {
            (Ok(()), _) => report.done.push(step.title),
            (Err(error), Need::Optional(mend)) => {
                let (title, text) = (format!("{}: ", step.title), error.to_string());
                report.warn(format!("{title}{}; {mend}", text.strip_prefix(&title).unwrap_or(&text)));
            }
            (Err(error), Need::Required) => return Err(error),
        }
    }
    store(&client, &facts, options, &mut report).await?;
    report.check_settings(&client).await?;
    if facts.server.has_cron {
        report.check_job(&client).await?;
    }
    Ok(report)
}

/// What a set-up would make in Postgres that is not there yet, for people. Changes nothing.
pub async fn plan(postgres: &PgUrl, schema: &Schema, queue: &QueueName, options: &SetupOptions) -> Result<Vec<String>> {
    let client = postgres.pinned(Purpose::Setup).await?;
    let facts = inspect::inspect(&client, schema, queue, options).await?;
    let steps = plan::steps(&facts, queue, options).into_iter();
    Ok(steps.filter(|step| !step.is_done && !step.is_routine).map(|step| step.title).collect())
}

/// The same as a script for review, or for a migration file. Changes nothing; holds no secret.
pub async fn print(postgres: &PgUrl, schema: &Schema, queue: &QueueName, options: &SetupOptions) -> Result<String> {
    let client = postgres.pinned(Purpose::Setup).await?;
    let facts = inspect::inspect(&client, schema, queue, options).await?;
    let report = SetupReport::new(&facts, queue, options);
    Ok(script(&plan::steps(&facts, queue, options), &report, &facts))
}

fn script(steps: &[Step], report: &SetupReport, facts: &Facts) -> String {
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

/// Runs a transaction, again where it lost a race for a lock.
async fn run(client: &Client, title: &str, transaction: &str) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    for attempt in 1..=ATTEMPTS {
        let Err(error) = client.run_script(transaction).await else {
            tracing::debug!(setup.step = title, attempt, "a step of the set-up is done");
            return Ok(());
        };
        // What failed is rolled back in any case; an error here means that the connection is gone.
        client.rollback().await.ok();
        if !lost_a_race(&error) {
            return Err(failed(title, error));
        }
        tracing::info!(setup.step = title, attempt, "is locked by others; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Err(Error::retry(format!(
        "{title}: others held locks for too long and nothing of it was changed{}; end long transactions (see pg_stat_activity) and run setup again",
        holders(client).await
    )))
}

/// Who has transactions open, as far as it can be told.
async fn holders(client: &Client) -> String {
    let found = client.query_typed_one(include_str!("../../../sql/who_holds.sql"), &[]).await;
    let named = found.and_then(|row| row.try_get::<_, Option<String>>(0)).ok().flatten();
    named.map(|named| format!(" (open transactions: {})", named.escape_debug())).unwrap_or_default()
}

fn lost_a_race(error: &tokio_postgres::Error) -> bool {
    let made_twice = error.as_db_error().and_then(|db| db.constraint()).is_some_and(|name| name.starts_with("pg_"));
    made_twice
        || error.code().is_some_and(|code| {
            [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE]
                .contains(code)
        })
}

fn failed(title: &str, error: tokio_postgres::Error) -> Error {
    let Some(db) = error.as_db_error() else {
        return Error::from(error);
    };
    let mend = match db.hint() {
        Some(hint) => hint.to_owned(),
        None if *db.code() == SqlState::INSUFFICIENT_PRIVILEGE => {
            "run setup as the owner of the database and its tables".to_owned()
        }
        None => "mend that and run setup again".to_owned(),
    };
    let text = format!("{title}: {} (SQLSTATE {}); {mend}", db.message(), db.code().code());
    Error::halt(text).caused_by(error)
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
