//! Runs a transaction of a set-up, with a bounded wait for locks.

use crate::core::error::{Error, Result};
use crate::postgres::Client;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// Longest wait for a lock: while we wait, everybody else waits behind us.
pub(super) const LOCK_TIMEOUT_MS: u64 = 2_000;

/// How often a step is tried while others hold its locks; with the pauses between, about a minute.
const ATTEMPTS: u32 = 10;

/// First pause after a lost race for a lock; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Runs a transaction, again where it lost a race for a lock.
pub(super) async fn run(client: &Client, title: &str, transaction: &str) -> Result<()> {
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

pub(super) fn failed(title: &str, error: tokio_postgres::Error) -> Error {
    let Some(db) = error.as_db_error() else {
        return Error::from(error);
    };
    let remedy = match db.hint() {
        Some(hint) => hint.to_owned(),
        None if *db.code() == SqlState::INSUFFICIENT_PRIVILEGE => {
            "run setup as the owner of the database and its tables".to_owned()
        }
        None => "fix that and run setup again".to_owned(),
    };
    let text = format!("{title}: {} (SQLSTATE {}); {remedy}", db.message(), db.code().code());
    Error::halt(text).caused_by(error)
}
