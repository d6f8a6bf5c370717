//! All SQL of `pgflume.verified`: how far the partial checks of each table have come, and since when every
//! row of it has been compared. Takes a client; knows nothing of rows or of the replica.

use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::postgres::Client;
use serde::Serialize;
use tokio_postgres::types::Type;

/// What a check does with a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// The source's rows are looked for in the replica.
    #[default]
    Compare,
    /// The replica's keys are looked for in the source.
    Sweep,
    /// Both were done.
    Done,
}

/// A table's check that goes through it in parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// What is being done.
    pub phase: Phase,
    /// The key up to which the phase is done; `None`: from the start.
    pub cursor: Option<Vec<String>>,
    /// Rows compared in it.
    pub rows: i64,
    /// Rows that differed in it.
    pub different: i64,
}

/// Since when a table is known to be what it should, for `status`.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    /// The table's name in `schema.json`.
    #[serde(skip)]
    pub name: String,
    /// Every row was compared within so many seconds; absent before the first whole pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_row_within_seconds: Option<f64>,
    /// Rows that the last whole pass compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_rows: Option<i64>,
    /// Rows that differed in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_different: Option<i64>,
    /// Rows compared in the pass under way.
    pub rows: i64,
    /// Rows that differed in it.
    pub different: i64,
}

/// The pass under way of one table; a new one if there is none, or if it was ordered by another key.
pub async fn load(client: &Client, queue: &QueueName, name: &str, ordering: &str) -> Result<Pass> {
    let sql = "select phase = 'sweep', cursor, rows, different from pgflume.verified
               where queue = $1 and name = $2 and ordered_by = $3";
    let parameters = [(&queue.as_str() as _, Type::TEXT), (&name as _, Type::TEXT), (&ordering as _, Type::TEXT)];
    let rows = client.query_typed(sql, &parameters).await?;
    let Some(row) = rows.first() else { return Ok(Pass::default()) };
    Ok(Pass {
        phase: if row.try_get(0)? { Phase::Sweep } else { Phase::Compare },
        cursor: row.try_get(1)?,
        rows: row.try_get(2)?,
        different: row.try_get(3)?,
    })
}

/// Records how far a pass has come.
pub async fn save(client: &Client, queue: &QueueName, name: &str, pass: &Pass, ordering: &str) -> Result<()> {
    let sql = "insert into pgflume.verified as v (queue, name, phase, cursor, rows, different, ordered_by)
               values ($1, $2, $3, $4, $5, $6, $7)
               on conflict (queue, name) do update set phase = excluded.phase, cursor = excluded.cursor,
                   ordered_by = excluded.ordered_by,
                   rows = excluded.rows, different = excluded.different,
                   started_at = case when v.rows = 0 and v.cursor is null and v.phase = 'compare' then pg_catalog.now() else v.started_at end";
    let phase = if pass.phase == Phase::Compare { "compare" } else { "sweep" };
    let parameters = [
        (&queue.as_str() as _, Type::TEXT),
        (&name as _, Type::TEXT),
        (&phase as _, Type::TEXT),
        (&pass.cursor as _, Type::TEXT_ARRAY),
        (&pass.rows as _, Type::INT8),
        (&pass.different as _, Type::INT8),
        (&ordering as _, Type::TEXT),
    ];
    client.execute_typed(sql, &parameters).await?;
    Ok(())
}

/// Records that a pass that began `seconds` ago went through the whole table.
pub async fn finish(client: &Client, queue: &QueueName, name: &str, pass: &Pass, seconds: Option<f64>) -> Result<()> {
    let sql =
        "insert into pgflume.verified as v (queue, name, last_started_at, last_finished_at, last_rows, last_different)
               values ($1, $2, pg_catalog.clock_timestamp() - coalesce($5, 0) * interval '1 s', pg_catalog.clock_timestamp(), $3, $4)
               on conflict (queue, name) do update set phase = 'compare', cursor = null, rows = 0, different = 0,
                   last_started_at = case when $5 is null then v.started_at else excluded.last_started_at end,
                   last_finished_at = excluded.last_finished_at, last_rows = excluded.last_rows,
                   last_different = excluded.last_different, started_at = pg_catalog.clock_timestamp()";
    let parameters = [
        (&queue.as_str() as _, Type::TEXT),
        (&name as _, Type::TEXT),
        (&pass.rows as _, Type::INT8),
        (&pass.different as _, Type::INT8),
        (&seconds as _, Type::FLOAT8),
    ];
    client.execute_typed(sql, &parameters).await?;
    Ok(())
}

/// Every table that was ever checked.
pub async fn coverage(client: &Client, queue: &QueueName) -> Result<Vec<Coverage>> {
    let sql = "select name, extract(epoch from pg_catalog.clock_timestamp() - last_started_at)::pg_catalog.float8, last_rows, last_different,
                      rows, different
               from pgflume.verified where queue = $1 order by name";
    let rows = client.query_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?;
    let coverage = |row: &tokio_postgres::Row| {
        Ok(Coverage {
            name: row.try_get(0)?,
            every_row_within_seconds: row.try_get(1)?,
            last_rows: row.try_get(2)?,
            last_different: row.try_get(3)?,
            rows: row.try_get(4)?,
            different: row.try_get(5)?,
        })
    };
    rows.iter().map(coverage).collect()
}
