//! Passes over a table without triggers: the first copy beside that of the queue's engine, one that finds nothing beside
//! the statement that looks for as much, and one that finds 10,000 changed rows.

use crate::ground::{Ground, Home, Kind, Table};
use crate::report::{Section, median, thousands};
use pgflume::config::Config;
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{SetupOptions, TeardownOptions, setup, teardown};
use pgflume::postgres::catalog::DEFAULT_ROW_BYTES;
use pgflume::provider::StampOptions;
use pgflume::provider::postgres::{PostgresProvider, Wanted};
use pgflume::pull::Pull;
use pgflume::sync::Worker;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Changed rows.
const CHANGED: u32 = 10_000;

pub async fn run(ground: &Ground) -> Section {
    let rows: u32 = if ground.is_quick { 200_000 } else { 2_000_000 };
    let table = Table::Narrow;
    let name = table.name();
    ground
        .sql(&format!(
            "drop table if exists {name};
             create table {name} as select {} from generate_series(1, {rows}) i;
             alter table {name} add primary key (id);
             vacuum analyze {name}",
            table.row()
        ))
        .await;
    let (mut snapshot, mut copy) = (Vec::new(), Vec::new());
    for _ in 0..ground.runs().min(3) {
        snapshot.push(by_queue(ground, table).await);
        let home = Home::new(Kind::File);
        copy.push(pass(&pull(ground, table, &home)).await);
    }
    let home = Home::new(Kind::File);
    let pull = pull(ground, table, &home);
    pass(&pull).await;
    let (mut floor, mut idle, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..ground.runs() {
        floor.push(looked(ground, name).await);
        idle.push(pass(&pull).await);
        let step = rows / CHANGED;
        let update = format!("update {name} set version = version + 1 where id % {step} = {}", i as u32 % step);
        ground.sql(&update).await;
        changed.push(pass(&pull).await);
    }
    let (floor, idle, changed) = (median(floor), median(idle), median(changed));
    let (snapshot, copy) = (median(snapshot), median(copy));
    let row = |what: &str, seconds: f64, than: String| vec![what.to_owned(), format!("{:.0}", seconds * 1e3), than];
    Section {
        name: "pull",
        what: format!(
            "Milliseconds of passes over a table of {} rows of eight columns that is pulled into a file, medians; the floor is one `select count(*), count(*) filter (where age(xmin) …)` without parallel workers. A pass connects, describes the table, and looks.",
            thousands(f64::from(rows))
        ),
        head: vec!["", "ms", ""],
        rows: vec![
            row("floor: look and count", floor, String::new()),
            row("a pass that finds nothing", idle, format!("{:.2} × the floor", idle / floor)),
            row(
                &format!("a pass that finds {} changed rows", thousands(f64::from(CHANGED))),
                changed,
                format!("{:.0} ms more than the floor", (changed - floor) * 1e3),
            ),
            row("reference: first copy by the queue's engine", snapshot, String::new()),
            row("first copy by a pass", copy, format!("{:.2} × its speed", snapshot / copy)),
        ],
        plot: (
            "A pass, ms".into(),
            vec![
                ("floor: look and count".into(), floor * 1e3),
                ("finds nothing".into(), idle * 1e3),
                ("finds 10,000 changed rows".into(), changed * 1e3),
            ],
        ),
    }
    .print()
}

fn pull(ground: &Ground, table: Table, home: &Home) -> Pull {
    let provider = PostgresProvider {
        url: PgUrl::parse(&ground.url).unwrap(),
        wanted: Wanted::Defined(table.schema()),
        row_bytes: DEFAULT_ROW_BYTES,
        stamps: StampOptions::default(),
    };
    Pull::new("bench".into(), Arc::new(provider), home.target(), false)
}

async fn pass(pull: &Pull) -> f64 {
    let began = Instant::now();
    let done = pull.pass().await.unwrap();
    assert!(done.caught_up_at.is_some(), "{done:?}");
    began.elapsed().as_secs_f64()
}

/// What a pass cannot do without.
async fn looked(ground: &Ground, table: &str) -> f64 {
    let xid: String =
        ground.client.query_one("select pg_snapshot_xmin(pg_current_snapshot())::text", &[]).await.unwrap().get(0);
    let sql =
        format!("select count(*), count(*) filter (where age(xmin) between 0 and age('{xid}'::xid)) from {table}");
    ground.sql("set max_parallel_workers_per_gather = 0").await;
    let began = Instant::now();
    ground.client.query_one(&sql, &[]).await.unwrap();
    began.elapsed().as_secs_f64()
}

/// The copy that `setup` asks for, by drains.
async fn by_queue(ground: &Ground, table: Table) -> f64 {
    let (url, queue) = (PgUrl::parse(&ground.url).unwrap(), QueueName::parse(DEFAULT_QUEUE).unwrap());
    let home = Home::new(Kind::File);
    setup(&url, &table.schema(), &queue, &SetupOptions::default()).await.unwrap();
    let worker = Worker::new(Config {
        postgres: url.clone(),
        target: home.target(),
        schema: table.schema(),
        queue: queue.clone(),
        rows_per_second: None,
        retention: Duration::ZERO,
        heartbeat: None,
        has_events: false,
        row_bytes: DEFAULT_ROW_BYTES,
        adopt: false,
        feeding: Default::default(),
    });
    let began = Instant::now();
    while worker.drain(Duration::from_secs(600)).await.unwrap().rebuilding > 0 {}
    let took = began.elapsed().as_secs_f64();
    teardown(&url, &queue, TeardownOptions { drop_queue: false }).await.unwrap();
    took
}
