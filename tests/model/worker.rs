//! What a worker does by itself, in scenes that are written out: over the same two sides in memory, with paused time.

use crate::memory::link::Memory as Connector;
use crate::memory::postgres::Postgres;
use crate::memory::tables::Row;
use crate::seam;
use async_trait::async_trait;
use pgflume::config::Config;
use pgflume::core::chance::Chance;
use pgflume::core::error::{Error, Result};
use pgflume::core::queue_name::QueueName;
use pgflume::core::value::Cell;
use pgflume::postgres::PgUrl;
use pgflume::replica::memory::Memory;
use pgflume::replica::target::{Given, Target};
use pgflume::replica::{Opener, Statement, Store};
use pgflume::sync::Worker;
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
        let postgres = Postgres::new(seam::schema(), &["t"]);
        postgres.schedule_setup().await.unwrap();
        let replica = Switched { replica: Memory::new().unwrap(), is_off: Arc::default() };
        let config = Config {
            postgres: PgUrl::parse("postgres://worker@localhost/app").unwrap(),
            target: Target::Given(Given::new("replica", Arc::new(replica.clone()))),
            schema: seam::schema(),
            queue: QueueName::parse("sync").unwrap(),
            rows_per_second: None,
            retention: Duration::ZERO,
            row_bytes: 1 << 20,
            adopt: false,
        };
        let worker = Worker::over(config, Arc::new(Connector::new(postgres.clone())), Chance::seeded(1));
        Self { postgres, replica, worker: Arc::new(worker) }
    }

    async fn write(&self, id: i64) {
        let row = Row::new(vec![Cell::Integer(id), Cell::Text("v".into())]);
        self.postgres.put("t", row).await.unwrap();
    }

    async fn drain(&self) -> Result<()> {
        self.worker.drain(Duration::from_secs(600)).await.map(drop)
    }

    async fn rows(&self) -> usize {
        let all = Statement::new("SELECT id FROM t", Vec::new());
        self.replica.replica.query(all).await.unwrap().len()
    }
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
