//! What has changed is found without triggers: rows by the transaction that wrote them, what is gone by a count, both at
//! one snapshot. Six writers, and at every look all that was found so far equals the snapshot.

use crate::support::{Db, cluster, schema};
use futures_util::TryStreamExt;
use pgflume::core::queue_name::QueueName;
use pgflume::core::value::{Cell, Key};
use pgflume::postgres::catalog::{self, SourceTable};
use pgflume::postgres::rows::versions::{self, Leaves, Since, Version};
use pgflume::postgres::rows::{self, Server, absent, page};
use pgflume::postgres::{Client, PgUrl, Purpose};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SCHEMA: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
    "f":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"where":"v not like 'x%'"},
    "p":{"primaryKey":["id","part"],"columns":{"id":"INTEGER","part":"INTEGER","v":"TEXT"}}}"#;

const TABLES: &str = "create table t (id int primary key, v text);
    create table f (id int primary key, v text);
    create table p (id int, part int, v text, primary key (id, part)) partition by list (part);
    create table p0 partition of p for values in (0);
    create table p1 partition of p for values in (1);
    insert into t select i, 'first' from generate_series(1, 500) i;
    insert into f select i, case i % 2 when 0 then 'x' else 'y' end from generate_series(1, 500) i;
    insert into p select i, i % 2, 'first' from generate_series(1, 500) i";

/// All that was found of one table.
#[derive(Default)]
struct Mirror {
    rows: BTreeMap<Key, Vec<Cell>>,
    since: Option<u64>,
    leaves: Leaves,
    /// Looks at which rows had gone, and changed rows in all.
    removals: usize,
    changes: usize,
}

/// Whether what was found equals the snapshot, at which this transaction reads.
async fn look(client: &Client, source: &SourceTable, mirror: &mut Mirror) {
    let oldest_open = versions::oldest_open(client).await.unwrap();
    let mut leaves = versions::leaves(client, source).await.unwrap();
    let (count, there) = loop {
        let is_new = |leaf: &&u32| !mirror.leaves.files.contains_key(leaf);
        let whole: Vec<u32> = leaves.files.keys().filter(is_new).copied().collect();
        let since = Since::new(mirror.since, oldest_open, &whole);
        let mut count = 0;
        for start in (0..leaves.blocks).step_by(3) {
            let walked = versions::walk(client, source, start..start + 3, since).await.unwrap();
            count += walked.count;
            for (leaf, places) in walked.places {
                mirror.changes += places.len();
                for version in versions::fetch(client, source, leaf, &places).await.unwrap() {
                    match version {
                        Version::Row(key, cells) => drop(mirror.rows.insert(key, cells)),
                        Version::Gone(key) => drop(mirror.rows.remove(&key)),
                        Version::Unfit(key, problem) => panic!("{key:?} {problem}"),
                    }
                }
            }
        }
        let mut there = BTreeMap::new();
        let mut rows = page::read(client, source, None, 1_000_000).await.unwrap();
        while let Some(row) = rows.try_next().await.unwrap() {
            let (key, cells) = row.unwrap();
            there.insert(key, cells);
        }
        // What was attached since the first question is among what was read, but its rows are old.
        let now = versions::leaves(client, source).await.unwrap();
        if std::mem::replace(&mut leaves, now).files.keys().eq(leaves.files.keys()) {
            break (count, there);
        }
    };
    assert!(count <= mirror.rows.len() as i64, "{}: a row was missed", source.table.name);
    if count < mirror.rows.len() as i64 {
        mirror.removals += 1;
        let keys: Vec<Key> = mirror.rows.keys().cloned().collect();
        let texts: Vec<Vec<String>> =
            keys.iter().map(|key| key.iter().map(|cell| cell.to_postgres_text().unwrap()).collect()).collect();
        for gone in absent::among(client, source, &texts).await.unwrap() {
            mirror.rows.remove(&keys[gone]);
        }
    }
    (mirror.leaves, mirror.since) = (leaves, Some(oldest_open));
    let differs =
        |(key, cells): &(&Key, &Vec<Cell>)| there.get(*key) != Some(cells) || mirror.rows.get(*key) != Some(cells);
    let differences: Vec<_> = mirror.rows.iter().chain(&there).filter(differs).take(5).collect();
    assert!(differences.is_empty(), "{}: {differences:?}", source.table.name);
}

/// One application: statements of all kinds, in transactions that take their time and are sometimes rolled back.
async fn write(url: String, seed: u64, is_over: Arc<AtomicBool>) {
    let client = PgUrl::parse(&url).unwrap().connect().await.unwrap();
    let mut dice = StdRng::seed_from_u64(seed);
    while !is_over.load(Ordering::Relaxed) {
        client.batch_execute("begin").await.unwrap();
        let mut is_failed = false;
        for _ in 0..dice.random_range(1..5) {
            let (id, other) = (dice.random_range(1..600), dice.random_range(1..600));
            let table = ["t", "f"][dice.random_range(0..2)];
            let value = ["x", "y"][dice.random_range(0..2)];
            let sql = match dice.random_range(0..11) {
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
        let end = if is_failed || dice.random_bool(0.2) { "rollback" } else { "commit" };
        client.batch_execute(end).await.unwrap();
    }
}

/// What moves or replaces whole relations.
async fn rearrange(url: String, seed: u64, is_over: Arc<AtomicBool>) {
    let client = PgUrl::parse(&url).unwrap().connect().await.unwrap();
    let mut dice = StdRng::seed_from_u64(seed);
    // A partition is attached some looks after its rows were written: nothing of them is young then.
    let (mut number, mut is_ready) = (10, false);
    while !is_over.load(Ordering::Relaxed) {
        let sql = match dice.random_range(0..8) {
            0 => "vacuum full t".to_owned(),
            1 => "cluster f using f_pkey".to_owned(),
            2 => "begin; truncate f; insert into f select i, 'again' from generate_series(1, 300) i; commit".to_owned(),
            3 => "vacuum (freeze) p0, t".to_owned(),
            _ if is_ready => {
                is_ready = false;
                format!(
                    "alter table p attach partition p{number} for values in ({number}); drop table if exists p{}",
                    number - 1
                )
            }
            _ => {
                (number, is_ready) = (number + 1, true);
                format!(
                    "create table p{number} (id int not null, part int not null, v text, primary key (id, part));
                     insert into p{number} select i, {number}, 'attached' from generate_series(1, 40) i"
                )
            }
        };
        for statement in sql.split(';') {
            client.batch_execute(statement).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(dice.random_range(20..150))).await;
    }
}

async fn reader(db: &Db) -> Client {
    db.sql("do $$ begin create role pull_reader login; exception when duplicate_object then end $$").await;
    db.sql("grant select on t, f, p to pull_reader").await;
    let mut url = url::Url::parse(&db.url()).unwrap();
    url.set_username("pull_reader").unwrap();
    PgUrl::parse(url.as_str()).unwrap().pinned(Purpose::Step).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn under_writers_every_look_equals_its_snapshot() {
    let db = Db::on(cluster(), "template1").await;
    db.sql(TABLES).await;
    let (client, queue) = (reader(&db).await, QueueName::parse("none").unwrap());
    let schema = schema(SCHEMA);
    let (server, is_over) = (Server::ask(&client).await.unwrap(), Arc::new(AtomicBool::new(false)));
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let writers = (0..6).map(|i| tokio::spawn(write(db.url(), seed.wrapping_add(i), is_over.clone())));
    let mut writers: Vec<_> = writers.collect();
    writers.push(tokio::spawn(rearrange(db.url(), seed.wrapping_add(100), is_over.clone())));
    let mut mirrors: BTreeMap<String, Mirror> = BTreeMap::new();
    let mut looks = 0;
    while looks < 120 {
        let tables = catalog::read(&client, &schema, &queue).await.unwrap().tables;
        let sources: Vec<&SourceTable> = tables.values().collect();
        match rows::begin(&client, &sources, server).await {
            Err(e) if e.is_locked() => {
                client.rollback().await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            begun => begun.unwrap(),
        }
        for source in &sources {
            look(&client, source, mirrors.entry(source.table.name.clone()).or_default()).await;
        }
        client.commit().await.unwrap();
        looks += 1;
    }
    is_over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let told: Vec<_> = mirrors.iter().map(|(name, m)| (name, m.changes, m.removals, m.leaves.files.len())).collect();
    println!("{told:?}");
    let names: BTreeSet<&str> = mirrors.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["f", "p", "t"]));
    assert!(mirrors.values().all(|mirror| mirror.changes > 200 && mirror.removals > 1), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_where_leaves_out_is_gone_whatever_else_is_wrong_with_it() {
    let db = Db::on(cluster(), "template1").await;
    db.sql("create table g (id int primary key, n numeric, h boolean); insert into g values (1, 5.5, true), (2, 5.5, false), (3, 5, false)")
        .await;
    let (client, queue) = (db.pinned().await, QueueName::parse("none").unwrap());
    let json = r#"{"g":{"primaryKey":"id","columns":{"id":"INTEGER","n":"INTEGER"},"where":"not h"}}"#;
    let tables = catalog::read(&client, &schema(json), &queue).await.unwrap().tables;
    let source = &tables["g"];
    rows::begin(&client, &[source], Server::ask(&client).await.unwrap()).await.unwrap();
    let now = versions::oldest_open(&client).await.unwrap();
    let walked = versions::walk(&client, source, 0..1, Since::new(None, now, &[])).await.unwrap();
    assert_eq!((walked.count, walked.places.len()), (2, 1));
    let (leaf, places) = walked.places.into_iter().next().unwrap();
    let found = versions::fetch(&client, source, leaf, &places).await.unwrap();
    assert_eq!(found.len(), 3);
    assert!(found.contains(&Version::Gone(vec![Cell::Integer(1)])), "{found:?}");
    assert!(found.contains(&Version::Row(vec![Cell::Integer(3)], vec![Cell::Integer(3), Cell::Integer(5)])));
    let is_unfit =
        |version: &Version| matches!(version, Version::Unfit(key, why) if key == &["2"] && why.contains("\"n\""));
    assert!(found.iter().any(is_unfit), "{found:?}");
}
