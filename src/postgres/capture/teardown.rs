//! Takes back what `setup` made for one queue, and what all queues share once none is left.

use super::names::function_prefix;
use super::plan::PlanStep;
use super::run::run;
use super::template::{fill, shown, text};
use super::triggers::drop_trigger;
use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::SourceName;
use crate::postgres::{Client, PgUrl, Purpose};
use minijinja::context;
use std::fmt;
use tokio_postgres::types::Type;

/// What `teardown` is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct TeardownOptions {
    /// Drop the queue and its dead letters, with everything that is on them.
    pub drop_queue: bool,
}

/// What `teardown` did.
#[derive(Debug, Clone, Default)]
pub struct TeardownReport {
    /// What is gone.
    pub done: Vec<String>,
    /// What was left, and why.
    pub kept: Vec<String>,
}

impl fmt::Display for TeardownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (head, lines) in [("Removed:", &self.done), ("Left:", &self.kept)] {
            if !lines.is_empty() {
                writeln!(f, "{head}")?;
                lines.iter().try_for_each(|line| writeln!(f, "  - {line}"))?;
            }
        }
        Ok(())
    }
}

struct Installed {
    has_schema: bool,
    others: bool,
    functions: Vec<String>,
    image_triggers: Vec<String>,
    foreign_triggers: Vec<String>,
    has_cron: bool,
    has_progress: bool,
    has_queue: bool,
    has_dead: bool,
    tables: Vec<Captured>,
}

struct Captured {
    on: SourceName,
    triggers: Vec<String>,
    is_last: bool,
}

/// The step that drops what may be in use elsewhere: what became of it is looked at.
const ROLES: &str = "the roles of pgflume";

/// What teardown never touches.
const OTHERS: [&str; 3] = [
    "the schema pgmq with its other queues: drop it if nobody else uses PGMQ (docs/uninstall.md has the SQL for what is left)",
    "the replica: its tables, and the bookkeeping beside them, whose names begin with _pgflume_",
    "login roles that were granted pgflume_worker or pgflume_push, and secrets in Vault",
];

/// Removes the capture of `queue`; with the last queue also the functions, the cron job, the schema and
/// the roles. Changes that were not captured any more can only be found by a resync.
pub async fn teardown(postgres: &PgUrl, queue: &QueueName, options: TeardownOptions) -> Result<TeardownReport> {
    let client = postgres.pinned(Purpose::Teardown).await?;
    let found = inspect(&client, queue).await?;
    refuse(&found, options)?;
    let there = roles(&client).await?;
    let mut report = TeardownReport::default();
    for step in steps(&found, queue, options)? {
        run(&client, &step.title, &step.transaction()).await?;
        if step.title != ROLES {
            report.done.push(step.title);
        }
    }
    if !options.drop_queue && found.has_queue {
        report.kept.push(format!("the queue {} with its messages; add --queue to drop it", queue.as_str()));
    }
    if found.others {
        report.kept.push("the schema pgflume, its functions, cron job and roles: another queue uses them".into());
    } else {
        let left = roles(&client).await?;
        let gone = there.into_iter().filter(|role| !left.contains(role));
        report.done.extend(gone.map(|role| format!("the role {role}")));
        report.kept.extend(left.into_iter().map(|r| {
            format!(
                "the role {r}: another database uses it, it owns something here, or only an administrator may drop it"
            )
        }));
    }
    report.kept.extend(OTHERS.map(str::to_owned));
    Ok(report)
}

async fn inspect(client: &Client, queue: &QueueName) -> Result<Installed> {
    let (prefix, name) = (function_prefix(queue), queue.as_str());
    let row = client
        .query_typed_one(
            include_str!("../../../sql/teardown_inspect.sql"),
            &[(&prefix, Type::TEXT), (&name, Type::TEXT)],
        )
        .await?;
    let tables =
        client.query_typed(include_str!("../../../sql/teardown_triggers.sql"), &[(&prefix, Type::TEXT)]).await?;
    let table = |row: &tokio_postgres::Row| {
        Ok(Captured {
            on: SourceName { schema: row.try_get(0)?, table: row.try_get(1)? },
            triggers: row.try_get(2)?,
            is_last: row.try_get(3)?,
        })
    };
    let mut found = Installed {
        has_schema: row.try_get(0)?,
        others: row.try_get(1)?,
        functions: row.try_get(2)?,
        image_triggers: row.try_get(3)?,
        foreign_triggers: row.try_get(4)?,
        has_cron: row.try_get(5)?,
        has_progress: row.try_get(6)?,
        has_queue: row.try_get(7)?,
        has_dead: row.try_get(8)?,
        tables: tables.iter().map(table).collect::<Result<_>>()?,
    };
    if found.has_progress {
        let sql = "select exists (select from pgflume.progress where queue <> $1)";
        found.others |= client.query_typed_one(sql, &[(&name, Type::TEXT)]).await?.try_get::<_, bool>(0)?;
    }
    Ok(found)
}

/// Triggers that would make every write fail once their function or their queue is gone.
fn refuse(found: &Installed, options: TeardownOptions) -> Result<()> {
    let mut blockers = Vec::new();
    if !found.others || options.drop_queue {
        blockers.extend(found.image_triggers.iter());
    }
    if options.drop_queue {
        blockers.extend(found.foreign_triggers.iter());
    }
    if blockers.is_empty() {
        return Ok(());
    }
    let list = blockers.iter().map(|b| shown(b)).collect::<Vec<_>>().join(", ");
    Err(Error::halt(format!(
        "nothing was removed: these triggers still send to the queue and would make writes fail: {list}; drop them and run teardown again"
    )))
}

fn steps(found: &Installed, queue: &QueueName, options: TeardownOptions) -> Result<Vec<PlanStep>> {
    let mut steps = found.tables.iter().map(table).collect::<Result<Vec<_>>>()?;
    let mut step = |title: &str, sql: String| {
        if !sql.is_empty() {
            steps.push(PlanStep::new(title, sql));
        }
    };
    step("its capture functions", found.functions.iter().map(|f| format!("drop function {f};\n")).collect());
    step("its rights on the queue", rights(found, queue)?);
    if found.has_progress {
        let values = context! { queue_name => text(queue.as_str()) };
        step("its bookkeeping", fill(include_str!("../../../sql/teardown_progress.sql"), values)?);
    }
    if options.drop_queue {
        let drop = |there: bool, name: &str| {
            if there { format!("select pgmq.drop_queue({});\n", text(name)) } else { String::new() }
        };
        let sql = drop(found.has_queue, queue.as_str()) + &drop(found.has_dead, &queue.dead());
        step("the queue and its dead letters", sql);
    }
    if !found.others {
        step(
            "the cron job",
            if found.has_cron { include_str!("../../../sql/teardown_cron.sql").to_owned() } else { String::new() },
        );
        step(
            "the schema pgflume",
            if found.has_schema { "drop schema pgflume cascade;".into() } else { String::new() },
        );
        step(ROLES, include_str!("../../../sql/teardown_roles.sql").to_owned());
    }
    Ok(steps)
}

fn table(captured: &Captured) -> Result<PlanStep> {
    let on = captured.on.quoted();
    let mut sql = format!("lock table {on} in access exclusive mode;\n");
    for trigger in &captured.triggers {
        sql.push_str(&drop_trigger(&captured.on, trigger)?);
    }
    if captured.is_last {
        sql.push_str(&format!("revoke all on {on} from pgflume_worker;\n"));
    }
    Ok(PlanStep::new(format!("the capture of {}", shown(&on)), sql))
}

fn rights(found: &Installed, queue: &QueueName) -> Result<String> {
    let mut sql = String::new();
    if found.has_queue {
        let values = context! { queue => queue.table() };
        sql.push_str(&fill(include_str!("../../../sql/teardown_queue_rights.sql"), values)?);
    }
    if found.has_dead {
        let values = context! { dead => queue.dead_table() };
        sql.push_str(&fill(include_str!("../../../sql/teardown_dead_rights.sql"), values)?);
    }
    Ok(sql)
}

async fn roles(client: &Client) -> Result<Vec<String>> {
    let sql = "select rolname::pg_catalog.text from pg_catalog.pg_roles where rolname in ('pgflume_capture', 'pgflume_worker', 'pgflume_push') order by 1";
    client.query_typed(sql, &[]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
