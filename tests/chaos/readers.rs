//! Readers of the replica: they look at every table all the time, past the proxy, and judge what they see.

use crate::judge::Judge;
use crate::stage::{Failure, Stage};
use pgflume::core::value::Cell;
use pgflume::replica::{Statement, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// A table, and its key as one text.
pub const TABLES: [(&str, &str); 9] = [
    ("accounts", "id"),
    ("documents", "name"),
    ("items", "region || '|' || number"),
    ("lines", "id"),
    ("slots", "id"),
    ("events", "id || '|' || kind"),
    ("counters", "id"),
    ("shown", "id"),
    ("loads", "id"),
];

pub const READERS: usize = 2;
const PAUSE: Duration = Duration::from_millis(10);
/// A server that is down or hangs is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// What readers were shown: table, key, version.
pub type Shown = Vec<(&'static str, String, i64)>;

/// All readers of a run.
pub struct Readers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Shown>,
}

impl Readers {
    pub fn start(stage: &Arc<Stage>) -> Self {
        let mut readers = Self { stop: Arc::default(), tasks: JoinSet::new() };
        for _ in 0..READERS {
            readers.tasks.spawn(read(stage.clone(), readers.stop.clone()));
        }
        readers
    }

    /// Ends them, each after a last look at everything.
    pub async fn end(mut self) -> Shown {
        self.stop.store(true, Ordering::Relaxed);
        let mut shown = Shown::new();
        while let Some(theirs) = self.tasks.join_next().await {
            shown.extend(theirs.unwrap_or_default());
        }
        shown.sort_unstable();
        shown.dedup();
        shown
    }
}

async fn read(stage: Arc<Stage>, stop: Arc<AtomicBool>) -> Shown {
    let mut judges = TABLES.map(|(table, key)| (Judge::new(table), table, select(table, key)));
    let (mut store, mut era) = (None, stage.era.number());
    loop {
        if stage.era.is_closed() {
            store = None;
            stage.era.park().await;
        }
        if stage.era.number() != era {
            era = stage.era.number();
            judges.iter_mut().for_each(|(judge, ..)| judge.begin_era());
        }
        let is_last = stop.load(Ordering::Relaxed);
        if store.is_none() {
            store = stage.replica().await.ok();
        }
        for (judge, _, sql) in &mut judges {
            // Before the first drain there is no table; a server may be down.
            let Some(store) = &store else { break };
            let Ok((epoch, rows)) = look(store.as_ref(), sql).await else { continue };
            stage.tally.read(rows.len());
            judge.look(&epoch, rows).into_iter().for_each(|violation| stage.tally.violation(violation));
        }
        if is_last {
            let shown = |(judge, table, _): (Judge, &'static str, String)| {
                judge.shown().into_iter().map(move |(key, version)| (table, key, version))
            };
            return judges.into_iter().flat_map(shown).collect();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One statement, one state: the epoch and all rows.
fn select(table: &str, key: &str) -> String {
    format!("SELECT epoch, NULL FROM _pgflume_head UNION ALL SELECT CAST({key} AS TEXT), version FROM {table}")
}

async fn look(store: &dyn Store, sql: &str) -> Result<(String, Vec<(String, i64)>), Failure> {
    let rows = tokio::time::timeout(PATIENCE, store.read(Statement::new(sql, Vec::new()))).await??;
    let mut rows = rows.into_iter();
    let Some([Cell::Text(epoch), Cell::Null]) = rows.next().map(<[Cell; 2]>::try_from).transpose().unwrap_or(None)
    else {
        return Err("no epoch yet".into());
    };
    let versions = rows.map(|row| match &row[..] {
        [Cell::Text(key), Cell::Integer(version)] => Ok((key.clone(), *version)),
        other => Err(format!("a row without key or version: {other:?}")),
    });
    Ok((epoch, versions.collect::<Result<_, _>>()?))
}
