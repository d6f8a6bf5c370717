//! All SQL of `pgflume.resyncs`: which tables are rebuilt, why, and how far each is. Takes a client inside
//! (or outside) a step's transaction; knows nothing of rows or of the replica.

use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::postgres::Client;
use crate::postgres::iso_text;
use serde::Serialize;
use tokio_postgres::types::Type;

/// Why a table is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Somebody asked.
    Request,
    /// The replica was nuked.
    Nuke,
    /// The table's definition has changed.
    Evolve,
    /// The two sides had diverged: [`crate::core::reconcile::Divergence::name`].
    Healed(&'static str),
}

impl Reason {
    /// As `pgflume.resyncs` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Nuke => "nuke",
            Self::Evolve => "evolve",
            Self::Healed(divergence) => divergence,
        }
    }
}

/// What is being done with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its rows are copied in key order.
    Copy,
    /// What the source lacks is removed.
    Sweep,
    /// It waits until somebody asks for it again.
    Failed,
    /// Nothing any more.
    Done,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Sweep => "sweep",
            Self::Failed => "failed",
            Self::Done => "done",
        }
    }

    fn parse(name: &str) -> Self {
        [Self::Copy, Self::Sweep, Self::Failed].into_iter().find(|phase| phase.name() == name).unwrap_or(Self::Done)
    }
}

/// How far one table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuild {
    /// The table's name in `schema.json`.
    pub name: String,
    /// What is being done.
    pub phase: Phase,
    /// The key up to which the phase is done; `None`: from the start.
    pub cursor: Option<Vec<String>>,
    /// Whether the replica's table had no row when it was asked for or since, before its first page. Whatever a marked
    /// table has got from then on, newer marks keep right: nothing of it is swept.
    pub fresh: bool,
    /// Rows copied.
    pub rows: i64,
    /// Rows removed.
    pub removed: i64,
    /// Rows that the source has, by the planner's statistics.
    pub estimated: Option<i64>,
    /// Time spent on it, in milliseconds.
    pub busy_ms: i64,
    /// Why it failed.
    pub problem: Option<String>,
    /// Rows that became dead letters on the way.
    pub unfit: i64,
    /// By what the cursor is to be read.
    pub ordered_by: Option<String>,
}

impl Rebuild {
    /// Whether there is something to do that can be done.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Copy | Phase::Sweep)
    }

    /// Begins anew where the cursor is one of another key than the table's now.
    pub(crate) fn begin_by(&mut self, ordering: String) {
        if self.cursor.is_some() && self.ordered_by.as_ref() != Some(&ordering) {
            (self.phase, self.cursor, self.fresh) = (Phase::Copy, None, false);
        }
        self.ordered_by = Some(ordering);
    }
}

/// One table's rebuild, for `status`.
#[derive(Debug, Clone, Serialize)]
pub struct RebuildReport {
    /// The table's name in `schema.json`.
    #[serde(skip)]
    pub name: String,
    /// `copy`, `sweep`, `failed` or `done`.
    pub phase: Phase,
    /// `setup`, `request`, `nuke`, `truncate`, `evolve`, or what was noticed.
    pub reason: String,
    /// Why it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Rows copied.
    pub rows: i64,
    /// Rows removed that the source did not have.
    pub removed: i64,
    /// Rows that the source has, by the planner's statistics.
    pub estimated_rows: Option<i64>,
    /// Rows copied a second while it ran.
    pub rows_per_second: Option<f64>,
    /// Seconds that the copy still takes at this rate.
    pub eta_seconds: Option<f64>,
    /// When it was asked for.
    pub requested_at: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
}

/// Asks for tables to be rebuilt from the start, whatever was under way.
pub async fn schedule(client: &Client, queue: &QueueName, names: &[&str], reason: Reason) -> Result<()> {
    let sql = "insert into pgflume.resyncs as r (queue, name, reason)
               select distinct $1, n, $3 from pg_catalog.unnest($2::pg_catalog.text[]) n
               on conflict (queue, name) do update set phase = 'copy', cursor = null, reason = excluded.reason,
                   fresh = false, problem = null, rows = 0, removed = 0, estimated = null, busy_ms = 0,
                   unfit = 0, requested_at = pg_catalog.now(), started_at = null, finished_at = null";
    let parameters =
        [(&queue.as_str() as _, Type::TEXT), (&names as _, Type::TEXT_ARRAY), (&reason.name() as _, Type::TEXT)];
    client.execute_typed(sql, &parameters).await?;
    Ok(())
}

/// Begins all rebuilds anew, those that are done too: for a replica whose tables may have been emptied since.
pub async fn restart(client: &Client, queue: &QueueName) -> Result<()> {
    let sql = "update pgflume.resyncs set phase = 'copy', cursor = null, fresh = false, problem = null, rows = 0,
                   removed = 0, estimated = null, busy_ms = 0, unfit = 0, started_at = null, finished_at = null
               where queue = $1";
    client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?;
    Ok(())
}

/// Asks for what a truncated table no longer has to be removed. A copy under way goes on, and ends with it.
pub async fn schedule_sweep(client: &Client, queue: &QueueName, name: &str) -> Result<()> {
    let sql = "insert into pgflume.resyncs as r (queue, name, phase, reason) values ($1, $2, 'sweep', 'truncate')
               on conflict (queue, name) do update set fresh = false, problem = null, finished_at = null,
                   phase = case when r.phase in ('copy', 'failed') then 'copy' else 'sweep' end,
                   cursor = case r.phase when 'copy' then r.cursor end, unfit = 0,
                   requested_at = case r.phase when 'done' then pg_catalog.now() else r.requested_at end,
                   reason = case r.phase when 'done' then 'truncate' else r.reason end,
                   rows = case r.phase when 'done' then 0 else r.rows end,
                   removed = case r.phase when 'done' then 0 else r.removed end,
                   busy_ms = case r.phase when 'done' then 0 else r.busy_ms end";
    client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT), (&name, Type::TEXT)]).await?;
    Ok(())
}

/// Forgets what was asked for.
pub async fn cancel(client: &Client, queue: &QueueName) -> Result<()> {
    let sql = "delete from pgflume.resyncs where queue = $1";
    client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?;
    Ok(())
}

/// What is under way, in the order in which it was asked for.
pub async fn pending(client: &Client, queue: &QueueName) -> Result<Vec<Rebuild>> {
    let sql = "select name, phase, cursor, fresh, rows, removed, estimated, busy_ms, problem, unfit, ordered_by from pgflume.resyncs
               where queue = $1 and phase <> 'done' order by requested_at, name";
    let rows = client.query_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?;
    let rebuild = |row: &tokio_postgres::Row| {
        Ok(Rebuild {
            name: row.try_get(0)?,
            phase: Phase::parse(row.try_get(1)?),
            cursor: row.try_get(2)?,
            fresh: row.try_get(3)?,
            rows: row.try_get(4)?,
            removed: row.try_get(5)?,
            estimated: row.try_get(6)?,
            busy_ms: row.try_get(7)?,
            problem: row.try_get(8)?,
            unfit: row.try_get(9)?,
            ordered_by: row.try_get(10)?,
        })
    };
    rows.iter().map(rebuild).collect()
}

/// How many tables of `schema` are under way.
pub async fn waiting(client: &Client, queue: &QueueName, schema: &Schema) -> Result<u64> {
    let sql = "select pg_catalog.count(*) from pgflume.resyncs where queue = $1 and name = any($2) and phase <> 'done'";
    let names: Vec<&str> = schema.tables().map(|t| t.name.as_str()).collect();
    let row = client.query_typed_one(sql, &[(&queue.as_str(), Type::TEXT), (&names, Type::TEXT_ARRAY)]).await?;
    Ok(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default())
}

/// Records how far a table is, in the transaction of the step that brought it there; whether that was its first.
pub async fn advance(client: &Client, queue: &QueueName, rebuild: &Rebuild) -> Result<bool> {
    let sql =
        "update pgflume.resyncs set phase = $3, cursor = $4, rows = $5, removed = $6, estimated = $7, busy_ms = $8,
                   problem = $9, unfit = $10, ordered_by = $11, fresh = fresh and $12, started_at = coalesce(started_at, pg_catalog.now()),
                   finished_at = case when $3 = 'done' then pg_catalog.clock_timestamp() end
               where queue = $1 and name = $2 returning started_at = pg_catalog.now()";
    let parameters = [
        (&queue.as_str() as _, Type::TEXT),
        (&rebuild.name as _, Type::TEXT),
        (&rebuild.phase.name() as _, Type::TEXT),
        (&rebuild.cursor as _, Type::TEXT_ARRAY),
        (&rebuild.rows as _, Type::INT8),
        (&rebuild.removed as _, Type::INT8),
        (&rebuild.estimated as _, Type::INT8),
        (&rebuild.busy_ms as _, Type::INT8),
        (&rebuild.problem as _, Type::TEXT),
        (&rebuild.unfit as _, Type::INT8),
        (&rebuild.ordered_by as _, Type::TEXT),
        (&rebuild.fresh as _, Type::BOOL),
    ];
    let rows = client.query_typed(sql, &parameters).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
}

/// These tables of the replica have no row: nothing has to be swept out of them when they are copied.
pub async fn note_empty(client: &Client, queue: &QueueName, names: &[&str]) -> Result<()> {
    let sql = "update pgflume.resyncs set fresh = true where queue = $1 and name = any($2) and phase = 'copy' and cursor is null";
    client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT), (&names, Type::TEXT_ARRAY)]).await?;
    Ok(())
}

/// Says why a table waits.
pub async fn set_problem(client: &Client, queue: &QueueName, name: &str, problem: &str) -> Result<()> {
    let sql = "update pgflume.resyncs set problem = $3
               where queue = $1 and name = $2 and phase <> 'done' and problem is distinct from $3";
    let parameters = [(&queue.as_str() as _, Type::TEXT), (&name as _, Type::TEXT), (&problem as _, Type::TEXT)];
    client.execute_typed(sql, &parameters).await?;
    Ok(())
}

/// Every table that is or was rebuilt.
pub(crate) async fn reports(client: &Client, queue: &QueueName) -> Result<Vec<RebuildReport>> {
    let sql = format!(
        "select name, phase, reason, problem, rows, removed, estimated, busy_ms, {}, {}
         from pgflume.resyncs where queue = $1 order by name",
        iso_text("requested_at"),
        iso_text("finished_at")
    );
    let rows = client.query_typed(&sql, &[(&queue.as_str(), Type::TEXT)]).await?;
    let report = |row: &tokio_postgres::Row| {
        let (phase, copied, estimated): (Phase, i64, Option<i64>) =
            (Phase::parse(row.try_get(1)?), row.try_get(4)?, row.try_get(6)?);
        let rate = rate(copied, row.try_get(7)?);
        Ok(RebuildReport {
            name: row.try_get(0)?,
            phase,
            reason: row.try_get(2)?,
            problem: row.try_get(3)?,
            rows: copied,
            removed: row.try_get(5)?,
            estimated_rows: estimated,
            rows_per_second: rate,
            eta_seconds: eta(phase, copied, estimated, rate),
            requested_at: row.try_get(8)?,
            finished_at: row.try_get(9)?,
        })
    };
    rows.iter().map(report).collect()
}

fn rate(rows: i64, busy_ms: i64) -> Option<f64> {
    (busy_ms > 0).then(|| rows as f64 * 1000.0 / busy_ms as f64)
}

fn eta(phase: Phase, rows: i64, estimated: Option<i64>, rate: Option<f64>) -> Option<f64> {
    let (estimated, rate) = (estimated?, rate.filter(|r| *r > 0.0)?);
    (phase == Phase::Copy).then(|| (estimated - rows).max(0) as f64 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_while_a_copy_runs_and_its_size_is_known() {
        assert_eq!(rate(500, 0), None);
        assert_eq!(eta(Phase::Copy, 250, Some(1000), rate(250, 500)), Some(1.5));
        assert_eq!(eta(Phase::Copy, 2000, Some(1000), rate(2000, 500)), Some(0.0), "an estimate may be low");
        assert_eq!(eta(Phase::Sweep, 1000, Some(1000), rate(1000, 500)), None);
        assert_eq!(eta(Phase::Copy, 250, None, rate(250, 500)), None);
    }
}
