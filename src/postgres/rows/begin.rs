//! How transactions begin that read the source: settings that no role or database default can change, and locks that
//! stand in nobody's way.

use crate::core::error::{Error, Result};
use crate::core::failpoint::PullRule;
use crate::postgres::Client;
use crate::postgres::catalog::{RelationKind, SourceTable};
use crate::postgres::client::{PINNED, WRITTEN_ALIKE};
use std::time::Duration;

/// Longest wait for a lock while nothing is held: a fraction of the server's `deadlock_timeout`, and not more than this.
pub(crate) const LONGEST_LOCK_WAIT: Duration = Duration::from_millis(200);

/// What part of `deadlock_timeout` that is.
const SHARE_OF_DEADLOCK_TIMEOUT: u32 = 4;

/// How long one statement of a step may run.
pub const STATEMENT_TIME: Duration = Duration::from_secs(60);

/// Longest wait for a lock within a step, which holds its tables.
const WAIT_WITHIN: Duration = Duration::from_millis(10);

/// What of this server decides how a step begins.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    /// Longest wait for a lock while nothing is held.
    pub lock_wait: Duration,
    /// It can be told to read no views and no foreign tables (minor versions since August 2024), so that none can be
    /// put in a table's place.
    pub restricts_kinds: bool,
}

impl Server {
    /// Asks it.
    pub async fn ask(client: &Client) -> Result<Self> {
        let sql =
            "select extract(epoch from pg_catalog.current_setting('deadlock_timeout')::interval)::pg_catalog.float8,
                          pg_catalog.current_setting('restrict_nonsystem_relation_kind', true) is not null";
        let row = client.query_typed_one(sql, &[]).await?;
        let deadlock_timeout = Duration::from_secs_f64(row.try_get::<_, f64>(0)?.max(0.0));
        let lock_wait = (deadlock_timeout / SHARE_OF_DEADLOCK_TIMEOUT).min(LONGEST_LOCK_WAIT);
        Ok(Self { lock_wait, restricts_kinds: row.try_get(1)? })
    }
}

/// Opens the step's transaction: settings that no role or database default can change, and the locks
/// without which a TRUNCATE or a rewriting ALTER that commits after the snapshot makes a table look
/// empty. Nothing here takes the snapshot yet.
///
/// All locks at once, or an error (55P03). Whatever waits later in the transaction waits hardly at all: it
/// holds these, and whoever closes a circle of waits is ended by a deadlock.
pub async fn begin(client: &Client, tables: &[&SourceTable], server: Server) -> Result<()> {
    let mut sql = settings_of(server);
    let lockable = tables.iter().filter(|t| !t.kind.shows_others());
    let names: Vec<_> = lockable.map(|t| t.table.source.quoted()).collect();
    if !names.is_empty() && PullRule::LockFirst.holds() {
        sql.push_str(&format!("; lock table {} in access share mode nowait", names.join(", ")));
    }
    client
        .begin(if PullRule::OneSnapshot.holds() { "isolation level repeatable read" } else { "" }, &sql)
        .await
        .map_err(Error::from)
}

/// What a step's statements run under.
pub(crate) fn settings_of(server: Server) -> String {
    let restricted = "; set local restrict_nonsystem_relation_kind = 'view, foreign-table'";
    settings() + if server.restricts_kinds { restricted } else { "" }
}

/// Lets the transaction read what shows rows of others, and nothing else of that kind. For these the settings are made
/// anew: what was read before may have changed them.
pub(crate) async fn admit(client: &Client, kind: RelationKind, server: Server) -> Result<()> {
    let mut sql = format!("{PINNED}; {}", settings());
    if server.restricts_kinds {
        let kinds = match kind {
            RelationKind::View => "",
            RelationKind::Foreign => "view",
            _ => "view, foreign-table",
        };
        sql.push_str(&format!("; set local restrict_nonsystem_relation_kind = '{kinds}'"));
    }
    client.batch_execute(&sql).await.map_err(Error::from)
}

/// Opens a transaction that waits for locks, and sees what is committed while it waits.
pub async fn begin_waiting(client: &Client, patience: Duration) -> Result<()> {
    let ms = patience.as_millis();
    let sql = format!(
        "set local synchronous_commit = on; set local lock_timeout = {ms}; set local statement_timeout = '60s'"
    );
    client.begin("", &sql).await.map_err(Error::from)
}

/// The plan is forced to the key's index: for some thousand keys the planner would rather scan, and for
/// the next page of a table rather build a bitmap and sort. Sorting itself stays allowed: where a plan
/// cannot do without, the penalty would hide all other costs, and taking messages would become quadratic.
///
/// `pgflume.step` is for the guard of the queue that an earlier `setup` made.
const SETTINGS: &str = "set local pgflume.step = on;
set local synchronous_commit = on;
set local row_security = off;
set local jit = off;
set local constraint_exclusion = off;
set local max_parallel_workers_per_gather = 0;
set local enable_seqscan = off;
set local enable_bitmapscan = off;
set local enable_hashjoin = off;
set local enable_mergejoin = off";

/// With how long a statement may wait, and run.
fn settings() -> String {
    let (lock_wait, time) = (WAIT_WITHIN.as_millis(), STATEMENT_TIME.as_millis());
    format!("{SETTINGS}; {WRITTEN_ALIKE}; set local lock_timeout = {lock_wait}; set local statement_timeout = {time}")
}

/// In milliseconds; zero would be for ever.
fn at_least_1_ms(wait: Duration) -> u128 {
    wait.as_millis().max(1)
}

/// Waits until the table can be locked as a step locks it, for so long and outside of any transaction: who holds
/// nothing is in nobody's way.
pub async fn wait_for(client: &Client, source: &SourceTable, wait: Duration) -> Result<()> {
    let (table, ms) = (source.table.source.quoted(), at_least_1_ms(wait));
    let sql = format!("set local lock_timeout = {ms}; lock table {table} in access share mode");
    client.batch_execute(&sql).await.map_err(Error::from)
}
