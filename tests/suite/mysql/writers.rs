//! Writers that go on while a pass follows the other: at rest both sides are equal. `TOLD_SECONDS` of writing for each seed
//! (6), `TOLD_SEEDS` (1).

use super::quiet::GTIDS;
use super::told_writers::number;
use super::{NONE, Rig, is_mysql, said};
use crate::parts::MySqlServer;
use crate::support::PATHS;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const WRITERS: u64 = 6;

/// After so long the first two rungs of the look-back have been looked at.
const TWO_RUNGS: Duration = Duration::from_secs(60);

pub const TABLES: &str = "create table t (k varchar(20) collate utf8mb4_unicode_ci, n int, v int not null default 0,
        updated_at timestamp(6) not null default now(6) on update now(6), primary key (k, n), index (updated_at));
    create table u (id bigint auto_increment primary key, v int not null default 0,
        updated_at datetime(6) not null default now(6) on update now(6), index (updated_at));
    insert into t (k, n) select char(97 + seq % 26), seq from seq_1_to_2000;
    insert into u (v) select seq from seq_1_to_2000";

/// Numbers that follow from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// One statement; some fail, as those of applications do.
pub fn statement(dice: &mut Dice) -> String {
    let (n, m) = (dice.below(2_500), dice.below(2_500));
    match dice.below(11) {
        0 | 1 => format!("update t set v = v + 1 where n = {n}"),
        2 => format!("update u set v = v + 1 where id between {n} and {}", n + 20),
        3 => format!("insert into t (k, n) values (char({}), {n}) on duplicate key update v = v + 10", 65 + n % 26),
        4 => format!("replace into u (id, v) values ({n}, {m})"),
        5 => format!("delete from t where n = {n}"),
        6 => format!("delete from u where id between {n} and {}", n + 2),
        7 => format!("update t set k = upper(k) where n = {n}"),
        8 => format!("update t set n = n + 3000 where n = {n}"),
        9 => format!(
            "update t join u on u.id = t.n set t.v = t.v + 1, u.v = u.v + 1 where t.n between {n} and {}",
            n + 5
        ),
        _ => format!("insert into u (v) select v from u where id < {}", 1 + n % 20),
    }
}

/// Names, columns and keys of those tables.
pub const TABLES_ROWS: [(&str, &str, &str); 2] = [("t", "k, n, v", "binary k, n"), ("u", "id, v, updated_at", "id")];

/// In which of these tables both sides have not the same rows, and which.
async fn differences(rig: &Rig, tables: &[(&str, &str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for (table, columns, key) in tables {
        let columns: Vec<String> = columns.split(", ").map(|column| format!("ifnull({column}, '-')")).collect();
        let columns = columns.join(", ");
        let here =
            rig.rows(&format!("SELECT {columns} FROM {table} ORDER BY {}", key.trim_start_matches("binary "))).await;
        let there = rig.source(&format!("select concat_ws('|', {columns}) from {table} order by {key}")).await;
        let differing: Vec<_> = here.iter().zip(&there).filter(|(here, there)| here != there).take(3).collect();
        if here.len() != there.len() || !differing.is_empty() {
            found.push(format!("{table}: {} and {} rows, {differing:?}", here.len(), there.len()));
        }
    }
    found
}

/// Both sides have the same rows of these tables.
pub async fn assert_equal(rig: &Rig, tables: &[(&str, &str, &str)], context: &str) {
    let differences = differences(rig, tables).await;
    assert!(differences.is_empty(), "{context} {differences:?}");
}

/// Transactions until it is over, or the server is gone, with rests of up to a time between them; how many were committed.
pub async fn write(
    mut conn: Conn,
    seed: u64,
    rest: Duration,
    statement: impl Fn(&mut Dice) -> String,
    is_over: Arc<AtomicBool>,
) -> u64 {
    let (mut dice, mut committed) = (Dice(seed), 0);
    while !is_over.load(Ordering::Relaxed) && conn.query_drop("begin").await.is_ok() {
        let ends = ["commit", "commit", "commit", "rollback"];
        for _ in 0..=dice.below(5) {
            // A deadlock has ended the transaction, and what follows commits by itself.
            drop(conn.query_drop(said(&statement(&mut dice))).await);
            if dice.below(4) == 0 {
                drop(conn.query_drop("savepoint s").await);
                drop(conn.query_drop(said(&statement(&mut dice))).await);
                drop(conn.query_drop("rollback to s").await);
            }
        }
        if dice.below(20) == 0 {
            drop(conn.query_drop(format!("do sleep({}.{})", dice.below(2), dice.below(10))).await);
        }
        drop(conn.query_drop(ends[dice.below(4) as usize]).await);
        committed += 1;
        if !rest.is_zero() {
            tokio::time::sleep(rest.mul_f64(dice.below(100) as f64 / 100.0)).await;
        }
    }
    drop(conn.disconnect().await);
    committed
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_equal_at_rest_after_six_writers() {
    at_rest(WRITERS, Duration::ZERO).await;
}

/// Between whose commits passes find that nothing was committed, and spare their looks.
#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_equal_at_rest_after_a_writer_that_rests() {
    at_rest(1, Duration::from_millis(40)).await;
}

async fn at_rest(writers: u64, rest: Duration) {
    let gtids: &[&str] = if is_mysql() { GTIDS } else { &[] };
    let server = Arc::new(MySqlServer::start(gtids));
    for (seed, path) in (1..=number("TOLD_SEEDS", 1)).flat_map(|seed| PATHS.map(|path| (seed, path))) {
        let rig = Rig::on(server.clone(), path, TABLES, NONE).await;
        let provider = rig.named();
        rig.pass_of(provider.clone()).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut writing = Vec::new();
        for writer in 1..=writers {
            let conn = server.connect(Some(&rig.name)).await;
            writing.push(tokio::spawn(write(conn, seed * 100 + writer, rest, statement, is_over.clone())));
        }
        let (began, mut passes) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(number("TOLD_SECONDS", 6)) {
            rig.pass_of(provider.clone()).await;
            passes += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        let mut committed = 0;
        for writer in writing {
            committed += writer.await.unwrap();
        }
        println!("{path:?}, seed {seed}: {committed} transactions, {passes} passes");
        assert!(passes > 2 && committed > 10, "{passes} passes, {committed} transactions");
        // What was committed later than ten seconds after it was stamped, while as many rows went, is seen by the next look
        // farther back: each 40 seconds.
        let ended = Instant::now();
        loop {
            let passed = rig.pass_of(provider.clone()).await;
            assert!(passed.problems.is_empty() && passed.caught_up_at.is_some(), "{passed:?}");
            let differences = differences(&rig, &TABLES_ROWS).await;
            if differences.is_empty() {
                break;
            }
            assert!(ended.elapsed() < TWO_RUNGS, "{path:?}, seed {seed}: {differences:?}");
        }
    }
}
