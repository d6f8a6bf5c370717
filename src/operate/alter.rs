//! An edit of `schema.json`, applied to both sides: what it takes, said first and refused where data would
//! go unasked, then done. Takes both sides and the new definition; gives a plan or a report. Copies no row:
//! the worker does, once the definition has changed.

use crate::core::error::{Error, Result};
use crate::core::failpoint;
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::postgres::awake::awake;
use crate::postgres::books::progress;
use crate::postgres::capture::{SetupOptions, SetupReport};
use crate::postgres::drift::recorded::Difference;
use crate::postgres::drift::{definition_version, evolve, recorded};
use crate::postgres::{Client, PgUrl, Purpose, capture, rows};
use crate::replica::change::{Change, Retired};
use crate::replica::target::Target;
use crate::replica::{Replica, address, change};
use crate::sync::pairing;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a change of the replica waits for the step that is running.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the definitions are put aside again where a worker took them up in between.
const TRIES: usize = 5;

/// Both sides and what they are to become.
#[derive(Debug)]
pub struct Sides {
    /// The source.
    pub postgres: PgUrl,
    /// The replica, where it is known.
    pub target: Option<Target>,
    /// The new definition.
    pub schema: Arc<Schema>,
    /// The queue.
    pub queue: QueueName,
    /// What else is asked for.
    pub wanted: SetupOptions,
}

/// What an edit takes.
#[derive(Debug)]
pub struct Plan {
    differences: Vec<Difference>,
    in_postgres: Vec<String>,
    replica: Reach,
    allow_drop: bool,
}

/// What is known of the replica.
#[derive(Debug)]
enum Reach {
    /// `LIBSQL_URL` is not set.
    Unnamed,
    /// It does not answer.
    Silent(Error),
    /// The worker has not been there yet.
    Fresh,
    /// It takes these changes.
    Known(Vec<Change>),
}

/// Looks at both sides. Changes nothing.
pub async fn plan(sides: &Sides) -> Result<Plan> {
    let in_postgres = capture::plan(&sides.postgres, &sides.schema, &sides.queue, &sides.wanted).await?;
    let client = sides.postgres.pinned(Purpose::Alter).await?;
    let (schema, differences, retired) = definitions(&client, sides).await?;
    let replica = match &sides.target {
        None => Reach::Unnamed,
        Some(Target::File(path)) if !path.exists() => Reach::Fresh,
        Some(target) => match inventory(target).await {
            Ok(there) if !there.has_bookkeeping() => Reach::Fresh,
            Ok(there) => Reach::Known(change::plan(&there, &schema, &retired)),
            Err(e) => Reach::Silent(e),
        },
    };
    Ok(Plan { differences, in_postgres, replica, allow_drop: sides.wanted.allow_drop })
}

/// The definition in force, how it differs from the last set-up, and what may be dropped.
async fn definitions(client: &Client, sides: &Sides) -> Result<(Arc<Schema>, Vec<Difference>, Retired)> {
    let sql = "select to_regclass('pgflume.captured') is not null";
    if !client.query_typed_one(sql, &[]).await?.try_get::<_, bool>(0)? {
        return Ok((sides.schema.clone(), Vec::new(), Retired::default()));
    }
    let records = recorded::read(client, &sides.queue).await?;
    let schema = evolve::effective(client, &sides.schema, &sides.queue).await?;
    let mut retired = recorded::retired(&sides.schema, &records);
    // A column that the table's source brings by itself is not gone.
    let is_gone = |name: &str, column: &str| schema.get(name).is_none_or(|table| table.position(column).is_none());
    for (name, columns) in &mut retired.columns {
        columns.retain(|column| is_gone(name, column));
    }
    let mut differences = recorded::differences(&sides.schema, &records);
    differences.retain(|d| !d.is_drop || d.column.as_ref().is_none_or(|column| is_gone(&d.table, column)));
    Ok((schema, differences, retired))
}

async fn inventory(target: &Target) -> Result<crate::replica::inventory::Inventory> {
    Replica::open(target).await?.inventory().await
}

impl Plan {
    /// Why it may not be applied as it is.
    fn refusal(&self) -> Option<Error> {
        let named = self.differences.iter().filter(|d| d.is_drop).map(Difference::place);
        let drops: BTreeSet<String> =
            named.chain(self.changes().iter().filter(|c| c.is_drop).map(Change::line)).collect();
        if !drops.is_empty() && !self.allow_drop {
            return Some(Error::halt(format!(
                "nothing was changed, because the replica would lose data that schema.json no longer names; name it again (a renamed column is a new one for the replica), or run setup with --allow-drop:\n  - {}",
                drops.into_iter().collect::<Vec<_>>().join("\n  - ")
            )));
        }
        let needs_replica = self.differences.iter().any(|d| d.is_drop || !d.is_additive);
        match &self.replica {
            Reach::Unnamed if needs_replica => Some(Error::halt(
                "nothing was changed, because this edit of schema.json alters tables of the replica: set LIBSQL_URL (and LIBSQL_AUTH_TOKEN) and run setup again",
            )),
            Reach::Silent(e) if needs_replica => Some(Error::retry(format!(
                "nothing was changed, because this edit of schema.json alters tables of the replica, and it cannot be read: {e}"
            ))),
            _ => None,
        }
    }

    fn changes(&self) -> &[Change] {
        match &self.replica {
            Reach::Known(changes) => changes,
            _ => &[],
        }
    }
}

impl Difference {
    fn place(&self) -> String {
        let column = self.column.as_ref().map(|c| format!(".{c}")).unwrap_or_default();
        format!("{}{column}: {}", self.table, self.what)
    }
}

impl Change {
    fn line(&self) -> String {
        format!("{}: {}", self.table, self.what)
    }
}

/// Applies a plan: Postgres first, so that nothing is missed, then the replica. Running it again finishes
/// what was cut short.
pub async fn apply(sides: &Sides, plan: Plan) -> Result<AlterReport> {
    if let Some(refusal) = plan.refusal() {
        return Err(refusal);
    }
    let postgres = capture::setup(&sides.postgres, &sides.schema, &sides.queue, &sides.wanted).await?;
    let changes = match (&plan.replica, &sides.target) {
        (Reach::Known(changes), Some(target)) if sides.wanted.allow_drop || !changes.is_empty() => {
            alter_replica(sides, target).await.map_err(half_done)?
        }
        (Reach::Fresh, _) if sides.wanted.allow_drop => forget(sides).await?,
        _ => Vec::new(),
    };
    Ok(AlterReport { postgres, plan, changes })
}

/// A refusal says that nothing was changed, and by now Postgres was.
fn half_done(e: Error) -> Error {
    match e.to_string().strip_prefix("nothing was taken and nothing was changed: ") {
        Some(why) => Error::new(e.kind().clone(), format!("Postgres is set up, and the replica is not: {why}")),
        None => e,
    }
}

/// Alters the replica under the single flight and behind the fence. What was planned before the lock is
/// planned again under it.
async fn alter_replica(sides: &Sides, target: &Target) -> Result<Vec<Change>> {
    let client = sides.postgres.pinned(Purpose::Alter).await?;
    let queue = &sides.queue;
    progress::ensure(&client, queue).await?;
    let (schema, _, retired) = definitions(&client, sides).await?;
    let replica = Replica::open(target).await?;
    for _ in 0..TRIES {
        hold(&client, queue).await?;
        let there = replica.inventory().await?;
        let snapshot = progress::look(&client, queue).await?;
        pairing::look(&snapshot, &address::of(target), Some((&replica, &there))).await?;
        let mut changes = change::plan(&there, &schema, &retired);
        let head = replica.head().await?;
        if head.is_none() {
            changes.clear(); // no worker was here yet: it makes the tables
        }
        let copied: BTreeSet<&str> = changes.iter().filter(|c| c.needs_copy).map(|c| c.table.as_str()).collect();
        let copied: Vec<&str> = copied.into_iter().collect();
        if !definition_version::is_reset(&client, queue, &copied).await? {
            // Committed before: an answer that is lost must not leave a table that nobody fills.
            definition_version::reset(&client, queue, &copied).await?;
            client.commit().await?;
            continue;
        }
        if let Some(head) = head.filter(|_| !changes.is_empty()) {
            let statements = changes.iter().flat_map(|c| c.statements.clone()).collect();
            awake(|| client.pulse(), replica.alter(&head, statements)).await?;
            failpoint::reach(failpoint::ALTERED);
        }
        if sides.wanted.allow_drop {
            recorded::forget(&client, queue, &retired).await?;
        }
        client.commit().await?;
        for change in &changes {
            tracing::info!(table = change.table, "the replica was changed: {}", change.what);
        }
        return Ok(changes);
    }
    Err(Error::retry(
        "a worker with another schema.json takes its tables back again and again: stop it, then run setup again",
    ))
}

/// Takes the single flight, waiting for the step that is running.
async fn hold(client: &Client, queue: &QueueName) -> Result<()> {
    rows::begin_waiting(client, PATIENCE).await?;
    progress::wait_for_lock(client, queue).await.map_err(|e| match e.is_locked() {
        true => Error::retry("a step takes too long; run setup again when it has ended"),
        false => e,
    })
}

/// A replica that the worker has not made yet has nothing to drop.
async fn forget(sides: &Sides) -> Result<Vec<Change>> {
    let client = sides.postgres.pinned(Purpose::Alter).await?;
    let (_, _, retired) = definitions(&client, sides).await?;
    recorded::forget(&client, &sides.queue, &retired).await?;
    Ok(Vec::new())
}

/// What was done.
#[derive(Debug)]
pub struct AlterReport {
    /// In Postgres.
    pub postgres: SetupReport,
    plan: Plan,
    /// In the replica.
    pub changes: Vec<Change>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, "schema.json differs from the last set-up:", self.differences.iter().map(Difference::place))?;
        let routine = "bookkeeping, roles, rights, functions and the cron job are brought up to date, as always";
        let steps = self.in_postgres.iter().cloned().chain([routine.to_owned()]);
        list(f, "In Postgres (pgflume setup --print writes the SQL):", steps)?;
        self.replica.say(f)?;
        for change in self.changes() {
            let drop = if change.is_drop { " (with --allow-drop)" } else { "" };
            writeln!(f, "  - {}{drop}", change.line())?;
            change.statements.iter().try_for_each(|sql| writeln!(f, "      {sql};"))?;
            if change.needs_copy {
                writeln!(f, "      then the worker copies the table again, readable all the while")?;
            }
        }
        match self.refusal() {
            Some(refusal) => writeln!(f, "Setup would refuse this: {refusal}"),
            None => writeln!(f, "Nothing was changed. Run pgflume setup to apply this."),
        }
    }
}

impl Reach {
    fn say(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(changes) if changes.is_empty() => writeln!(f, "In the replica: nothing"),
            Self::Known(_) => writeln!(f, "In the replica:"),
            Self::Fresh => writeln!(f, "In the replica: the worker's first drain makes what it lacks"),
            Self::Unnamed => writeln!(
                f,
                "In the replica: not looked at, because LIBSQL_URL is not set; the worker adds tables and columns when it next starts with this schema.json"
            ),
            Self::Silent(e) => writeln!(
                f,
                "In the replica: not looked at ({e}); the worker adds tables and columns when it next starts with this schema.json"
            ),
        }
    }
}

impl fmt::Display for AlterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.postgres)?;
        if self.changes.is_empty() {
            self.plan.replica.say(f)?;
        } else {
            list(f, "Changed in the replica:", self.changes.iter().map(Change::line))?;
        }
        if self.plan.differences.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "Now restart the worker with this schema.json: it copies again the tables whose rows need it (pgflume status shows how far it is)"
        )
    }
}

fn list(f: &mut fmt::Formatter<'_>, head: &str, mut lines: impl Iterator<Item = String>) -> fmt::Result {
    let Some(first) = lines.next() else { return Ok(()) };
    writeln!(f, "{head}\n  - {first}")?;
    lines.try_for_each(|line| writeln!(f, "  - {line}"))
}
