//! A worker that is called again and again: it keeps its connection to Postgres from one call to the next, and whatever
//! has happened to either side meanwhile is found as by a new one.

use crate::support::{Db, Home, PATHS, Path, Rig, Server, config, schema, until};
use crate::volume::set_up;
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use std::sync::Arc;
use std::time::Duration;

const JSON: &str = r#"{"t":{"primaryKey":"id","evolve":true,"columns":{"id":"INTEGER","v":"TEXT"}}}"#;
const STEPS: &str =
    "select pid from pg_stat_activity where application_name = 'pgflume step' and datname = current_database()";

/// A rig with one row, drained.
async fn drained(path: Path) -> Rig {
    drained_by(path, JSON).await
}

async fn drained_by(path: Path, json: &str) -> Rig {
    let rig = Rig::new(path, schema(json)).await;
    rig.db.sql("create table t (id int primary key, v text); insert into t values (1, 'one')").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT v FROM t").await, ["one"]);
    rig
}

/// Writes a row and drains it.
async fn goes_on(rig: &Rig, id: i32) {
    rig.db.sql(&format!("insert into t values ({id}, 'more')")).await;
    rig.drain().await;
    assert_eq!(rig.rows(&format!("SELECT v FROM t WHERE id = {id}")).await, ["more"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_of_a_call_serves_the_next_one() {
    let rig = drained(Path::File).await;
    let before = rig.db.all(STEPS).await;
    assert_eq!(before.len(), 1, "{before:?}");
    for id in 2..5 {
        goes_on(&rig, id).await;
        assert_eq!(rig.db.all(STEPS).await, before);
    }
    rig.worker.stop();
    until("it is closed", async || rig.db.all(STEPS).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_nobody_calls_for_is_closed() {
    let (db, home) = (Db::new().await, Home::new(Path::File));
    db.sql("create table t (id int primary key, v text)").await;
    set_up(&db.url(), &schema(JSON)).await;
    let worker = Worker::new(config(&db.url(), home.target(), schema(JSON))).keeping_for(Duration::from_millis(300));
    worker.drain(Duration::from_secs(25)).await.unwrap();
    until("it is closed", async || db.all(STEPS).await.is_empty()).await;
    let worker = Worker::new(config(&db.url(), home.target(), schema(JSON)));
    worker.drain(Duration::from_secs(25)).await.unwrap();
    until("a command's is closed with it", async || db.all(STEPS).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_replica_stays_open_between_two_calls() {
    let rig = drained(Path::File).await;
    let Target::File(path) = rig.home.target() else { unreachable!() };
    goes_on(&rig, 2).await;
    let log = path.with_file_name("replica.db-wal");
    assert!(!log.exists(), "what the call has written is in the file itself, which may be copied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_ended_meanwhile_is_replaced() {
    let rig = drained(Path::File).await;
    rig.db.sql(&format!("select pg_terminate_backend(pid) from ({STEPS}) as s")).await;
    until("it has ended", async || rig.db.all(STEPS).await.is_empty()).await;
    goes_on(&rig, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_the_source_between_two_calls_is_found() {
    for path in PATHS {
        let rig = drained(path).await;
        rig.db.sql("alter table t add column n int; update t set n = 7").await;
        rig.drain().await;
        assert_eq!(rig.rows("SELECT n FROM t").await, ["7"], "{path:?}");
        rig.db.sql("alter table t alter column n type text using 'n' || n").await;
        rig.drain().await;
        assert_eq!(rig.rows("SELECT n FROM t").await, ["n7"], "{path:?}");
        rig.db.sql("alter table t rename to old; create table t (id int primary key, v text); insert into t values (9, 'nine')").await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rig.drain().await;
        assert_eq!(rig.rows("SELECT id, v FROM t").await, ["9|nine"], "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_call_has_read_makes_no_table_wait_and_fails_no_call() {
    // No mark tells of DDL then.
    let rig = drained_by(Path::File, &JSON.replace("\"evolve\":true,", "")).await;
    rig.db.sql("alter table t rename to other").await;
    let done = rig.drain().await;
    assert!(done.paused.is_empty() && done.stuck.is_empty(), "{done:?}");
    rig.db.sql("alter table other rename to t").await;
    goes_on(&rig, 2).await;
    let state = "select oid::regprocedure::text from pg_proc where proname = 'catalog_state'";
    rig.db.sql(&format!("alter function {} rename to former_state", rig.db.one(state).await)).await;
    goes_on(&rig, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_made_anew_has_the_columns_of_now() {
    let rig = drained(Path::File).await;
    rig.db.sql("alter table t add column n int").await;
    rig.drain().await;
    rig.db.sql("alter table t drop column n").await;
    let Target::File(file) = rig.home.target() else { unreachable!() };
    std::fs::remove_file(file).unwrap();
    rig.drain().await;
    assert_eq!(rig.rows("SELECT group_concat(name) FROM pragma_table_info('t')").await, ["id,v"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn books_that_are_gone_between_two_calls_are_made_anew() {
    let rig = drained(Path::File).await;
    rig.db.sql("drop schema pgflume cascade").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    goes_on(&rig, 2).await;
    rig.db.sql("delete from pgflume.progress").await;
    rig.drain().await;
    goes_on(&rig, 3).await;
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_the_replica_between_two_calls_is_found() {
    for path in PATHS {
        let rig = drained(path).await;
        rig.replica("DROP TABLE t").await;
        rig.drain().await;
        assert_eq!(rig.rows("SELECT v FROM t").await, ["one"], "{path:?}");
        let Target::File(file) = rig.home.target() else { continue };
        std::fs::remove_file(file).unwrap();
        rig.drain().await;
        assert_eq!(rig.rows("SELECT v FROM t").await, ["one"]);
        goes_on(&rig, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_called_keeps_one_connection() {
    let (db, home) = (Db::new().await, Home::new(Path::File));
    db.sql("create table t (id int primary key, v text)").await;
    set_up(&db.url(), &schema(JSON)).await;
    let server = Arc::new(Server::start(config(&db.url(), home.target(), schema(JSON))).await);
    let mut pids = Vec::new();
    for _ in 0..3 {
        assert_eq!(server.sync().await.status, 200);
        pids.extend(db.all(STEPS).await);
    }
    pids.dedup();
    assert_eq!(pids.len(), 1, "{pids:?}");
    let others = "select count(*) from pg_stat_activity where application_name like 'pgflume %' and datname = current_database()";
    until("no other is open", async || db.one(others).await == "1").await;
}
