//! Two served processes that pull one database into one replica, killed at any moment, beside writers and a Postgres that
//! crashes: at rest both sides are equal, and no reader has seen a version go back.

use super::writers::Writers;
use super::{Rig, own_cluster};
use crate::parts::process::Process;
use crate::support::{Db, Home, PATHS, Path, until};
use pgflume::demo::postgres::{Cluster, Stop};
use pgflume::replica::Replica;
use pgflume::replica::target::Target;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::process::Command;
use std::time::{Duration, Instant};

/// Seconds of each run; `PULL_CHAOS_SECONDS` asks for more.
const SECONDS: u64 = 8;

const TABLES: &str = "create table versions (id int primary key, version bigint not null);
    insert into versions select i, 0 from generate_series(1, 200) i";

fn seconds() -> Duration {
    Duration::from_secs(std::env::var("PULL_CHAOS_SECONDS").map_or(SECONDS, |text| text.parse().unwrap()))
}

/// One process that pulls every 50 ms.
fn worker(directory: &std::path::Path, number: usize) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.arg("serve").env_clear().current_dir(directory);
    command.envs([("PORT", "0"), ("WEBHOOK_SIGNATURE", "0123456789abcdef"), ("RUST_LOG", "warn")]);
    Process::spawn(&mut command, &directory.join(format!("worker{number}.log")), None)
}

fn configure(rig: &Rig, directory: &std::path::Path) {
    let connection = match rig.home.target() {
        Target::File(path) => serde_json::json!({"url": format!("file:{}", path.display())}),
        Target::Remote { url, token } => serde_json::json!({"url": url, "token": token.unwrap().expose()}),
        Target::Given(_) => panic!("no such home"),
    };
    let file = serde_json::json!({
        "connections": {"source": {"url": rig.reader_url()}, "edge": connection},
        "syncs": {"all": {"from": "source", "to": "edge", "every": "100ms", "retryDelay": "100ms", "retries": 0}},
    });
    std::fs::write(directory.join("pgflume.json"), file.to_string()).unwrap();
}

/// Writes ever higher versions, however often Postgres goes away.
async fn count_up(url: String, until: Instant) {
    let mut version = 0;
    while Instant::now() < until {
        let Ok(client) = pgflume::postgres::PgUrl::parse(&url).unwrap().connect().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while Instant::now() < until {
            version += 1;
            let sql = format!("update versions set version = {version} where id % 10 = {}", version % 10);
            if client.batch_execute(&sql).await.is_err() {
                break;
            }
        }
    }
}

/// Reads versions and fails where one goes back.
async fn watch(target: Target, until: Instant) -> u64 {
    let (mut highest, mut looks) = (std::collections::BTreeMap::new(), 0);
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let Ok(Some(replica)) = Replica::existing(&target).await else { continue };
        let Ok(rows) = replica.query("SELECT id, version FROM versions", vec![]).await else { continue };
        looks += u64::from(!rows.is_empty());
        for row in rows {
            let [pgflume::core::value::Cell::Integer(id), pgflume::core::value::Cell::Integer(version)] = row[..]
            else {
                panic!("{row:?}")
            };
            let before = highest.insert(id, version).unwrap_or(i64::MIN);
            assert!(before <= version, "row {id} went back from {before} to {version}");
        }
    }
    looks
}

async fn run(path: Path, seed: u64) {
    let cluster: &'static Cluster = Box::leak(Box::new(own_cluster()));
    let rig = Rig::on(
        Db::on(cluster, "template1").await,
        path,
        &format!("{}; {TABLES}", super::writers::TABLES),
        "{\"versions\":{\"primaryKey\":\"id\",\"columns\":{\"id\":\"INTEGER\",\"version\":\"INTEGER\"}}}",
    )
    .await;
    let directory = tempfile::tempdir().unwrap();
    configure(&rig, directory.path());
    let end = Instant::now() + seconds();
    let mut dice = StdRng::seed_from_u64(seed);
    let (counting, watching) = (tokio::spawn(count_up(rig.db.url(), end)), tokio::spawn(watch(rig.home.target(), end)));
    let mut workers: Vec<Process> = (0..2).map(|i| worker(directory.path(), i)).collect();
    let (mut kills, mut crashes) = (0, 0);
    // One that writes all kinds of things until Postgres crashes, and begins again.
    let mut writers = Some(Writers::start(&rig.db.url(), seed));
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(dice.random_range(100..700))).await;
        match dice.random_range(0..6) {
            0 if crashes < 2 && path == Path::File => {
                if let Some(writers) = writers.take() {
                    writers.stop().await;
                }
                cluster.stop(Stop::Immediate).unwrap();
                cluster.start_again().unwrap();
                crashes += 1;
            }
            _ => {
                let which = dice.random_range(0..workers.len());
                workers[which] = worker(directory.path(), which); // the one before is killed
                kills += 1;
            }
        }
    }
    if let Some(writers) = writers.take() {
        writers.stop().await;
    }
    counting.await.unwrap();
    let looks = watching.await.unwrap();
    drop(workers);
    let verify = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.args(["verify", "--sync", "all"]).env_clear().current_dir(directory.path()).output().unwrap()
    };
    // A prepared transaction may still be open, or a lock of a server that is starting.
    until("it can be compared", async || !String::from_utf8_lossy(&verify().stderr).contains("tried again")).await;
    let done = verify();
    println!(
        "{path:?} {seed}: {kills} kills, {crashes} crashes, {looks} looks\n{}",
        String::from_utf8_lossy(&done.stdout)
    );
    assert!(done.status.success(), "{path:?} {seed}: {done:?}");
    assert!(kills > 2 && looks > 10, "{kills} {looks}");
    let home = &rig.home;
    assert!(matches!(home, Home::File(_) | Home::Sqld(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_and_crashes_leave_both_sides_equal_and_nothing_goes_back() {
    for path in PATHS {
        let seed = std::env::var("PULL_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
        println!("PULL_SEED={seed}");
        run(path, seed).await;
    }
}
