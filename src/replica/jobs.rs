//! Jobs: wishes to run a sync, and their record, in the replica that the sync writes. Whether a sync is right never depends
//! on one: it only says when, and that it was done. A job ends in the transaction of the pass's last batch.

use super::Replica;
use super::store::{Statement, Work};
use crate::core::error::{Error, ErrorKind, Result};
use crate::core::schema::literal;
use crate::core::value::Cell;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// Makes the table.
pub(super) const CREATE: &str = "CREATE TABLE IF NOT EXISTS _pgflume_jobs (id TEXT PRIMARY KEY, sync_id TEXT NOT NULL, \
     team_id TEXT, provider TEXT NOT NULL, status TEXT NOT NULL, payload TEXT, error TEXT, retry_count INTEGER NOT NULL, \
     created_at TEXT NOT NULL, updated_at TEXT NOT NULL, started_at TEXT, finished_at TEXT, not_before TEXT, \
     leased_until TEXT, worker TEXT)";

/// How long a worker has a job without a sign of life: each batch renews it.
const LEASE_SECONDS: u32 = 60;

/// How often a job is asked for that somebody takes before it can be read.
const TRIES: u32 = 10;

/// Jobs that are kept.
const KEPT: i64 = 1_000;

const NOW: &str = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";

const COLUMNS: &str = "id, sync_id, team_id, provider, status, payload, error, retry_count, created_at, updated_at, started_at, finished_at";

/// One job, as `GET /jobs` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// The sync.
    pub sync_id: String,
    /// A label of whoever asked.
    pub team_id: Option<String>,
    /// What kind of source the sync reads.
    pub provider: String,
    /// `pending`, `processing`, `completed` or `failed`.
    pub status: String,
    /// What asked for it.
    pub payload: Option<Value>,
    /// Why its last try failed.
    pub error: Option<String>,
    /// Tries that failed.
    pub retry_count: i64,
    /// Times by the replica's clock.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
    /// When a worker first took it.
    pub started_at: Option<String>,
    /// When it was completed or failed for good.
    pub finished_at: Option<String>,
}

/// A job that a worker has: its id, and the worker's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// The job.
    pub id: String,
    /// Who has it.
    pub worker: String,
    /// Tries that failed before.
    pub retry_count: i64,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// The id of the new job.
    pub id: &'a str,
    /// The sync.
    pub sync: &'a str,
    /// A label.
    pub team: Option<&'a str>,
    /// What kind of source the sync reads.
    pub provider: &'a str,
    /// What asks.
    pub payload: &'a Value,
}

impl Replica {
    /// The job that is pending for the sync, and whether it is a new one.
    pub async fn add_job(&self, wish: &Wish<'_>) -> Result<(Job, bool)> {
        let insert = format!(
            "INSERT INTO _pgflume_jobs (id, sync_id, team_id, provider, status, payload, retry_count, created_at, updated_at) \
             SELECT ?1, ?2, ?3, ?4, 'pending', ?5, 0, {NOW}, {NOW} \
             WHERE NOT EXISTS (SELECT 1 FROM _pgflume_jobs WHERE sync_id = ?2 AND status = 'pending')"
        );
        let args = vec![
            text(wish.id),
            text(wish.sync),
            wish.team.map_or(Cell::Null, text),
            text(wish.provider),
            Cell::Text(wish.payload.to_string()),
        ];
        let prune = format!(
            "DELETE FROM _pgflume_jobs WHERE status IN ('completed', 'failed') AND id NOT IN (SELECT id FROM _pgflume_jobs ORDER BY created_at DESC, id LIMIT {KEPT})"
        );
        let before = vec![CREATE.to_owned().into(), Statement::new(insert, args), prune.into()];
        let work = Work { before, ..Work::default() };
        let pending = format!("SELECT {COLUMNS} FROM _pgflume_jobs WHERE sync_id = ?1 AND status = 'pending'");
        for _ in 0..TRIES {
            self.store.write(work.clone()).await?;
            // A worker may have taken it already.
            if let Some(job) = self.job(wish.id).await? {
                return Ok((job, true));
            }
            if let Some(row) = self.query(pending.clone(), vec![text(wish.sync)]).await?.into_iter().next() {
                return Ok((job(row)?, false));
            }
            // The one that was pending has been taken meanwhile: what is asked for now is another.
        }
        Err(Error::retry("jobs of this sync are taken as fast as they come; try again"))
    }

    /// Jobs, newest first.
    pub async fn jobs(&self, limit: i64) -> Result<Vec<Job>> {
        if !self.has_jobs().await? {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT {COLUMNS} FROM _pgflume_jobs ORDER BY created_at DESC, id LIMIT ?1");
        self.query(sql, vec![Cell::Integer(limit)]).await?.into_iter().map(job).collect()
    }

    /// One job.
    pub async fn job(&self, id: &str) -> Result<Option<Job>> {
        if !self.has_jobs().await? {
            return Ok(None);
        }
        let sql = format!("SELECT {COLUMNS} FROM _pgflume_jobs WHERE id = ?1");
        self.query(sql, vec![text(id)]).await?.into_iter().next().map(job).transpose()
    }

    async fn has_jobs(&self) -> Result<bool> {
        let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_pgflume_jobs'";
        Ok(!self.query(sql, Vec::new()).await?.is_empty())
    }

    /// Takes the job that is due for a sync: a pending one, or one whose worker has given no sign of life.
    pub async fn lease_job(&self, sync: &str, worker: &str) -> Result<Option<Leased>> {
        let due = format!(
            "(status = 'pending' AND coalesce(not_before, '') <= {NOW} OR status = 'processing' AND coalesce(leased_until, '') <= {NOW})"
        );
        if !self.has_jobs().await? {
            return Ok(None);
        }
        let sql = format!("SELECT 1 FROM _pgflume_jobs WHERE sync_id = ?1 AND {due} LIMIT 1");
        if self.query(sql, vec![text(sync)]).await?.is_empty() {
            return Ok(None);
        }
        let take = format!(
            "UPDATE _pgflume_jobs SET status = 'processing', worker = ?2, started_at = coalesce(started_at, {NOW}), \
             updated_at = {NOW}, leased_until = {} WHERE id = (SELECT id FROM _pgflume_jobs WHERE sync_id = ?1 AND {due} \
             ORDER BY created_at, id LIMIT 1) AND NOT EXISTS (SELECT 1 FROM _pgflume_jobs WHERE sync_id = ?1 \
             AND status = 'processing' AND leased_until > {NOW})",
            leased_until()
        );
        let before = vec![Statement::new(take, vec![text(sync), text(worker)])];
        self.store.write(Work { before, ..Work::default() }).await?;
        let sql =
            "SELECT id, retry_count FROM _pgflume_jobs WHERE sync_id = ?1 AND status = 'processing' AND worker = ?2";
        match self.query(sql, vec![text(sync), text(worker)]).await?.first().map(Vec::as_slice) {
            Some([Cell::Text(id), Cell::Integer(retry_count)]) => {
                Ok(Some(Leased { id: id.clone(), worker: worker.to_owned(), retry_count: *retry_count }))
            }
            _ => Ok(None),
        }
    }

    /// The record of a request as a job that is completed: its id cannot be used again. Statements of its transaction.
    pub(crate) fn record_of(sync: &str, id: &str, verb: &str) -> [String; 2] {
        let (id, sync, verb) = (literal(id), literal(sync), literal(&serde_json::json!({ "type": verb }).to_string()));
        let insert = format!(
            "INSERT INTO _pgflume_jobs (id, sync_id, provider, status, payload, retry_count, created_at, updated_at, started_at, finished_at) \
             VALUES ({id}, {sync}, 'postgres', 'completed', {verb}, 0, {NOW}, {NOW}, {NOW}, {NOW})"
        );
        [CREATE.to_owned(), insert]
    }

    /// A try has failed: the job is pending again after a rest, or failed for good.
    pub async fn fail_job(&self, leased: &Leased, error: &str, rest: Option<Duration>) -> Result<()> {
        let (status, not_before) = match rest {
            Some(_) => ("'pending'", "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+' || ?4 || ' seconds')"),
            None => ("'failed'", "NULL"),
        };
        let finished = if rest.is_none() { NOW } else { "NULL" };
        let sql = format!(
            "UPDATE _pgflume_jobs SET status = {status}, error = ?3, retry_count = retry_count + 1, worker = NULL, \
             leased_until = NULL, not_before = {not_before}, updated_at = {NOW}, finished_at = {finished} \
             WHERE id = ?1 AND worker = ?2 AND status = 'processing'"
        );
        let mut args = vec![text(&leased.id), text(&leased.worker), text(error)];
        args.extend(rest.map(|rest| Cell::Real(rest.as_secs_f64())));
        self.store.write(Work { before: vec![Statement::new(sql, args)], ..Work::default() }).await
    }
}

fn leased_until() -> String {
    format!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+{LEASE_SECONDS} seconds')")
}

/// What a batch does to the job that it is for: a sign of life, or its end.
pub(super) fn of_batch(leased: &Leased, is_done: bool) -> Statement {
    let sql = match is_done {
        true => format!(
            "UPDATE _pgflume_jobs SET status = 'completed', error = NULL, leased_until = NULL, updated_at = {NOW}, finished_at = {NOW} \
             WHERE id = ?1 AND worker = ?2 AND status = 'processing'"
        ),
        false => format!(
            "UPDATE _pgflume_jobs SET leased_until = {}, updated_at = {NOW} WHERE id = ?1 AND worker = ?2 AND status = 'processing'",
            leased_until()
        ),
    };
    Statement::new(sql, vec![text(&leased.id), text(&leased.worker)])
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

fn job(row: Vec<Cell>) -> Result<Job> {
    let damaged =
        || Error::new(ErrorKind::Halt, "the replica's table _pgflume_jobs is damaged: drop it, and jobs are kept anew");
    let mut cells = row.into_iter();
    let mut optional = || match cells.next() {
        Some(Cell::Text(text)) => Ok(Some(text)),
        Some(Cell::Null) => Ok(None),
        Some(Cell::Integer(number)) => Ok(Some(number.to_string())),
        _ => Err(damaged()),
    };
    let mut all = Vec::new();
    for _ in 0..12 {
        all.push(optional()?);
    }
    let [
        id,
        sync_id,
        team_id,
        provider,
        status,
        payload,
        error,
        retries,
        created_at,
        updated_at,
        started_at,
        finished_at,
    ] = <[Option<String>; 12]>::try_from(all).map_err(|_| damaged())?;
    Ok(Job {
        id: id.ok_or_else(damaged)?,
        sync_id: sync_id.ok_or_else(damaged)?,
        team_id,
        provider: provider.ok_or_else(damaged)?,
        status: status.ok_or_else(damaged)?,
        payload: payload.and_then(|payload| serde_json::from_str(&payload).ok()),
        error,
        retry_count: retries.and_then(|retries| retries.parse().ok()).ok_or_else(damaged)?,
        created_at: created_at.ok_or_else(damaged)?,
        updated_at: updated_at.ok_or_else(damaged)?,
        started_at,
        finished_at,
    })
}
