//! How a sync stands: asks both sides, changes nothing. No keys and no row values.

use super::settings::Pull;
use super::times;
use crate::core::error::{Error, Result};
use crate::provider::{Described, Description, Promise};
use crate::replica::Replica;
use crate::replica::pulls::Pull as Standing;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Time for each side to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What `pgflume status` shows of a sync that pulls.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PullStatus {
    /// The source's clock when all of its tables last equalled the source.
    pub caught_up_at: Option<String>,
    /// How long ago that was, in seconds, by this machine's clock.
    pub lag_seconds: Option<f64>,
    /// What a pass promises, of the table of which it promises least; `None` where the source does not answer.
    pub promise: Option<String>,
    /// How changed rows are found, where there are several ways, and why not by a better one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found_by: Option<String>,
    /// Rows that cannot be taken over.
    pub dead: u64,
    /// Each table.
    pub tables: BTreeMap<String, TableStatus>,
    /// Why the source does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_error: Option<String>,
    /// Why the replica does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_error: Option<String>,
}

/// One of its tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TableStatus {
    /// `new`, `copying`, `reading`, `following`, `kept` (the source no longer has it) or `waiting` (see the problem).
    pub state: &'static str,
    /// Rows that it has, as last counted.
    pub rows: Option<i64>,
    /// What a pass promises.
    pub promise: Option<String>,
    /// When all of its rows were last compared, by the replica's clock.
    pub compared_at: Option<String>,
    /// Why it is not read, with the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl PullStatus {
    /// Whether both sides answer.
    pub fn answers(&self) -> bool {
        self.source_error.is_none() && self.replica_error.is_none()
    }
}

impl Pull {
    /// Asks both sides.
    pub async fn status(&self) -> PullStatus {
        let (described, standing) = futures_util::join!(within(self.described()), within(self.standing()));
        let mut status = PullStatus {
            source_error: described.as_ref().err().map(ToString::to_string),
            replica_error: standing.as_ref().err().map(ToString::to_string),
            ..PullStatus::default()
        };
        let described = described.ok();
        status.found_by = described.as_ref().and_then(|described| described.found_by.clone());
        let described = described.as_ref().map(|described| &described.tables);
        if let Ok(Some(standing)) = &standing {
            status.caught_up_at.clone_from(&standing.caught_up_at);
            status.lag_seconds = standing.caught_up_at.as_deref().and_then(seconds_since);
            status.dead = standing.dead.values().map(|keys| keys.len() as u64).sum();
        }
        let standing = standing.ok().flatten();
        let known = standing.iter().flat_map(|standing| standing.tables.keys());
        for name in known.chain(described.iter().flat_map(|tables| tables.keys())) {
            let table = described.as_ref().map(|tables| tables.get(name));
            status.tables.insert(name.clone(), table_status(name, table, standing.as_ref()));
        }
        let promises = described.iter().flat_map(|tables| tables.values()).map(|table| &table.promise);
        status.promise = Promise::weakest(promises).map(ToString::to_string);
        status
    }

    async fn described(&self) -> Result<Arc<Description>> {
        self.provider.open().await?.describe().await
    }

    async fn standing(&self) -> Result<Option<Standing>> {
        let Some(replica) = Replica::existing(&self.target).await? else { return Ok(None) };
        if !replica.inventory_read().await?.has_pulls() {
            return Ok(None);
        }
        replica.pull(&self.name).await
    }
}

fn table_status(name: &str, described: Option<Option<&Described>>, standing: Option<&Standing>) -> TableStatus {
    let kept = standing.and_then(|standing| standing.tables.get(name)).cloned().unwrap_or_default();
    let problem = described.flatten().and_then(|table| table.problem.clone()).or_else(|| kept.problem.clone());
    let state = match described {
        Some(None) => "kept",
        _ if problem.is_some() => "waiting",
        _ => kept.state(),
    };
    TableStatus {
        state,
        rows: kept.rows,
        promise: described.flatten().map(|table| table.promise.to_string()),
        compared_at: standing.and_then(|standing| standing.compared.get(name)).cloned(),
        problem,
    }
}

/// Seconds since a time of a source, in UTC.
fn seconds_since(text: &str) -> Option<f64> {
    let at = times::read(text)?;
    Some(SystemTime::now().duration_since(at).unwrap_or_default().as_secs_f64())
}

async fn within<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::retry(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| Err(late()))
}
