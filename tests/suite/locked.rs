//! Somebody holds the queue, the letters or the bookkeeping, or there is too much to look at: nobody waits for ever,
//! no connection is left behind, and nothing is reported that is not so.

use crate::support::{Db, Home, Path, Rig, SECRET, Server, config, repository_schema, schema, until};
use crate::volume::set_up;
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::operate::dead;
use pgflume::postgres::books::dead_letters::Choice;
use pgflume::postgres::books::progress;
use pgflume::postgres::{PgUrl, queue};
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use std::time::Duration;
use tokio_postgres::Client;

const TABLE: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

async fn another(db: &Db) -> Client {
    PgUrl::parse(&db.url()).unwrap().connect().await.unwrap()
}

/// A captured table.
async fn captured() -> Rig {
    let rig = Rig::new(Path::File, schema(TABLE)).await;
    rig.db.sql("create table t (id int primary key, v text)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    rig
}

/// Nobody but the tests' own connections.
async fn nobody_waits(db: &Db) {
    let waiting = "select count(*) from pg_stat_activity where application_name like 'pgflume%' and datname = current_database() and wait_event_type = 'Lock'";
    until("nobody waits", async || db.one(waiting).await == "0").await;
}

/// Somebody rewrites the queue, and probes and calls go on coming.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_queue_is_locked_no_connection_is_left_waiting_for_it() {
    let (db, home) = (Db::new().await, Home::new(Path::File));
    let server = Server::start(config(&db.url(), home.target(), repository_schema())).await;
    db.send(r#"{"type":"INSERT","table":"orgs","record":{"id":"a"}}"#).await;
    assert_eq!(server.sync().await.status, 200);
    let other = another(&db).await;
    let locks = ["q_replicate_data_libsql", "q_replicate_data_libsql_dead"]
        .map(|table| format!("lock table pgmq.{table} in access exclusive mode"));
    other.batch_execute(&format!("begin; {}", locks.join("; "))).await.unwrap();
    let calls = [("GET", "/ready"), ("GET", "/status"), ("GET", "/metrics"), ("POST", "/sync"), ("POST", "/nuke")];
    let calls = calls.map(|(method, path)| server.call(method, path, Some(SECRET)));
    for answer in futures_util::future::join_all(calls).await {
        assert!(answer.status < 600, "{}", answer.body);
    }
    let (client, queue) = (db.pinned().await, QueueName::parse(DEFAULT_QUEUE).unwrap());
    let peeked = queue::peek(&client, &queue).await.unwrap_err();
    assert_eq!(peeked.sqlstate(), Some("55P03"), "the lock's own limit comes first: {peeked}");
    assert_eq!(queue::dead_depth(&client, &queue).await.unwrap(), 0, "no letter is made up");
    nobody_waits(&db).await;
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(server.sync().await.status, 200);
}

/// Whoever rewrites the queue waits for the step, and has it when the step has committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_whose_last_count_meets_a_lock_has_done_its_work() {
    let rig = captured().await;
    let Target::File(path) = rig.home.target() else { unreachable!() };
    let file = libsql::Builder::new_local(path).build().await.unwrap().connect().unwrap();
    file.execute("BEGIN IMMEDIATE", ()).await.unwrap();
    rig.db.sql("insert into t values (1, 'x')").await;
    let worker = Worker::new(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).ending_caught_up();
    let drain = tokio::spawn(async move { worker.drain(Duration::from_secs(25)).await });
    let locks = |mode: &str, granted: bool| {
        format!(
            "select count(*) from pg_locks where relation = 'pgmq.q_replicate_data_libsql'::regclass and mode = '{mode}' and granted = {granted}"
        )
    };
    until("the step has the queue", async || rig.db.one(&locks("RowExclusiveLock", true)).await != "0").await;
    let other = another(&rig.db).await;
    let locked = tokio::spawn(async move {
        let lock = "begin; lock table pgmq.q_replicate_data_libsql in access exclusive mode";
        other.batch_execute(lock).await.map(|()| other)
    });
    until("another waits for it", async || rig.db.one(&locks("AccessExclusiveLock", false)).await == "1").await;
    file.execute("ROLLBACK", ()).await.unwrap();
    let _other = locked.await.unwrap().unwrap();
    let done = drain.await.unwrap().unwrap();
    assert_eq!((done.processed, done.queued), (1, 0));
    assert_eq!(rig.rows("SELECT v FROM t").await, ["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bookkeeping_that_somebody_reads_is_waited_for_briefly_and_only_to_be_changed() {
    let rig = captured().await;
    let reader = another(&rig.db).await;
    reader.batch_execute("begin; select count(*) from pgflume.kept").await.unwrap();
    set_up(&rig.db.url(), rig.worker.schema()).await; // nothing to change
    reader.batch_execute("rollback; begin; lock table pgflume.kept in access share mode").await.unwrap();
    // As an older version left it.
    rig.db.sql("comment on schema pgflume is 'pgflume, bookkeeping 4'").await;
    rig.db.sql("alter table pgflume.progress drop column shape").await;
    reader.batch_execute("select count(*) from pgflume.progress").await.unwrap();
    let client = rig.db.pinned().await;
    let ensured = progress::ensure(&client, rig.worker.queue()).await.unwrap_err();
    assert_eq!(ensured.sqlstate(), Some("55P03"), "{ensured}");
    nobody_waits(&rig.db).await;
    reader.batch_execute("rollback").await.unwrap();
    progress::ensure(&rig.db.pinned().await, rig.worker.queue()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_somebody_holds_are_waited_for_briefly_and_dropped_by_nobody_who_has_gone() {
    let rig = captured().await;
    rig.db.send(r#"{"table":"t","keys":"nonsense"}"#).await;
    rig.drain().await;
    let other = another(&rig.db).await;
    other.batch_execute("begin; lock table pgmq.q_replicate_data_libsql_dead in access exclusive mode").await.unwrap();
    let listed = dead::list(&rig.worker, &Choice::default(), 10).await.unwrap_err();
    assert_eq!(listed.sqlstate(), Some("55P03"), "{listed}");
    other.batch_execute("rollback; begin; lock table pgmq.q_replicate_data_libsql_dead in share mode").await.unwrap();
    let (worker, waiting) = (
        rig.worker.clone(),
        "select count(*) from pg_locks l join pg_database d on d.oid = l.database where d.datname = current_database() and not l.granted",
    );
    let drop = tokio::spawn(async move { dead::drop_letters(&worker, &Choice::default()).await });
    until("it waits", async || rig.db.one(waiting).await == "1").await;
    drop.abort();
    other.batch_execute("rollback").await.unwrap();
    nobody_waits(&rig.db).await;
    until("its connection is gone", async || {
        rig.db.one("select count(*) from pg_stat_activity where application_name like 'pgflume%' and datname = current_database() and query like 'delete%'").await == "0"
    })
    .await;
    assert_eq!(rig.db.dead().await.len(), 1);
}

/// The view stands for a queue that has grown so long that counting it takes longer than anybody waits.
#[tokio::test]
async fn a_queue_that_takes_too_long_to_look_at_is_estimated() {
    let db = Db::new().await;
    db.sql("create view pgmq.q_long as select i::bigint as msg_id, now() as enqueued_at from generate_series(1, 2) i where pg_sleep(60 * i) is not null").await;
    let client = db.pinned().await;
    let queue = QueueName::parse("long").unwrap();
    assert_eq!(queue::depth(&client, &queue).await.unwrap(), 1, "nothing is known of a view, but that it is not empty");
    assert!(queue::peek(&client, &queue).await.unwrap());
    assert_eq!(queue::oldest_seconds(&client, &queue).await.unwrap(), None);
    assert_eq!(queue::depth(&client, &QueueName::parse(DEFAULT_QUEUE).unwrap()).await.unwrap(), 0);
}
