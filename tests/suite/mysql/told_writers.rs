//! Writers that go on while a service follows the log, and is ended in the midst of it: at rest both sides are equal, and no
//! reader has seen a row go back. `TOLD_SECONDS` of writing for each seed (6), `TOLD_SEEDS` (1).

use super::writers::{Dice, TABLES, TABLES_ROWS, WRITERS, assert_equal, statement, write};
use super::{NONE, Rig};
use crate::parts::MySqlServer;
use crate::support::{Home, PATHS, Path, until};
use mysql_async::prelude::Queryable;
use pgflume::pull::{Pull, Scheduled, Service};
use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

pub const MORE: &str = "create table p (id int primary key, v int);
    create table c (id int primary key, p int, v int, foreign key (p) references p (id) on delete cascade);
    create table g (id int primary key, c int, foreign key (c) references c (id) on delete cascade);
    create table s (id int primary key, p int, foreign key (p) references p (id) on delete set null on update cascade);
    create table l (id int primary key, w int);
    create table m (id int primary key, v int not null);
    insert into p select seq, 0 from seq_1_to_50; insert into m select seq, 0 from seq_1_to_60";

pub const MORE_ROWS: [(&str, &str, &str); 6] = [
    ("p", "id, v", "id"),
    ("c", "id, p, v", "id"),
    ("g", "id, c", "id"),
    ("s", "id, p", "id"),
    ("l", "id", "id"),
    ("m", "id, v", "id"),
];

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What only a log of rows tells, or does not even tell.
pub fn untold(dice: &mut Dice, rows: &FilePath) -> String {
    let (n, m) = (dice.below(2_500), dice.below(50));
    match dice.below(16) {
        0 => format!("delete from p where id = {m}"),
        1 => format!("insert ignore into p values ({m}, {n})"),
        2 => format!("update p set id = id + 50 where id = {m}"),
        3 => format!("insert ignore into c select seq, {m}, 0 from seq_1_to_2500 where seq between {n} and {}", n + 9),
        4 => format!("insert ignore into s select seq, {m} from seq_1_to_2500 where seq between {n} and {}", n + 3),
        5 => format!("insert ignore into g select seq, {n} from seq_1_to_2500 where seq between {n} and {}", n + 3),
        6 => format!("load data infile '{}' ignore into table l fields terminated by ',' (id, w)", rows.display()),
        7 => format!("delete from l where id % 7 = {}", n % 7),
        8 if n < 100 => "truncate table l".to_owned(),
        9 if n < 50 => format!("alter table l add column x{n} int default {n}"),
        10 if n < 50 => format!("alter table l drop column x{n}"),
        11 => format!("replace into p values ({m}, {n})"),
        12 | 13 => format!("update m set v = v + 1 where id between {m} and {}", m + 5),
        _ => statement(dice),
    }
}

/// A service that follows.
struct Following {
    service: Arc<Service>,
    running: JoinHandle<()>,
}

impl Following {
    fn start(rig: &Rig) -> Self {
        let pull = Pull::new("p".into(), Arc::new(rig.named()), rig.home.target(), false);
        let (every, retry_delay) = (Duration::from_secs(3600), Duration::from_millis(50));
        let service = Arc::new(Service::new(vec![Scheduled { pull, every, retry_delay, limiter: None }]));
        service.hint("p");
        let running = tokio::spawn({
            let service = service.clone();
            async move { service.run().await }
        });
        Self { service, running }
    }

    /// As a process that is killed: wherever it is.
    async fn abort(self) {
        self.running.abort();
        drop(self.running.await);
    }

    async fn stop(self) {
        self.service.stop();
        self.running.await.unwrap();
    }
}

/// Looks all the while, until it is over, whether a counter goes back.
async fn watch(target: pgflume::replica::target::Target, is_over: Arc<AtomicBool>) -> usize {
    let replica = pgflume::replica::Replica::open(&target).await.unwrap();
    let (mut last, mut looks) = (BTreeMap::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        let rows = match replica.query("SELECT id, v FROM m", vec![]).await {
            Ok(rows) => rows,
            Err(_) => continue,
        };
        for row in rows {
            let number = |at: usize| crate::store::show(&row[at]).parse::<i64>().unwrap();
            let before = last.insert(number(0), number(1)).unwrap_or(0);
            assert!(before <= number(1), "row {} went back from {before} to {}", number(0), number(1));
        }
        looks += 1;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    looks
}

/// Other sessions that ask where their snapshots are: MariaDB takes the answer of one for another's now and then.
async fn observe(mut conn: mysql_async::Conn, is_over: Arc<AtomicBool>) {
    while !is_over.load(Ordering::Relaxed) {
        for sql in [
            "start transaction with consistent snapshot",
            "show status like 'binlog_snapshot%'",
            "rollback",
            "show global status",
        ] {
            drop(conn.query_drop(sql).await);
        }
    }
    drop(conn.disconnect().await);
}

async fn run(path: Path, seed: u64, is_killed: bool) {
    let server = Arc::new(MySqlServer::start(&[
        "--sync-binlog=1",
        "--innodb-flush-log-at-trx-commit=1",
        "--innodb-lock-wait-timeout=2",
        "--lock-wait-timeout=2",
    ]));
    let mut rig = Rig::on(server.clone(), Path::File, &format!("{TABLES}; {MORE}"), NONE).await;
    rig.home = Home::new(path);
    rig.sql(&format!("grant replication slave, binlog monitor on *.* to {}@'%'", rig.name)).await;
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    std::fs::write(&rows, (0..40).map(|row| format!("{},{row}\n", (seed * 31 + row * 17) % 3_000)).collect::<String>())
        .unwrap();
    rig.pass_of(rig.named()).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let observers: Vec<_> = [server.connect(None).await, server.connect(None).await]
        .map(|conn| tokio::spawn(observe(conn, is_over.clone())))
        .into();
    let watcher = tokio::spawn(watch(rig.home.target(), is_over.clone()));
    let (began, time) = (Instant::now(), Duration::from_secs(number("TOLD_SECONDS", 6)));
    let (mut committed, mut dice, mut following) = (0, Dice(seed), Following::start(&rig));
    while began.elapsed() < time {
        let is_round_over = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let (conn, rows) = (server.connect(Some(&rig.name)).await, rows.clone());
            let write = write(
                conn,
                seed * 100 + writer,
                Duration::ZERO,
                move |dice| untold(dice, &rows),
                is_round_over.clone(),
            );
            writers.push(tokio::spawn(write));
        }
        let round = if is_killed { Duration::from_millis(500 + dice.below(1_500)) } else { time };
        let round_began = Instant::now();
        while round_began.elapsed() < round {
            tokio::time::sleep(Duration::from_millis(100 + dice.below(300))).await;
            if is_killed {
                following.abort().await;
                following = Following::start(&rig);
            }
        }
        is_round_over.store(true, Ordering::Relaxed);
        for writer in writers {
            committed += writer.await.unwrap();
        }
    }
    until("a pass after the last commit has ended", async || {
        let passes = |following: &Following| following.service.report("p").unwrap().passes;
        let before = passes(&following);
        following.service.hint("p");
        until("a pass", async || passes(&following) >= before + 2).await;
        true
    })
    .await;
    // A table that was altered while it was read is read by the next one.
    until("nothing is left", async || {
        let report = following.service.report("p").unwrap();
        report.problems.is_empty() && report.error.is_none()
    })
    .await;
    let report = following.service.report("p").unwrap();
    following.stop().await;
    is_over.store(true, Ordering::Relaxed);
    let looks = watcher.await.unwrap();
    for observer in observers {
        observer.await.unwrap();
    }
    println!("{path:?}, seed {seed}: {committed} transactions, {} passes, {looks} looks", report.passes);
    let context = format!("{path:?}, seed {seed}");
    assert_equal(&rig, &TABLES_ROWS, &context).await;
    assert_equal(&rig, &MORE_ROWS, &context).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_equal_at_rest_and_no_row_goes_back() {
    for seed in 1..=number("TOLD_SEEDS", 1) {
        for path in PATHS {
            run(path, seed, false).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_ended_wherever_it_is_goes_on() {
    for seed in 1..=number("TOLD_SEEDS", 1) {
        for path in PATHS {
            run(path, seed, true).await;
        }
    }
}
