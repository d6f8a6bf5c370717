//! The bar: a hundred thousand rows in one statement, ten thousand transactions from eight
//! connections, half of everything updated, half deleted; then both sides are equal.

use crate::support::{Db, PATHS, Path, Rig, newest_cluster, schema};
use crate::{parts::Pgbouncer, support};
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::demo::compare::{Verdict, compare};
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{SetupOptions, setup};
use pgflume::replica::Replica;
use pgflume::sync::Worker;
use std::sync::Arc;
use std::time::Duration;

const DEFINITION: &str = r#"{"bulk":{"primaryKey":"id","columns":{"id":"INTEGER","name":"TEXT","amount":"DECIMAL","ratio":"REAL","data":"JSON","at":"TEXT"},"indexes":["name"]},
    "pairs":{"primaryKey":["a","b"],"columns":{"a":"TEXT","b":"INTEGER","v":"TEXT"}}}"#;

const TABLES: &str = "create table bulk (id bigint primary key, name text, amount numeric, ratio float8, data jsonb, at timestamptz, unlisted text);
    create table pairs (a text, b int, v text, primary key (a, b))";

/// Row triggers that send images, as the original migration has them.
const IMAGES: &str = "create function image() returns trigger language plpgsql security definer set search_path = '' as $$begin
        perform pgmq.send('replicate_data_libsql', jsonb_build_object('record', to_jsonb(new), 'old_record', to_jsonb(old), 'type', tg_op, 'table', tg_table_name));
        return new; end$$;
    create trigger image after insert or update or delete on bulk for each row execute function image();
    create trigger image after insert or update or delete on pairs for each row execute function image()";

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Marks,
    Images,
}

pub async fn set_up(url: &str, schema: &Arc<pgflume::core::schema::Schema>) {
    let queue = QueueName::parse(DEFAULT_QUEUE).unwrap();
    setup(&PgUrl::parse(url).unwrap(), schema, &queue, &SetupOptions::default()).await.unwrap();
}

pub async fn verdicts(rig: &Rig) -> Vec<Verdict> {
    let replica = Replica::open(&rig.home.target()).await.unwrap();
    compare(&rig.db.pinned().await, &replica, rig.worker.schema(), rig.worker.queue()).await.unwrap()
}

async fn assert_equal(rig: &Rig) {
    for verdict in verdicts(rig).await {
        assert!(verdict.is_equal(), "{verdict:?}");
    }
}

async fn drained(worker: &Worker) {
    while worker.drain(Duration::from_secs(25)).await.unwrap().queued > 0 {}
}

/// `transactions` single-row transactions from each of eight connections, while a worker drains.
async fn single_rows(rig: &Rig, transactions: i32) {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let client = PgUrl::parse(&rig.db.url()).unwrap().connect().await.unwrap();
        writers.spawn(async move {
            for i in 0..transactions {
                let id = 1_000_000 + i * 8 + writer;
                let sql = match i % 4 {
                    0..=1 => format!("insert into bulk (id, name, ratio) values ({id}, 'w{writer}', {i} / 3.0); insert into pairs values ('w{writer}', {i}, 'x')"),
                    2 => format!("update bulk set name = 'again', amount = {i}.10 where id = {id} - 8; update pairs set b = -b where a = 'w{writer}' and b = {i} - 1"),
                    _ => format!("delete from bulk where id = {id} - 24; update bulk set ratio = random() where id = 7"),
                };
                client.batch_execute(&sql).await.unwrap();
            }
        });
    }
    while !writers.is_empty() {
        tokio::select! {
            done = writers.join_next() => done.unwrap().unwrap(),
            done = rig.worker.drain(Duration::from_secs(25)) => { done.unwrap(); }
        }
    }
}

async fn bulk(path: Path, format: Format) {
    let rig = Rig::new(path, schema(DEFINITION)).await;
    rig.db.sql(TABLES).await;
    match format {
        Format::Marks => set_up(&rig.db.url(), rig.worker.schema()).await,
        Format::Images => rig.db.sql(IMAGES).await,
    }
    rig.db.sql("insert into bulk select i, 'name ' || i, i / 7.0, random() * i, jsonb_build_object('i', i, 'e', null), now() - i * interval '1 s' from generate_series(1, 100000) i;
                insert into pairs select 'p' || i % 10, i, md5(i::text) from generate_series(1, 20000) i").await;
    drained(&rig.worker).await;
    assert_equal(&rig).await;
    single_rows(&rig, 1_250).await;
    rig.db.sql("update bulk set name = upper(name), amount = amount * 1.10 where id % 2 = 0; update pairs set a = 'q' || a where b % 2 = 0").await;
    rig.db.sql("delete from bulk where id % 4 < 2; delete from pairs where b % 4 < 2").await;
    drained(&rig.worker).await;
    assert_equal(&rig).await;
    assert_eq!(rig.db.dead().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_equal_by_marks_in_a_file() {
    bulk(Path::File, Format::Marks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_equal_by_marks_in_sqld() {
    bulk(Path::Sqld, Format::Marks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_equal_by_images_in_a_file() {
    bulk(Path::File, Format::Images).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_equal_by_images_in_sqld() {
    bulk(Path::Sqld, Format::Images).await;
}

/// The core on a rig of any kind.
async fn core(rig: &Rig) {
    rig.db.sql(TABLES).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.db.sql("insert into bulk select i, 'n', 1.10, 'NaN', '{}', now() from generate_series(1, 5000) i; update bulk set id = -id where id < 100; delete from bulk where id > 4000").await;
    drained(&rig.worker).await;
    single_rows(rig, 40).await;
    rig.db.sql("truncate bulk; insert into bulk select i, 'again' from generate_series(1, 10) i; insert into pairs values ('é', 1, null)").await;
    drained(&rig.worker).await;
    assert_equal(rig).await;
    pgflume::sync::pairing::nuke(&rig.worker, None, false).await.unwrap();
    assert_eq!(rig.rows("SELECT count(*) FROM bulk").await, ["0"]);
    rig.db.send(r#"{"v":1,"table":"bulk","keys":[["bad"],["1"]]}"#).await;
    assert_eq!(rig.drain().await.dead, 1);
    assert_eq!(rig.rows("SELECT name FROM bulk").await, ["again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_core_works_on_the_newest_postgres() {
    for path in PATHS {
        let db = Db::on(newest_cluster(), "with_pgmq").await;
        core(&Rig::with(db, support::Home::new(path), schema(DEFINITION))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_core_works_through_a_transaction_pooler() {
    let db = Db::new().await;
    let pooler = Pgbouncer::start(db.cluster().port());
    let home = support::Home::new(Path::File);
    let worker = Arc::new(Worker::new(support::config(&pooler.url(&db.name), home.target(), schema(DEFINITION))));
    let rig = Rig { db, home, worker };
    core(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leftover_images_of_a_captured_table_wait_while_it_is_locked() {
    let rig = Rig::new(Path::File, schema(DEFINITION)).await;
    rig.db.sql(TABLES).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.db.sql("insert into bulk (id, name) values (1, 'now')").await;
    rig.db.send(r#"{"type":"INSERT","table":"bulk","record":{"id":1,"name":"leftover"}}"#).await;
    rig.db.sql("insert into pairs values ('a', 1, 'v')").await;
    let admin = PgUrl::parse(&rig.db.url()).unwrap().connect().await.unwrap();
    admin.batch_execute("begin; alter table bulk add column x int").await.unwrap();
    let done = rig.drain().await;
    assert_eq!((done.queued, done.paused.len()), (2, 1));
    assert_eq!(rig.rows("SELECT v FROM pairs").await, ["v"]);
    admin.batch_execute("rollback").await.unwrap();
    assert_eq!(rig.drain().await.queued, 0);
    assert_eq!(rig.rows("SELECT name FROM bulk").await, ["now"], "an image counts as a mark");
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_works_through_a_transaction_pooler() {
    let db = Db::new().await;
    db.sql(TABLES).await;
    let pooler = Pgbouncer::start(db.cluster().port());
    set_up(&pooler.url(&db.name), &schema(DEFINITION)).await;
    db.sql("insert into bulk (id) values (1)").await;
    assert_eq!(db.queued().await, 1);
}
