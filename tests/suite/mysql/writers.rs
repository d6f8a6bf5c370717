//! Writers that go on while a pass follows the other: at rest both sides are equal.

use super::{Rig, server};
use crate::support::PATHS;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WRITERS: u64 = 6;

/// How long they write.
const TIME: Duration = Duration::from_secs(8);

const TABLES: &str = "create table t (k varchar(20) collate utf8mb4_unicode_ci, n int, v int not null default 0,
        updated_at timestamp(6) not null default now(6) on update now(6), primary key (k, n), index (updated_at));
    create table u (id bigint auto_increment primary key, v int not null default 0,
        updated_at datetime(6) not null default now(6) on update now(6), index (updated_at));
    insert into t (k, n) select char(97 + seq % 26), seq from seq_1_to_2000;
    insert into u (v) select seq from seq_1_to_2000";

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// One statement; some fail, as those of applications do.
fn statement(dice: &mut Dice) -> String {
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

async fn write(database: String, seed: u64, is_over: Arc<AtomicBool>) -> u64 {
    let (mut conn, mut dice, mut committed) = (server().connect(Some(&database)).await, Dice(seed), 0);
    while !is_over.load(Ordering::Relaxed) {
        let ends = ["commit", "commit", "commit", "rollback"];
        conn.query_drop("begin").await.unwrap();
        for _ in 0..=dice.below(5) {
            // A deadlock has ended the transaction, and what follows commits by itself.
            drop(conn.query_drop(statement(&mut dice)).await);
            if dice.below(4) == 0 {
                drop(conn.query_drop("savepoint s").await);
                drop(conn.query_drop(statement(&mut dice)).await);
                drop(conn.query_drop("rollback to s").await);
            }
        }
        if dice.below(20) == 0 {
            conn.query_drop(format!("do sleep({}.{})", dice.below(2), dice.below(10))).await.unwrap();
        }
        drop(conn.query_drop(ends[dice.below(4) as usize]).await);
        committed += 1;
    }
    conn.disconnect().await.unwrap();
    committed
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_equal_at_rest_after_six_writers() {
    for path in PATHS {
        let rig = Rig::undefined(path, TABLES).await;
        rig.pass_of(rig.named()).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> =
            (1..=WRITERS).map(|seed| tokio::spawn(write(rig.name.clone(), seed, is_over.clone()))).collect();
        let (began, mut passes) = (Instant::now(), 0);
        while began.elapsed() < TIME {
            rig.pass_of(rig.named()).await;
            passes += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        let mut committed = 0;
        for writer in writers {
            committed += writer.await.unwrap();
        }
        assert!(passes > 2 && committed > 100, "{passes} passes, {committed} transactions");
        let passed = rig.pass_of(rig.named()).await;
        assert!(passed.problems.is_empty() && passed.caught_up_at.is_some(), "{passed:?}");
        for (table, columns, key) in [("t", ["k", "n", "v"], "k, n"), ("u", ["id", "v", "updated_at"], "id")] {
            let here = rig.rows(&format!("SELECT {} FROM {table} ORDER BY {key}", columns.join(", "))).await;
            let binary = if key == "id" { "id" } else { "binary k, n" };
            let there = format!("select concat_ws('|', {}) from {table} order by {binary}", columns.join(", "));
            let there = rig.source(&there).await;
            let differences: Vec<_> = here.iter().zip(&there).filter(|(here, there)| here != there).take(3).collect();
            assert!(
                here.len() == there.len() && differences.is_empty(),
                "{path:?} {table}: {} and {} rows, {differences:?}",
                here.len(),
                there.len()
            );
        }
    }
}
