//! What a worker does by itself, in scenes that are written out: over the same two sides in memory, with paused time.

use crate::memory::link::{Memory as Connector, Network};
use crate::memory::postgres::Postgres;
use crate::memory::tables::Row;
use crate::seam;
use async_trait::async_trait;
use pgflume::config::Config;
use pgflume::core::chance::Chance;
use pgflume::core::error::{Error, Result};
use pgflume::core::queue_name::QueueName;
use pgflume::core::schema::Schema;
use pgflume::core::value::Cell;
use pgflume::postgres::{PgUrl, Purpose};
use pgflume::replica::memory::Memory;
use pgflume::replica::target::{Given, Target};
use pgflume::replica::{Opener, Statement, Store, Work};
use pgflume::sync::Worker;
use pgflume::sync::compare::Comparison;
use pgflume::sync::compare::report::VerifyOptions;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A replica that can be switched off.
#[derive(Clone)]
struct Switched {
    replica: Memory,
    is_off: Arc<AtomicBool>,
}

#[async_trait]
impl Opener for Switched {
    async fn open(&self) -> Result<Box<dyn Store>> {
        match self.is_off.load(Ordering::Relaxed) {
            true => Err(Error::side("the replica is switched off")),
            false => self.replica.open().await,
        }
    }
}

struct Scene {
    postgres: Postgres,
    replica: Switched,
    worker: Arc<Worker>,
}

impl Scene {
    async fn new() -> Self {
        Self::of(seam::schema(), &["t"]).await
    }

    async fn of(schema: Arc<Schema>, captured: &[&str]) -> Self {
        let postgres = Postgres::new(schema.clone(), captured);
        postgres.schedule_setup().await.unwrap();
        let replica = Switched { replica: Memory::new().unwrap(), is_off: Arc::default() };
        Self::over(postgres, replica)
    }

    fn over(postgres: Postgres, replica: Switched) -> Self {
        let source = Arc::new(Connector::new(postgres.clone()));
        let worker = Arc::new(Worker::over(Self::config(&postgres, &replica), source, Chance::seeded(1)));
        Self { postgres, replica, worker }
    }

    /// One whose follower sleeps until it is told, behind a network that takes its time.
    async fn asleep(seed: u64) -> Self {
        let scene = Self::new().await;
        scene.postgres.listeners().install();
        let network: Arc<dyn Network> = Arc::new(Slow(std::sync::Mutex::new(StdRng::seed_from_u64(seed))));
        let connector = Connector { network: Some(network), ..Connector::new(scene.postgres.clone()) };
        let worker =
            Worker::over(Self::config(&scene.postgres, &scene.replica), Arc::new(connector), Chance::seeded(seed));
        Self { worker: Arc::new(worker.stepping_every(Duration::from_secs(100_000))), ..scene }
    }

    /// What its worker is made of.
    fn config(postgres: &Postgres, replica: &Switched) -> Config {
        Config {
            postgres: PgUrl::parse("postgres://worker@localhost/app").unwrap(),
            target: Target::Given(Given::new("replica", Arc::new(replica.clone()))),
            schema: postgres.schema().clone(),
            queue: QueueName::parse("sync").unwrap(),
            rows_per_second: None,
            retention: Duration::ZERO,
            heartbeat: None,
            has_events: false,
            row_bytes: 1 << 20,
            adopt: false,
            feeding: Default::default(),
        }
    }

    async fn write(&self, id: i64) {
        self.postgres.put("t", row(id, "v")).await.unwrap();
    }

    async fn drain(&self) -> Result<()> {
        self.worker.drain(Duration::from_secs(600)).await.map(drop)
    }

    async fn rows(&self) -> usize {
        self.rows_of("t").await
    }

    async fn rows_of(&self, table: &str) -> usize {
        let all = Statement::new(format!("SELECT id FROM {table}"), Vec::new());
        self.replica.replica.query(all).await.unwrap().len()
    }

    /// Somebody changes the replica.
    async fn tamper(&self, sql: &str) {
        let before = vec![sql.to_owned().into()];
        self.replica.replica.write(Work { before, ..Work::default() }).await.unwrap();
    }
}

fn row(id: i64, v: &str) -> Row {
    Row::new(vec![Cell::Integer(id), Cell::Text(v.into())])
}

#[tokio::test(start_paused = true)]
async fn a_value_of_the_replicas_own_key_goes_from_one_row_to_another() {
    let scene = Scene::new().await;
    scene.tamper("CREATE TABLE t (id INTEGER UNIQUE NOT NULL, v TEXT PRIMARY KEY)").await;
    scene.postgres.put("t", row(1, "a")).await.unwrap();
    scene.drain().await.unwrap();
    // Of the first row no message tells.
    let mut writer = scene.postgres.writer();
    writer.put_unseen("t", row(1, "b")).await.unwrap();
    writer.commit(true).unwrap();
    scene.postgres.put("t", row(2, "a")).await.unwrap();
    scene.drain().await.unwrap();
    let all = Statement::new("SELECT id, v FROM t ORDER BY id", Vec::new());
    let found = scene.replica.replica.query(all).await.unwrap();
    assert_eq!(found, [(1, "b"), (2, "a")].map(|(id, v)| vec![Cell::Integer(id), Cell::Text(v.into())]));
    assert!(scene.postgres.letters().is_empty() && scene.postgres.queue().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_tells_why_its_last_drain_failed_until_one_succeeds() {
    let scene = Scene::new().await;
    assert_eq!(scene.worker.failure(), None);
    scene.replica.is_off.store(true, Ordering::Relaxed);
    scene.drain().await.unwrap_err();
    assert_eq!(scene.worker.failure().as_deref(), Some("the replica is switched off"));
    scene.replica.is_off.store(false, Ordering::Relaxed);
    scene.write(1).await;
    scene.drain().await.unwrap();
    assert_eq!((scene.worker.failure(), scene.rows().await), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_follower_notices_in_a_quiet_minute_that_its_replica_was_put_back() {
    let scene = Scene::new().await;
    scene.write(1).await;
    scene.drain().await.unwrap();
    let image = scene.replica.replica.image().unwrap();
    let worker = scene.worker.clone();
    let follower = tokio::spawn(async move { worker.follow().await });
    scene.write(2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.rows().await, 2);
    scene.replica.replica.restore(&image).unwrap();
    assert_eq!(scene.rows().await, 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(scene.rows().await, 2, "nobody has written, and it is there again");
    scene.worker.stop();
    follower.await.unwrap();
}

/// Both tables are compared in one step.
#[tokio::test(start_paused = true)]
async fn a_row_that_a_repair_cannot_write_becomes_a_dead_letter_though_another_repair_follows() {
    let tables = r#"{"a":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
        "b":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
    let scene = Scene::of(Arc::new(Schema::parse(tables).unwrap()), &["a", "b"]).await;
    scene.drain().await.unwrap();
    scene.tamper("CREATE TRIGGER no BEFORE INSERT ON a WHEN NEW.v = 'bad' BEGIN SELECT RAISE(ABORT, 'bad'); END").await;
    let mut writer = scene.postgres.writer();
    for (table, id, v) in [("a", 1, "bad"), ("a", 2, "good"), ("b", 1, "good"), ("b", 2, "good")] {
        writer.put_unseen(table, row(id, v)).await.unwrap();
    }
    writer.commit(true).unwrap();
    let options = VerifyOptions { tables: vec!["a".into(), "b".into()], repair: true, ..VerifyOptions::default() };
    let comparison = Comparison::new(options, None, Arc::default());
    let report = scene.worker.verify(comparison, Duration::from_secs(600)).await.unwrap();
    let told = |name: &str| (report.tables[name].missing, report.tables[name].repaired);
    assert_eq!((told("a"), told("b")), ((2, 1), (2, 2)));
    assert_eq!((scene.rows_of("a").await, scene.rows_of("b").await), (1, 2));
    assert_eq!(scene.postgres.letters().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_too_large_are_counted_as_taken_and_as_dead_letters() {
    let scene = Scene::new().await;
    scene.write(1).await;
    for _ in 0..2 {
        scene.postgres.send(Some(&format!(r#"{{"x":"{}"}}"#, "y".repeat(2 << 20)))).await.unwrap();
    }
    let done = scene.worker.drain(Duration::from_secs(600)).await.unwrap();
    assert_eq!((done.processed, done.dead, scene.rows().await), (3, 2, 1));
    assert_eq!((scene.postgres.letters().len(), scene.postgres.queue().len()), (2, 0));
}

/// Each request and each answer takes up to some milliseconds.
struct Slow(std::sync::Mutex<StdRng>);

impl Slow {
    async fn pass(&self) -> Result<()> {
        let time = Duration::from_micros(self.0.lock().unwrap().random_range(1..2_000));
        tokio::time::sleep(time).await;
        Ok(())
    }
}

#[async_trait]
impl Network for Slow {
    async fn request(&self, _purpose: Purpose, _call: &'static str) -> Result<()> {
        self.pass().await
    }

    async fn answer(&self, _purpose: Purpose, _call: &'static str) -> Result<()> {
        self.pass().await
    }
}

/// What is wrong with how the follower falls asleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// It looks before it takes the lock, or waits for it, and not after it.
    LooksFirst,
    /// It sleeps behind several writers as behind one.
    CountsNobody,
}

/// How long a row may take to arrive: as long as a network that is slow takes, and a look that somebody had to wait for.
const SOON: Duration = Duration::from_secs(5);

/// One transaction of a writer, who waits until its row is there; whether that came soon.
async fn is_heard(scene: &Scene, id: i64, takes: Duration) -> bool {
    let mut open = scene.postgres.writer();
    if id % 3 == 0 {
        open.undone("t", row(id, "undone")).await.unwrap();
    }
    open.put("t", row(id, "v")).await.unwrap();
    if !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    if id % 5 == 0 {
        open.put("t", row(id, "w")).await.unwrap();
    }
    open.commit(true).unwrap();
    let committed = tokio::time::Instant::now();
    let there = Statement::new(format!("SELECT 1 FROM t WHERE id = {id}"), Vec::new());
    while scene.replica.replica.query(there.clone()).await.is_ok_and(|rows| rows.is_empty()) {
        if committed.elapsed() > SOON {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    true
}

/// Writers that commit at any moment of a follower that falls asleep and wakes; each waits until its row is there.
/// Whether all were. With `long` ones, beside whom it has nothing to do for a while.
async fn all_are_heard(seed: u64, long: u32, mistake: Mistake) -> bool {
    let scene = Scene::asleep(seed).await;
    match mistake {
        Mistake::None => {}
        Mistake::LooksFirst => scene.postgres.listeners().look_first(),
        Mistake::CountsNobody => scene.postgres.listeners().count_nobody(),
    }
    let worker = scene.worker.clone();
    let follower = tokio::spawn(async move { worker.follow().await });
    let (scene, mut random) = (&scene, StdRng::seed_from_u64(seed));
    let mut writers = Vec::new();
    for writer in 0..2 {
        // The follower falls asleep behind a long one when it has found nothing for a second.
        let mut pause = || {
            let is_short = long == 0 || random.random_bool(0.5);
            Duration::from_micros(random.random_range(if is_short { 0..40_000 } else { 800_000..1_300_000 }))
        };
        let times = (0..8).map(|_| pause()).map(|pause| (pause, pause / 8));
        writers.push((writer, times.collect::<Vec<_>>()));
    }
    for writer in 0..long {
        let mut times = || Duration::from_micros(random.random_range(0..12_000_000));
        writers.push((i64::from(10 + writer), (0..3).map(|_| (times() / 8, times())).collect()));
    }
    let writers = writers.into_iter().map(|(writer, times)| async move {
        for (id, (pause, takes)) in (100 * writer + 1..).zip(times) {
            tokio::time::sleep(pause).await;
            let takes = if id % 2 == 0 || writer > 1 { takes } else { Duration::ZERO };
            if !is_heard(scene, id, takes).await {
                return false;
            }
        }
        true
    });
    let heard = futures_util::future::join_all(writers).await;
    scene.worker.stop();
    follower.await.unwrap();
    heard.into_iter().all(|is_heard| is_heard)
}

fn all_are_heard_in(seed: u64, long: u32, mistake: Mistake) -> bool {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(all_are_heard(seed, long, mistake))
}

fn schedules() -> u64 {
    std::env::var("RINGS").map_or(300, |text| text.parse().unwrap())
}

#[test]
fn no_schedule_loses_a_ring_and_one_that_looks_too_early_does() {
    for seed in 0..schedules() {
        assert!(all_are_heard_in(seed, 0, Mistake::None), "a ring is lost: seed {seed}");
    }
    let is_lost = |seed| !all_are_heard_in(seed, 0, Mistake::LooksFirst);
    assert!((0..schedules().max(300)).any(is_lost), "this test sees no ring that is lost");
}

#[test]
fn no_schedule_loses_a_ring_behind_a_writer_who_does_not_end_and_a_mistake_does() {
    for seed in 0..schedules() {
        assert!(all_are_heard_in(seed, 1 + (seed % 2) as u32, Mistake::None), "a ring is lost: seed {seed}");
    }
    for mistake in [Mistake::LooksFirst, Mistake::CountsNobody] {
        let is_lost = |seed| !all_are_heard_in(seed, 1, mistake);
        assert!((0..schedules().max(300)).any(is_lost), "{mistake:?}: this test sees no ring that is lost");
    }
}
