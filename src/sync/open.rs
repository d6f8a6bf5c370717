//! How a drain begins: connects to both sides, creates what is missing on either, and reads what it has to know.

use super::alone::alone;
use super::beside::Beside;
use super::kept::Connected;
use super::lookout::Lookout;
use super::pairing::{self, foreign, keys, lacking};
use super::patience::answered;
use super::session::Session;
use super::tables::Tables;
use super::worker::Worker;
use crate::core::error::{Result, Side};
use crate::core::event::Event;
use crate::core::schema::Schema;
use crate::postgres::books::dead_letters::Supersedable;
use crate::postgres::books::rebuilds::Reason;
use crate::postgres::catalog::SourceTable;
use crate::postgres::drift;
use crate::postgres::link::{Known, Link};
use crate::replica::freshness::Feeds;
use crate::replica::inventory::Inventory;
use crate::replica::{Replica, address};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a connection that was kept may take for its first answer.
const SILENCE: Duration = Duration::from_secs(2);

impl<'a> Session<'a> {
    /// Connects to both sides and creates what is missing on either. All of it has a limit but the making of tables
    /// and indexes, which takes as long as they are large.
    pub(super) async fn open(worker: &'a Worker) -> Result<Self> {
        let BothSides { connected, replica, address, there } = answered(find(worker)).await?;
        let Connected { link, known, drift, since: connected_at, is_kept } = connected;
        let Known { fingerprint, schema, sources, definition_version } = known;
        complete(link.as_ref(), &replica, &there, &schema).await?;
        let is_keyed = keys::complete(link.as_ref(), &replica, &there, (&schema, &sources)).await?;
        let now = if is_keyed { &answered(replica.inventory()).await? } else { &there };
        replica.keep_feed_for(worker.feed_retention);
        answered(replica.prepare_feed(now, Feeds::Queue(worker.queue().as_str()), &schema)).await?;
        let drift = match drift {
            Some((then, drift)) if then == *now => drift,
            _ => answered(link.drift(Some(now))).await?,
        };
        drift::warn(&drift);
        answered(link.tell(&worker.told.new_drift(&drift))).await?;
        let mut tables = Tables::default();
        for source in sources.values().filter(|source| source.is_marked()) {
            tables.read(&source.table.name);
        }
        let lacking: Vec<(String, String)> = lacking::told(&sources).into_iter().collect();
        let before = worker.paused();
        let new = lacking.iter().filter(|(table, _)| !before.contains_key(table));
        let paused: Vec<Event> = new.map(|(table, problem)| Event::table_paused(table, problem)).collect();
        answered(link.tell(&paused)).await?;
        for (table, problem) in lacking {
            tables.pause(&table, &problem, Side::Source);
        }
        tables.create(there.lost_tables(&schema));
        Ok(Self {
            worker,
            link,
            connected_at,
            knows_the_past: is_kept,
            replica,
            address,
            has_moved: false,
            head: None,
            seen: Instant::now(),
            tables,
            dead_letters: Supersedable::default(),
            dead_letters_as_of: vec![0, 0],
            pending: Vec::new(),
            empty: Vec::new(),
            filled: BTreeSet::new(),
            queued: 0,
            beside: Arc::new(Beside::new(worker.source.as_ref())),
            ends_caught_up: worker.ends_caught_up,
            is_following: false,
            lookout: Lookout::default(),
            was_busy: false,
            notes: 0,
            compared: Vec::new(),
            healing: None,
            fingerprint,
            drift,
            drift_of: Some(now.clone()),
            definition_version,
            lacks_columns: there.lacks_columns(&schema),
            schema,
            sources,
            copied: BTreeMap::new(),
        })
    }
}

/// Both sides, as a drain finds them.
struct BothSides {
    connected: Connected,
    replica: Replica,
    address: String,
    there: Inventory,
}

/// With the connection of the last drain, or with a new one.
async fn find(worker: &Worker) -> Result<BothSides> {
    let kept = match worker.kept.take() {
        Some(kept) if serves(&kept).await => Some(kept),
        _ => None,
    };
    let Some(kept) = kept else {
        return find_by(worker, Connected::new(worker.source.as_ref()).await?).await;
    };
    let found = find_by(worker, kept).await?;
    let schema = &found.connected.known.schema;
    // What is made goes by what the catalog says now.
    if !found.replica.lacks(&found.there, schema)?.is_empty() || !found.there.lost_tables(schema).is_empty() {
        drop(found);
        return find_by(worker, Connected::new(worker.source.as_ref()).await?).await;
    }
    Ok(found)
}

/// Whether a connection that was kept answers, and nothing is missing beside the queue or somebody else's.
async fn serves(kept: &Connected) -> bool {
    let asked = async { kept.link.is_ensured().await };
    match tokio::time::timeout(SILENCE, asked).await {
        Ok(Ok(is_ensured)) => is_ensured,
        Ok(Err(e)) => {
            tracing::debug!(error = %e, "the connection of the last drain serves no more");
            false
        }
        Err(_) => {
            tracing::debug!("the connection of the last drain does not answer");
            false
        }
    }
}

async fn find_by(worker: &Worker, connected: Connected) -> Result<BothSides> {
    let Connected { link, known, .. } = &connected;
    let address = address::of(&worker.target);
    if worker.target.is_missing() {
        pairing::look(&link.look().await?, &address, None).await?;
    }
    let replica = Replica::open(&worker.target).await?;
    let there = replica.inventory().await?;
    // In this order: what is acknowledged is in the replica already.
    pairing::look(&link.look().await?, &address, Some((&replica, &there))).await?;
    foreign::refuse(worker, &replica, &there, &known.schema).await?;
    schedule_lost(link.as_ref(), &there.lost_tables(&known.schema), &known.sources).await?;
    Ok(BothSides { connected, replica, address, there })
}

/// Makes what the replica lacks, under the single flight: an index of a large table takes long, and a server takes a
/// transaction away that another one waits for.
async fn complete(link: &dyn Link, replica: &Replica, there: &Inventory, schema: &Schema) -> Result<()> {
    if replica.lacks(there, schema)?.is_empty() {
        return replica.complete(there, schema).await;
    }
    alone(link, replica.prepare(schema)).await?;
    Ok(())
}

/// Tables that somebody dropped in the replica: before they are made again, and look as if nothing were
/// missing, their copy is asked for.
async fn schedule_lost(
    link: &dyn Link,
    lost: &BTreeSet<String>,
    sources: &BTreeMap<String, SourceTable>,
) -> Result<()> {
    if lost.is_empty() {
        return Ok(());
    }
    let kept = link.recorded_definitions().await?;
    let is_copied = |name: &&String| sources.get(*name).is_some_and(SourceTable::can_be_copied);
    let names: Vec<&str> = lost.intersection(&kept).filter(is_copied).map(String::as_str).collect();
    if !names.is_empty() {
        link.schedule(&names, Reason::Evolve).await?;
    }
    Ok(())
}
