//! A reader of the replica: no version of a row may go back, but where a side was put back or replaced.

use super::scene::Scene;
use crate::judge::Judge;
use pgflume::core::value::Cell;
use pgflume::replica::Statement;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(10);
/// A server that hangs is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Reader {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u64>,
}

impl Reader {
    pub fn start(scene: &Arc<Scene>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        Self { task: tokio::spawn(read(scene.clone(), stop.clone())), stop }
    }

    /// How many versions it has seen.
    pub async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap_or_default()
    }
}

async fn read(scene: Arc<Scene>, stop: Arc<AtomicBool>) -> u64 {
    let (mut judge, mut store, mut seen) = (Judge::new("versions"), None, 0);
    let mut era = scene.era.number();
    while !stop.load(Ordering::Relaxed) {
        if scene.era.is_closed() {
            store = None;
            scene.era.park().await;
        }
        if scene.era.number() != era {
            era = scene.era.number();
            judge.begin_era();
        }
        if store.is_none() {
            store = scene.replica().await.ok();
        }
        if let Some(store) = &store {
            let sql = Statement::new("SELECT CAST(id AS TEXT), version FROM versions", Vec::new());
            let looked = tokio::time::timeout(PATIENCE, store.read(sql)).await;
            // What was read while an era ended belongs to neither.
            if let Ok(Ok(rows)) = looked
                && !scene.era.is_closed()
                && scene.era.number() == era
            {
                let rows: Vec<(String, i64)> = rows
                    .into_iter()
                    .filter_map(|row| match &row[..] {
                        [Cell::Text(key), Cell::Integer(version)] => Some((key.clone(), *version)),
                        _ => None,
                    })
                    .collect();
                scene.tally.read(rows.len());
                seen += rows.len() as u64;
                judge.look("", rows).into_iter().for_each(|violation| scene.tally.violation(violation));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}
