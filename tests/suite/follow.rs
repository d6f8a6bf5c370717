//! `serve --follow`: changes arrive without anybody's call, whatever happens in between.

use crate::limits::assert_equal;
use crate::support::{Db, Home, PATHS, Path, Rig, Server, config, schema, until};
use crate::volume::set_up;
use pgflume::demo::postgres::Stop;
use pgflume::postgres::PgUrl;
use std::time::Duration;

const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
    "other":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

/// Both tables captured, and a worker that follows.
async fn followed(db: Db, path: Path) -> (Rig, Server) {
    let rig = Rig::with(db, Home::new(path), schema(TABLES));
    rig.db.sql("create table t (id int primary key, v text); create table other (id int primary key, v text)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let server = Server::following(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    (rig, server)
}

async fn arrives(rig: &Rig, sql: &str, expected: &str) {
    until(&format!("{sql} gives {expected}"), async || rig.rows(sql).await == [expected]).await;
}

async fn tables_are_there(rig: &Rig) {
    arrives(rig, "SELECT count(*) FROM sqlite_master WHERE name IN ('t', 'other')", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_arrive_without_a_call_and_calls_work_beside_it() {
    for path in PATHS {
        let (rig, server) = followed(Db::new().await, path).await;
        tables_are_there(&rig).await;
        for i in 1..=20 {
            rig.db.sql(&format!("insert into t values ({i}, 'a'); update t set v = 'b{i}' where id = {i}")).await;
            arrives(&rig, "SELECT max(id) || max(v) FROM t WHERE id = (SELECT max(id) FROM t)", &format!("{i}b{i}"))
                .await;
        }
        let calls = (0..5).map(|_| server.sync());
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        rig.db.sql("truncate t; insert into other values (1, 'x')").await;
        arrives(&rig, "SELECT count(*) FROM other", "1").await;
        arrives(&rig, "SELECT count(*) FROM t", "0").await;
        assert_eq!(server.call("GET", "/ready", None).await.status, 200);
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nuke_gets_its_turn_and_all_rows_come_back() {
    let (rig, server) = followed(Db::new().await, Path::File).await;
    tables_are_there(&rig).await;
    let writer = async {
        for i in 0..200 {
            rig.db.sql(&format!("insert into t select g, 'v' from generate_series({i} * 10, {i} * 10 + 9) g")).await;
        }
    };
    let nukes = async {
        for _ in 0..3 {
            let answer = server.call("POST", "/nuke", Some(crate::support::SECRET)).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    };
    futures_util::join!(writer, nukes);
    arrives(&rig, "SELECT count(*) FROM t", "2000").await;
    until("nothing is left", async || rig.db.queued().await == 0).await;
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_may_stop_and_come_back() {
    let (cluster, db) = crate::errors::strict().await;
    let (rig, server) = followed(db, Path::File).await;
    tables_are_there(&rig).await;
    rig.db.sql("insert into t values (1, 'before')").await;
    arrives(&rig, "SELECT v FROM t WHERE id = 1", "before").await;
    let url = rig.db.url();
    tokio::task::spawn_blocking(move || {
        cluster.stop(Stop::Immediate).unwrap();
        cluster.start_again().unwrap();
    })
    .await
    .unwrap();
    let client = PgUrl::parse(&url).unwrap().connect().await.unwrap();
    client.batch_execute("update t set v = 'after' where id = 1").await.unwrap();
    arrives(&rig, "SELECT v FROM t WHERE id = 1", "after").await;
    until("it is ready again", async || server.call("GET", "/ready", None).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_table_that_waits_neither_hold_up_others_nor_keep_it_busy() {
    let (rig, server) = followed(Db::new().await, Path::File).await;
    tables_are_there(&rig).await;
    rig.db.sql("alter table t rename column v to w").await;
    rig.db.sql("insert into t values (1, 'waits')").await;
    until("the table waits", async || server.call("GET", "/ready", None).await.body.contains("table")).await;
    rig.db.sql("insert into other values (1, 'x')").await;
    arrives(&rig, "SELECT v FROM other", "x").await;
    let transactions = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
    let count = async || -> i64 {
        rig.db.sql("select pg_stat_clear_snapshot()").await;
        rig.db.one(transactions).await.parse().unwrap()
    };
    // Postgres counts late, and the catalog is read again after the change: only what goes on is a loop.
    let mut spent = Vec::new();
    while spent.last().is_none_or(|spent| *spent >= 400) {
        assert!(spent.len() < 4, "{spent:?} transactions, each in three seconds");
        let before = count().await;
        tokio::time::sleep(Duration::from_secs(3)).await; // a stretch to count in
        spent.push(count().await - before);
    }
    rig.db.sql("alter table t rename column w to v").await;
    arrives(&rig, "SELECT v FROM t", "waits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_it_is_told_to() {
    let (rig, mut server) = followed(Db::new().await, Path::File).await;
    tables_are_there(&rig).await;
    server.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), server.task.take().unwrap()).await.unwrap().unwrap().unwrap();
}

/// Somebody who rewrites the queue holds it for long: nobody piles up behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_queue_is_waited_for_on_one_connection() {
    let (rig, _server) = followed(Db::new().await, Path::File).await;
    tables_are_there(&rig).await;
    let other = PgUrl::parse(&rig.db.url()).unwrap().connect().await.unwrap();
    other.batch_execute("begin; lock table pgmq.q_replicate_data_libsql in access exclusive mode").await.unwrap();
    let waiting = "select count(*) from pg_stat_activity where application_name like 'pgflume%' and datname = current_database() and wait_event_type = 'Lock'";
    until("it waits", async || rig.db.one(waiting).await == "1").await;
    until("it gives up", async || rig.db.one(waiting).await == "0").await;
    other.batch_execute("rollback").await.unwrap();
    rig.db.sql("insert into t values (1, 'after')").await;
    arrives(&rig, "SELECT v FROM t", "after").await;
}
