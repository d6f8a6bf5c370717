//! The promise: at every pass the replica equals the view that closed it, whatever writers do.

use super::watched::{Contents, Seen, Watched};
use super::writers::{SCHEMA, TABLES, Writers};
use super::{Rig, armed, cluster};
use crate::support::{Db, PATHS, Path};
use pgflume::core::value::{Cell, Key};
use pgflume::provider::Limits;
use pgflume::pull::{Pace, Pull};
use pgflume::replica::Replica;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Passes of one run; `PULL_PASSES` asks for another number.
const PASSES: usize = 40;

/// Transactions that begin during a pass at most.
const TRANSACTIONS: usize = 300;

fn passes() -> usize {
    std::env::var("PULL_PASSES").map_or(PASSES, |text| text.parse().unwrap())
}

fn seed() -> u64 {
    let seed = std::env::var("PULL_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("PULL_SEED={seed}");
    seed
}

async fn contents(replica: &Replica, keys: &BTreeMap<&str, usize>) -> Contents {
    let mut contents = Contents::new();
    for (table, width) in keys {
        let rows = replica.query(format!("SELECT * FROM {table}"), vec![]).await.unwrap();
        let keyed = |row: Vec<Cell>| (row[..*width].to_vec(), row);
        contents.insert((*table).to_owned(), rows.into_iter().map(keyed).collect());
    }
    contents
}

/// What differs, a few of it.
fn differences(there: &Contents, here: &Contents) -> Vec<String> {
    let mut found = Vec::new();
    for (table, rows) in there {
        let ours = here.get(table).cloned().unwrap_or_default();
        let keys: std::collections::BTreeSet<&Key> = rows.keys().chain(ours.keys()).collect();
        let differs = keys.into_iter().filter(|key| rows.get(*key) != ours.get(*key));
        found.extend(differs.take(3).map(|key| format!("{table} {key:?}: {:?} / {:?}", rows.get(key), ours.get(key))));
    }
    found
}

/// Passes at a pace, each compared with its closing view. Views that end soon make several of one pass.
async fn run(path: Path, pace: Pace, passes: usize) {
    let _armed = armed();
    let rig = Rig::on(Db::on(cluster(), "template1").await, path, TABLES, SCHEMA).await;
    let seen = Seen::default();
    let watched = Watched { inner: rig.provider(), seen: seen.clone() };
    let pull = Pull::new("p".into(), Arc::new(watched), rig.home.target(), false).at_pace(pace);
    let replica = Replica::open(&rig.home.target()).await.unwrap();
    let keys = BTreeMap::from([("t", 1), ("f", 1), ("k", 1), ("p", 2)]);
    let writers = Writers::start(&rig.db.url(), seed());
    let (mut whole, mut rows, mut removed, mut batches) = (0, 0, 0, 0);
    let mut tries = 0;
    while whole < passes {
        tries += 1;
        writers.allow(TRANSACTIONS);
        assert!(tries < 4 * passes + 40, "{whole} of {tries} passes came to an end");
        let done = match pull.pass().await {
            Ok(done) => done,
            Err(e) if e.to_string().contains("tried again") || e.to_string().contains("read again") => continue,
            Err(e) => panic!("{e:?}"),
        };
        (rows, removed, batches) = (rows + done.rows, removed + done.removed, batches + done.batches);
        if done.caught_up_at.is_none() {
            continue; // a table was locked
        }
        whole += 1;
        let there = seen.lock().unwrap().clone();
        assert_eq!(there.len(), 4);
        // It is refilled by the transaction that truncates it, and was never empty.
        assert!(there["f"].len() > 50, "a table was read as empty: {}", there["f"].len());
        let found = differences(&there, &contents(&replica, &keys).await);
        assert!(found.is_empty(), "pass {whole}: {found:#?}");
    }
    writers.stop().await;
    println!("{path:?}: {whole} passes, {tries} tries, {rows} rows, {removed} removed, {batches} batches");
    assert!(rows > 500 && removed > 20, "writers wrote too little: {rows} {removed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pass_equals_its_view_under_writers() {
    for path in PATHS {
        run(path, Pace::default(), passes()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pass_of_many_views_equals_its_last_one_under_writers() {
    let pace = Pace {
        closing: Limits { rows: 40, bytes: 1 << 20 },
        part: Limits { rows: 60, bytes: 1 << 20 },
        view_time: Duration::from_millis(5),
    };
    run(Path::File, pace, passes() / 4).await;
}
