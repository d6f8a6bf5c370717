//! How things stand: queue, lag, last sync, tables, dead letters, replica. Takes a worker, asks both
//! sides, changes nothing. No keys and no row values.

use crate::core::error::{Error, Result};
use crate::core::position::Head;
use crate::core::value::Cell;
use crate::operate::feed::{FedSync, FeedState};
use crate::postgres::bell::{self, Wakeup};
use crate::postgres::books::progress::LastSync;
use crate::postgres::books::queue_health::QueueHealth;
use crate::postgres::books::rebuilds::Phase;
use crate::postgres::books::{comparisons, progress, queue_health, rebuilds};
use crate::postgres::catalog::Access;
use crate::postgres::drift::Drift;
use crate::postgres::{Client, Purpose, catalog, drift, queue};
use crate::replica::inventory::Inventory;
use crate::replica::target::Target;
use crate::replica::{Replica, address};
use crate::sync::{Worker, circuit, pairing};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A queue whose oldest message is older than this is not ready, where nothing else is asked for: three runs of the
/// default cron job.
pub(crate) const USUAL_LAG: Duration = Duration::from_secs(15 * 60);

/// The same where changes are applied as they come.
pub(crate) const FOLLOWED_LAG: Duration = Duration::from_secs(30);

/// Reasons of a copy that say that the replica lacks something meanwhile.
const HEALED: [&str; 4] = ["behind", "other_replica", "other_source", "messages_removed"];

/// Time for each side to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What `pgflume status --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The queue's name.
    pub queue: String,
    /// Messages on it, hidden ones included.
    pub queued: i64,
    /// Whether that is an estimate of many, for who looks every few seconds.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub queued_is_estimate: bool,
    /// Age of the oldest message in seconds.
    pub lag_seconds: Option<f64>,
    /// Dead letters.
    pub dead: i64,
    /// What was last acknowledged.
    pub last_sync: LastSync,
    /// The replica, or why it does not answer.
    pub replica: ReplicaStatus,
    /// How the queue's table bears up.
    pub queue_health: QueueHealth,
    /// How a follower hears of what comes.
    pub wakeup: Wakeup,
    /// Each table of `schema.json`.
    pub tables: BTreeMap<String, TableStatus>,
    /// What is no longer as it was set up, each with its remedy.
    pub drift: Vec<Drift>,
    /// How the tables stand that clients are fed; nothing where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed: Option<FeedState>,
    /// Whether `serve` refuses calls because a side is down; only it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit: Option<circuit::CircuitReport>,
}

/// The replica's side.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReplicaStatus {
    /// Batches applied in its epoch.
    pub seq: Option<i64>,
    /// Its epoch.
    pub epoch: Option<String>,
    /// The source's time up to which it is complete.
    pub caught_up_at: Option<String>,
    /// When it last applied a batch.
    pub applied_at: Option<String>,
    /// Why it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One table.
#[derive(Debug, Clone, Serialize)]
pub struct TableStatus {
    /// Whether `setup`'s triggers mark its changes.
    pub captured: bool,
    /// Why its marks would wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How far its rebuild is or was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resync: Option<rebuilds::RebuildReport>,
    /// Since when `verify` has compared every row of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<comparisons::Coverage>,
}

/// Asks both sides, and counts the queue.
pub async fn status(worker: &Worker) -> Result<Status> {
    of_replica_too(worker, Depth::Counted).await
}

/// The same for who asks every few seconds: a long queue is not counted.
pub(crate) async fn at_a_glance(worker: &Worker) -> Result<Status> {
    of_replica_too(worker, Depth::About).await
}

/// How exactly the messages are to be counted.
#[derive(Clone, Copy)]
enum Depth {
    Counted,
    About,
}

async fn of_replica_too(worker: &Worker, depth: Depth) -> Result<Status> {
    let there = within(opened(worker)).await.ok().map(|opened| opened.map(|(_, there)| there).unwrap_or_default());
    let replica = within(replica(worker))
        .await
        .unwrap_or_else(|e| ReplicaStatus { error: Some(e.to_string()), ..ReplicaStatus::default() });
    let feed = match FedSync::of_queue(worker) {
        // Where the replica does not answer, that is said.
        Some(fed) if replica.error.is_none() => fed.state().await.ok(),
        _ => None,
    };
    Ok(Status { replica, feed, ..within(of_both(worker, there.as_ref(), depth)).await? })
}

/// Asks Postgres only, at a glance; what the replica has is left out.
pub(crate) async fn of_source(worker: &Worker) -> Result<Status> {
    within(of_both(worker, None, Depth::About)).await
}

async fn of_both(worker: &Worker, there: Option<&Inventory>, depth: Depth) -> Result<Status> {
    let client = worker.postgres().pinned(Purpose::Status).await?;
    let queue = worker.queue();
    progress::ensure(&client, queue).await?;
    let sources = catalog::read(&client, worker.schema(), queue).await?.tables;
    let mut rebuilt: BTreeMap<String, rebuilds::RebuildReport> =
        rebuilds::reports(&client, queue).await?.into_iter().map(|r| (r.name.clone(), r)).collect();
    let mut coverage: BTreeMap<String, comparisons::Coverage> =
        comparisons::coverage(&client, queue).await?.into_iter().map(|c| (c.name.clone(), c)).collect();
    let tables = sources.into_iter().map(|(name, source)| {
        let problem = source.access.problem(&source.table);
        let (resync, comparisons) = (rebuilt.remove(&name), coverage.remove(&name));
        (name, TableStatus { captured: source.captured, problem, resync, verified: comparisons })
    });
    let queue_health = queue_health::read(&client, queue).await?;
    let (queued, is_counted) = match depth {
        Depth::Counted => (queue::depth(&client, queue).await?, true),
        Depth::About => queue::depth_about(&client, queue, queue_health.live_tuples).await?,
    };
    Ok(Status {
        drift: drift::check(&client, queue, worker.schema(), there).await?,
        queue: queue.as_str().to_owned(),
        queued,
        queued_is_estimate: !is_counted,
        lag_seconds: queue::oldest_seconds(&client, queue).await?,
        dead: queue::dead_depth(&client, queue).await?,
        last_sync: progress::last_sync(&client, queue).await?,
        queue_health,
        wakeup: bell::status(&client, queue).await?,
        replica: ReplicaStatus::default(),
        tables: tables.collect(),
        feed: None,
        circuit: None,
    })
}

/// Whether Postgres answers at all.
pub(crate) async fn source_answers(worker: &Worker) -> bool {
    let asked = async {
        let client = worker.postgres().pinned(Purpose::Status).await?;
        client.query_typed_one("select 1", &[]).await?;
        Ok(())
    };
    within(asked).await.is_ok()
}

/// How often a replica is asked whether it answers, at most: hosted ones bill requests.
pub(crate) fn asked_every(target: &Target) -> Duration {
    if matches!(target, Target::Remote { .. }) { Duration::from_secs(60) } else { Duration::from_secs(5) }
}

/// Whether the replica answers; one whose file is not there yet has nothing to say.
pub(crate) async fn target_answers(target: &Target) -> bool {
    let asked = async {
        match Replica::existing(target).await? {
            Some(replica) => replica.ping().await,
            None => Ok(()),
        }
    };
    within(asked).await.is_ok()
}

/// The replica and what it has, by a plain read: who only looks changes nothing, and makes no file.
async fn opened(worker: &Worker) -> Result<Option<(Replica, Inventory)>> {
    let Some(replica) = Replica::existing(worker.target()).await? else { return Ok(None) };
    let there = replica.inventory_read().await?;
    Ok(Some((replica, there)))
}

async fn replica(worker: &Worker) -> Result<ReplicaStatus> {
    let Some((replica, there)) = opened(worker).await? else { return Ok(ReplicaStatus::default()) };
    if !there.has_bookkeeping() {
        return Ok(ReplicaStatus::default());
    }
    let head: Option<Head> = replica.head().await?;
    let rows = replica.freshness().await?;
    let text = |i: usize| match rows.first().and_then(|row| row.get(i)) {
        Some(Cell::Text(text)) => Some(text.clone()),
        _ => None,
    };
    Ok(ReplicaStatus {
        seq: head.as_ref().map(|h| h.seq),
        epoch: head.map(|h| h.epoch),
        caught_up_at: text(0),
        applied_at: text(1),
        error: None,
    })
}

/// What keeps the worker from doing its job, by part; empty if it is ready.
pub async fn unready(worker: &Worker) -> BTreeMap<&'static str, String> {
    unready_after(worker, USUAL_LAG).await
}

/// The same where the oldest message may be so old.
pub(crate) async fn unready_after(worker: &Worker, most_lag: Duration) -> BTreeMap<&'static str, String> {
    let mut reasons = BTreeMap::new();
    let circuit = worker.circuit().report();
    let seen = async { if circuit.is_open() { None } else { Some(within(opened(worker)).await) } };
    let (client, seen) = tokio::join!(within(worker.postgres().pinned(Purpose::Ready)), seen);
    let source = match client {
        Ok(client) => {
            let seen = seen.as_ref().and_then(|seen| seen.as_ref().ok());
            within(source_reasons(worker, client, seen, most_lag)).await
        }
        Err(e) => Err(e),
    };
    match source {
        Ok(found) => reasons.extend(found),
        Err(e) => {
            reasons.insert("source", e.to_string());
        }
    }
    let target = match seen {
        None => {
            reasons.insert("circuit", circuit.to_string());
            Ok(())
        }
        Some(Ok(Some((_, there)))) => there.check(worker.schema()),
        Some(Ok(None)) => Ok(()),
        Some(Err(e)) => Err(e),
    };
    if let Err(e) = target {
        reasons.insert("target", e.to_string());
    }
    let paused = worker.paused().into_iter().next();
    reasons.extend(paused.map(|(table, problem)| ("table", format!("changes of {table} wait: {problem}"))));
    reasons.extend(worker.failure().map(|failure| ("drain", format!("the last drain failed: {failure}"))));
    reasons
}

async fn source_reasons(
    worker: &Worker,
    client: Client,
    seen: Option<&Option<(Replica, Inventory)>>,
    most_lag: Duration,
) -> Result<BTreeMap<&'static str, String>> {
    let mut reasons = BTreeMap::new();
    progress::ensure(&client, worker.queue()).await?;
    let sources = catalog::read(&client, worker.schema(), worker.queue()).await?.tables;
    if let Some(seen) = seen {
        let (replica, address) = (seen.as_ref().map(|(r, there)| (r, there)), address::of(worker.target()));
        let looked = match progress::look(&client, worker.queue()).await {
            Ok(snapshot) => pairing::look(&snapshot, &address, replica).await,
            Err(e) => Err(e),
        };
        match looked {
            Ok(None) => {}
            Ok(Some(divergence)) => drop(reasons.insert("target", format!("{divergence}; the next drain heals it"))),
            Err(e) => drop(reasons.insert("target", e.to_string())),
        }
    }
    let unfit = sources.values().find(|s| s.captured && s.access != Access::Readable);
    if let Some(problem) = unfit.and_then(|s| s.access.problem(&s.table)) {
        reasons.insert("schema", problem);
    } else {
        let there = seen.and_then(|seen| seen.as_ref().map(|(_, there)| there));
        let drift = drift::check(&client, worker.queue(), worker.schema(), there).await?;
        reasons.extend(drift.iter().find(|d| d.kind.is_fault()).map(|d| ("schema", d.line())));
    }
    let waiting = rebuilds::reports(&client, worker.queue()).await?;
    if let Some((report, problem)) = waiting.iter().find_map(|r| Some((r, r.problem.as_ref()?))) {
        reasons.insert("resync", format!("{} cannot be rebuilt: {problem}", report.name));
    } else if let Some(report) = waiting.iter().find(|r| r.phase != Phase::Done && HEALED.contains(&r.reason.as_str()))
    {
        let (name, reason) = (&report.name, &report.reason);
        reasons.insert("resync", format!("the two sides had diverged ({reason}), and {name} is still being copied"));
    }
    let lag = queue::oldest_seconds(&client, worker.queue()).await?;
    if lag.is_some_and(|seconds| seconds > most_lag.as_secs_f64()) {
        reasons.insert(
            "lag",
            format!(
                "the oldest message is older than {} s: is /sync called, or does the worker follow, and does it succeed?",
                most_lag.as_secs()
            ),
        );
    }
    Ok(reasons)
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(ANSWER_TIMEOUT, work)
        .await
        .unwrap_or_else(|_| Err(Error::retry(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))))
}
