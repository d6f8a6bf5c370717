//! The queue against what capturing needs of it: that marks get there and stay, and that nothing else happens in
//! the writer's transaction. One query; changes nothing.

use super::finding::{Drift, DriftKind};
use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::core::schema::quote;
use crate::postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// What PGMQ calls its trigger.
const NOTIFY: &str = "trigger_notify_queue_insert_listeners";

/// What puts things right that `setup` looks after.
const SETUP: &str = "run `pgflume setup`";

/// What is wrong with the queue.
pub(super) async fn check(client: &Client, queue: &QueueName) -> Result<Vec<Drift>> {
    let name = format!("q_{}", queue.as_str());
    let rows = client.query_typed(include_str!("../../../sql/drift_queue.sql"), &[(&name, Type::TEXT)]).await?;
    let found = match rows.first() {
        Some(row) => wrong(row, queue)?,
        None => vec![("is gone: every write to a captured table fails".into(), SETUP.into())],
    };
    let drift = |(problem, remedy): (String, String)| Drift {
        table: format!("pgmq.{name}"),
        column: None,
        kind: DriftKind::Queue,
        problem: format!("the queue {problem}"),
        remedy,
    };
    Ok(found.into_iter().map(drift).collect())
}

fn wrong(row: &Row, queue: &QueueName) -> Result<Vec<(String, String)>> {
    let (persistence, cache): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
    let (rules, triggers): (Vec<String>, Vec<String>) = (row.try_get(2)?, row.try_get(3)?);
    let (unguarded, may_insert): (Vec<String>, bool) = (row.try_get(4)?, row.try_get(5)?);
    let table = queue.table();
    let mut all = Vec::new();
    if persistence != "p" {
        let remedy = format!("run `alter table {table} set logged`, and after a crash `pgflume resync`");
        all.push(("is unlogged, and loses its marks in a crash".into(), remedy));
    }
    if cache > 1 {
        let remedy = format!("run `alter table {table} alter column msg_id set cache 1`");
        all.push((format!("hands out its message ids {cache} at a time, out of order"), remedy));
    }
    if !may_insert {
        all.push(("may not be written by pgflume_capture: every write to a captured table fails".into(), SETUP.into()));
    }
    if !unguarded.is_empty() {
        let problem = format!("lacks {}: what others take off it is not noticed", unguarded.join(" and "));
        all.push((problem, format!("{SETUP}, then `pgflume resync`")));
    }
    let on = |what: &str, name: &String, remedy: String| {
        (format!("has the {what} {name:?}, which runs in every write to a captured table"), remedy)
    };
    all.extend(rules.iter().map(|name| on("rule", name, format!("run `drop rule {} on {table}`", quote(name)))));
    all.extend(triggers.iter().map(|name| {
        let remedy = match name == NOTIFY {
            true => format!("run `select pgmq.disable_notify_insert('{}')`", queue.as_str()),
            false => format!("run `drop trigger {} on {table}`", quote(name)),
        };
        on("trigger", name, remedy)
    }));
    Ok(all)
}
