//! Migrations of the application beside the worker: whoever waits for a lock while holding another may close a circle,
//! and Postgres ends the one who closes it. That must never be the migration.

use crate::parts::process::{Process, tail};
use crate::support::{Db, Home, Path, Rig, Server, config, schema, until};
use crate::volume::{set_up, verdicts};
use pgflume::postgres::PgUrl;
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio_postgres::Client;

/// Tables of the migrations; several run side by side, each on some of its own.
const TABLES: [&str; 7] = ["m0", "m1", "m2", "m3", "m4", "m5", "m6"];

fn definitions() -> String {
    let one = |t: &&str| format!(r#""{t}":{{"primaryKey":"id","columns":{{"id":"INTEGER","v":"INTEGER"}}}}"#);
    format!("{{{}}}", TABLES.iter().map(one).collect::<Vec<_>>().join(","))
}

async fn rig() -> Rig {
    rig_on(Path::File).await
}

async fn rig_on(path: Path) -> Rig {
    let rig = Rig::with(Db::new().await, Home::new(path), schema(&definitions()));
    for table in TABLES {
        rig.db.sql(&format!("create table {table} (id int primary key, v int)")).await;
        rig.db.sql(&format!("insert into {table} select i, 0 from generate_series(1, 50) i")).await;
    }
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    rig
}

async fn another(url: &str) -> Client {
    PgUrl::parse(url).unwrap().connect().await.unwrap()
}

/// What goes on beside the migrations until it is dropped: writers, and calls of `/sync`.
struct Beside {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Beside {
    fn start(url: &str, server: Option<&Server>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = vec![tokio::spawn(write(url.to_owned(), stop.clone()))];
        if let Some(server) = server {
            tasks.push(tokio::spawn(call(server.address.clone(), stop.clone())));
        }
        Self { stop, tasks }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// A write to one table after the other; one that a migration holds is waited for.
async fn write(url: String, stop: Arc<AtomicBool>) {
    let client = another(&url).await;
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        let table = TABLES[turn % TABLES.len()];
        let sql = format!("set lock_timeout = '20ms'; update {table} set v = v + 1 where id = {}", 1 + turn % 50);
        if let Err(e) = client.batch_execute(&sql).await {
            assert_eq!(e.code().map(|c| c.code()), Some("55P03"), "{e:?}");
        }
        turn += 1;
        tokio::time::sleep(Duration::from_millis(10)).await; // the pace of an application
    }
}

async fn call(address: String, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let url = format!("{address}/sync");
        let headers = [("x-webhook-signature".to_owned(), crate::support::SECRET.to_owned())];
        let answer = tokio::task::spawn_blocking(move || {
            crate::parts::http::request("POST", &url, &headers, &[], Duration::from_secs(60))
        });
        assert_eq!(answer.await.unwrap().unwrap().status, 200);
        tokio::time::sleep(Duration::from_millis(100)).await; // the pace of a caller
    }
}

/// The migration that died: it holds one table for longer than `deadlock_timeout`, then takes another.
async fn assert_passes(rig: &Rig, attempt: usize) {
    let client = another(&rig.db.url()).await;
    let sql = format!(
        "begin; alter table m1 add column c{attempt} int; select pg_sleep(1.3);
         alter table m0 add column c{attempt} int; commit"
    );
    client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("migration {attempt}: {e:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_of_two_tables_never_dies_beside_following() {
    let rig = rig().await;
    let _server = Server::following(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    let beside = Beside::start(&rig.db.url(), None);
    for attempt in 0..3 {
        assert_passes(&rig, attempt).await;
    }
    beside.end().await;
    until("nothing is left", async || rig.db.queued().await == 0).await;
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_of_two_tables_never_dies_beside_calls() {
    let rig = rig().await;
    let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    let beside = Beside::start(&rig.db.url(), Some(&server));
    for attempt in 0..3 {
        assert_passes(&rig, attempt).await;
    }
    beside.end().await;
    assert_eq!(server.sync().await.status, 200);
    assert_equal(&rig).await;
}

/// One table is held for long: the others arrive meanwhile, and it arrives when it is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_migration_of_one_table_does_not_hold_up_the_others() {
    let rig = rig().await;
    let _server = Server::following(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    rig.db.sql("update m0 set v = 7 where id = 1").await;
    arrives(&rig, "SELECT v FROM m0 WHERE id = 1", "7").await;
    let migration = another(&rig.db.url()).await;
    migration.batch_execute("begin; update m1 set v = 8 where id = 1; alter table m1 add column c int").await.unwrap();
    rig.db.sql("update m0 set v = 9 where id = 1").await;
    arrives(&rig, "SELECT v FROM m0 WHERE id = 1", "9").await;
    migration.batch_execute("commit").await.unwrap();
    arrives(&rig, "SELECT v FROM m1 WHERE id = 1", "8").await;
    assert_equal(&rig).await;
}

/// `MIGRATIONS` (20) random ones, several side by side on disjoint tables, beside following, calls and writers.
#[tokio::test(flavor = "multi_thread")]
async fn random_migrations_never_die_by_our_hand() {
    let all: u32 = std::env::var("MIGRATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let seed = std::env::var("MIGRATIONS_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("MIGRATIONS={all} MIGRATIONS_SEED={seed}");
    let rig = rig().await;
    let following = config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone());
    let server = Server::following(following).await;
    let beside = Beside::start(&rig.db.url(), Some(&server));
    let done = Arc::new(AtomicU32::new(0));
    // Lanes of one, two and four tables.
    let lanes: [&[&str]; 3] = [&TABLES[..1], &TABLES[1..3], &TABLES[3..]];
    let lanes = lanes.into_iter().enumerate().map(|(lane, tables)| {
        let (url, done) = (rig.db.url(), done.clone());
        tokio::spawn(async move { migrate(&url, tables, seed.wrapping_add(lane as u64), &done, all).await })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.unwrap();
    }
    beside.end().await;
    until("nothing is left", async || rig.db.queued().await == 0).await;
    assert_equal(&rig).await;
}

/// Random migrations until `all` are done: any order of the lane's tables, waits from 0 to 3 s between them.
async fn migrate(url: &str, tables: &[&str], seed: u64, done: &AtomicU32, all: u32) {
    let mut random = StdRng::seed_from_u64(seed);
    let client = another(url).await;
    loop {
        let number = done.fetch_add(1, Ordering::Relaxed);
        if number >= all {
            return;
        }
        let sql = migration(&mut random, tables, number);
        client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("seed {seed}: {sql}: {e:?}"));
    }
}

fn migration(random: &mut StdRng, tables: &[&str], number: u32) -> String {
    let mut left: Vec<&str> = tables.to_vec();
    let mut sql = String::from("begin; set local lock_timeout = 0");
    for _ in 0..random.random_range(1..=tables.len()) {
        let table = left.swap_remove(random.random_range(0..left.len()));
        sql.push_str(&match random.random_range(0..5) {
            0 => format!("; alter table {table} add column c{number} int default 1"),
            1 => format!("; update {table} set v = v + 1 where id = 1; alter table {table} alter column v type bigint"),
            2 => format!("; create index on {table} (v)"),
            3 => format!("; alter table {table} add column d{number} int; alter table {table} drop column d{number}"),
            _ => format!("; truncate {table}; insert into {table} select i, {number} from generate_series(1, 50) i"),
        });
        let wait = [0.0, 0.1, 1.2, 2.0, 3.0][random.random_range(0..5)];
        sql.push_str(&format!("; select pg_sleep({wait})"));
    }
    sql + "; commit"
}

async fn arrives(rig: &Rig, sql: &str, value: &str) {
    until(&format!("{sql} = {value}"), async || rig.rows(sql).await == [value]).await;
}

async fn assert_equal(rig: &Rig) {
    until("both sides are equal", async || verdicts(rig).await.iter().all(pgflume::demo::compare::Verdict::is_equal))
        .await;
}

/// What stops a process, or lets it go on.
fn signal(process: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

/// A step has the lock of `m0`, and has had it for longer than any has that is at work.
async fn a_step_holds_m0(rig: &Rig) {
    let sql = "select count(*) from pg_locks l join pg_stat_activity a using (pid)
               where l.relation = 'm0'::regclass and l.mode = 'AccessShareLock' and l.granted
                 and a.xact_start < clock_timestamp() - interval '1 second' and a.pid <> pg_backend_pid()";
    until("a step waits for the replica", async || rig.db.one(sql).await != "0").await;
}

/// In vain for longer than its `lock_timeout`, the migration fails; and whoever comes after it waits as long.
async fn assert_passes_soon(rig: &Rig, migration: &str) {
    let sql = format!("set lock_timeout = '10s'; {migration}; select count(*) from m0; reset lock_timeout");
    rig.db.client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{migration}: {e:?}"));
}

/// The replica's server hangs with a step's batch, with the look at it that a step begins with, and with a page of a
/// table that is copied again.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_passes_beside_a_replica_that_hangs() {
    let rig = rig_on(Path::Sqld).await;
    let _server = Server::following(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    rig.db.sql("update m0 set v = 1 where id = 1").await;
    arrives(&rig, "SELECT v FROM m0 WHERE id = 1", "1").await;
    let Home::Sqld(sqld) = &rig.home else { panic!("a server") };
    let sqld = sqld.id().unwrap();
    for number in 0..3 {
        signal(sqld, "-STOP");
        rig.db
            .sql(&format!("update m0 set v = 10 + {number} where id <= 20; delete from m0 where id = 30 + {number}"))
            .await;
        if number == 2 {
            pgflume::operate::resync::request(&rig.second_worker(), &["m1"]).await.unwrap();
        }
        a_step_holds_m0(&rig).await;
        assert_passes_soon(&rig, &format!("alter table m0 add column w{number} int")).await;
        signal(sqld, "-CONT");
        arrives(&rig, "SELECT count(*) FROM m0 WHERE v >= 10", "20").await;
        assert_equal(&rig).await;
    }
    until("nothing is left", async || rig.db.queued().await == 0).await;
    assert_eq!(rig.db.dead().await.len(), 0);
}

/// A replica's table that is altered may take long.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_passes_while_the_replica_is_altered() {
    let rig = rig().await;
    rig.db.sql("alter table m0 add column w int default 5").await;
    let directory = tempfile::tempdir().unwrap();
    let (log, file) = (directory.path().join("log"), directory.path().join("schema.json"));
    std::fs::write(&file, definitions().replacen(r#""v":"INTEGER""#, r#""v":"INTEGER","w":"INTEGER""#, 1)).unwrap();
    let Target::File(replica) = rig.home.target() else { panic!("a file") };
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.arg("sync").env("PGMQ_URL", rig.db.url()).env("SCHEMA_FILE", &file).current_dir(directory.path());
    command.env("LIBSQL_URL", format!("file:{}", replica.display()));
    command.env("FAILPOINTS", format!("{}=return(15000)", pgflume::core::failpoint::ALTERING));
    let mut process = Process::spawn(&mut command, &log, None);
    until("the replica is altered", async || tail(&log).contains("altering: the process stalls")).await;
    assert_passes_soon(&rig, "alter table m0 add column x int").await;
    let other = rig.second_worker().drain(Duration::ZERO).await.unwrap();
    assert!(other.busy, "another worker steps in while the replica is altered: {other:?}");
    until("it ends", async || process.ended().is_some()).await;
    let copied = "SELECT count(*) FROM m0 WHERE w = 5";
    let worker =
        Worker::new(config(&rig.db.url(), rig.home.target(), schema(&std::fs::read_to_string(&file).unwrap())));
    while worker.drain(Duration::from_secs(25)).await.unwrap().rebuilding > 0 {}
    assert_eq!(rig.rows(copied).await, ["50"]);
    assert_equal(&rig).await;
}
