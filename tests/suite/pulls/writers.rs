//! Applications that write while pulls read: statements of all kinds, and what moves or replaces whole relations.

use pgflume::postgres::PgUrl;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

pub const SCHEMA: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
    "f":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"where":"v not like 'x%'"},
    "k":{"primaryKey":"k","columns":{"k":"TEXT","v":"TEXT"}},
    "p":{"primaryKey":["id","part"],"columns":{"id":"INTEGER","part":"INTEGER","v":"TEXT"}}}"#;

pub const TABLES: &str = "create table t (id int primary key, v text);
    create table f (id int primary key, v text);
    create table k (k text collate \"und-x-icu\" primary key, v text);
    create table p (id int, part int, v text, primary key (id, part)) partition by list (part);
    create table p0 partition of p for values in (0);
    create table p1 partition of p for values in (1);
    insert into t select i, 'first' from generate_series(1, 500) i;
    insert into f select i, case i % 2 when 0 then 'x' else 'y' end from generate_series(1, 500) i;
    insert into k select md5(i::text), 'first' from generate_series(1, 300) i;
    insert into p select i, i % 2, 'first' from generate_series(1, 500) i";

/// Until told otherwise, six applications and somebody who rearranges.
pub struct Writers {
    is_over: Arc<AtomicBool>,
    transactions: Arc<Semaphore>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    pub fn start(url: &str, seed: u64) -> Self {
        let (is_over, transactions) =
            (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)));
        let writer = |i| write(url.to_owned(), seed.wrapping_add(i), i, transactions.clone(), is_over.clone());
        let writers = (0..6).map(|i| tokio::spawn(writer(i)));
        let mut tasks: Vec<_> = writers.collect();
        tasks.push(tokio::spawn(rearrange(url.to_owned(), seed.wrapping_add(100), is_over.clone())));
        Self { is_over, transactions, tasks }
    }

    /// Lets them begin so many transactions before they wait for the next call: whoever brings a few rows at a time
    /// would else never be through on a busy machine.
    pub fn allow(&self, transactions: usize) {
        let left = self.transactions.available_permits();
        self.transactions.forget_permits(left.saturating_sub(transactions));
        self.transactions.add_permits(transactions.saturating_sub(left));
    }

    pub async fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.transactions.close();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// One application, in transactions that take their time and are sometimes rolled back, or prepared.
async fn write(url: String, seed: u64, number: u64, allowed: Arc<Semaphore>, is_over: Arc<AtomicBool>) {
    let client = PgUrl::parse(&url).unwrap().connect().await.unwrap();
    let mut dice = StdRng::seed_from_u64(seed);
    let mut transactions = 0;
    while !is_over.load(Ordering::Relaxed) {
        let Ok(permit) = allowed.acquire().await else { return };
        permit.forget();
        transactions += 1;
        client.batch_execute("begin").await.unwrap();
        let mut is_failed = false;
        for _ in 0..dice.random_range(1..5) {
            let (id, other) = (dice.random_range(1..600), dice.random_range(1..600));
            let table = ["t", "f"][dice.random_range(0..2)];
            let value = ["x", "y"][dice.random_range(0..2)];
            let sql = match dice.random_range(0..14) {
                0 | 1 => format!(
                    "insert into {table} values ({id}, '{value}{other}') on conflict (id) do update set v = excluded.v"
                ),
                2 => format!("update {table} set v = '{value}{other}' where id between {id} and {id} + 5"),
                3 => format!("delete from {table} where id = {id}"),
                4 => format!(
                    "update {table} set id = -id where id = {id}; update {table} set id = abs(id) where id = -{other}"
                ),
                5 => format!(
                    "savepoint a; update {table} set v = 'lost' where id = {id}; rollback to a; update {table} set v = 'kept{other}' where id = {id}"
                ),
                6 => format!(
                    "savepoint b; insert into p values ({id}, {}, 'deep') on conflict do nothing; release b",
                    id % 2
                ),
                7 => format!("update p set v = 'v{other}' where id = {id}"),
                8 => format!("update p set part = 1 - part where id = {id} and part in (0, 1)"),
                9 => format!("delete from p where id = {id}"),
                10 => format!(
                    "insert into k values (md5('{id}'), 'k{other}') on conflict (k) do update set v = excluded.v"
                ),
                11 => {
                    format!("delete from k where k = md5('{id}'); update k set k = upper(k) where k = md5('{other}')")
                }
                12 => format!("select * from {table} where id = {id} for update"),
                _ => format!("select pg_sleep({})", f64::from(dice.random_range(0..4_u32)) / 20.0),
            };
            if let Err(e) = client.batch_execute(&sql).await {
                // Two writers met: a deadlock, the same key, or a row that went to another partition.
                assert!(
                    e.code().is_some_and(|code| ["40P01", "23505", "40001"].contains(&code.code())),
                    "{sql}: {e:?}"
                );
                is_failed = true;
                break;
            }
        }
        let name = format!("w{seed}_{number}_{transactions}");
        let end = match dice.random_range(0..10) {
            _ if is_failed => "rollback".to_owned(),
            0 | 1 => "rollback".to_owned(),
            2 => format!("prepare transaction '{name}'"),
            _ => "commit".to_owned(),
        };
        match client.batch_execute(&end).await {
            Ok(()) if end.starts_with("prepare") => {
                tokio::time::sleep(Duration::from_millis(dice.random_range(0..100))).await;
                let how = if dice.random_bool(0.8) { "commit" } else { "rollback" };
                client.batch_execute(&format!("{how} prepared '{name}'")).await.unwrap();
            }
            done => done.unwrap(),
        }
    }
}

/// What moves or replaces whole relations.
async fn rearrange(url: String, seed: u64, is_over: Arc<AtomicBool>) {
    let client = PgUrl::parse(&url).unwrap().connect().await.unwrap();
    let mut dice = StdRng::seed_from_u64(seed);
    // Another each time, whoever wrote to this database before.
    static NUMBER: AtomicU32 = AtomicU32::new(10);
    // A partition is attached some passes after its rows were written: nothing of them is young then.
    let (mut number, mut is_ready, mut is_attached) = (0, false, false);
    while !is_over.load(Ordering::Relaxed) {
        let sql = match dice.random_range(0..10) {
            0 => "vacuum full t".to_owned(),
            1 => "cluster f using f_pkey".to_owned(),
            2 => "begin; truncate f; insert into f select i, 'again' from generate_series(1, 300) i; commit".to_owned(),
            3 => "vacuum (freeze) p0, t".to_owned(),
            4 => "begin; truncate k; commit; insert into k select md5(i::text), 'again' from generate_series(1, 100) i on conflict do nothing"
                .to_owned(),
            5 if !is_ready && is_attached => {
                is_attached = false;
                format!("alter table p detach partition p{number} concurrently; drop table p{number}")
            }
            _ if is_ready => {
                (is_ready, is_attached) = (false, true);
                format!("alter table p attach partition p{number} for values in ({number})")
            }
            _ => {
                number = NUMBER.fetch_add(1, Ordering::Relaxed);
                (is_ready, is_attached) = (true, false);
                format!(
                    "create table p{number} (id int not null, part int not null, v text, primary key (id, part));
                     insert into p{number} select i, {number}, 'attached' from generate_series(1, 40) i"
                )
            }
        };
        for statement in sql.split(';') {
            match client.batch_execute(statement).await {
                // It was detached and dropped before.
                Err(e) if e.code().is_some_and(|code| ["42P01", "40P01", "42809"].contains(&code.code())) => {
                    client.batch_execute("rollback").await.unwrap();
                    break;
                }
                done => done.unwrap_or_else(|e| panic!("{statement}: {e:?}")),
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.random_range(20..150))).await;
    }
}
