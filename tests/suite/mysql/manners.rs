//! What a server does to those who read it: it ends their statements and connections, it is a replica that lags, and it
//! has a socket.

use super::{NONE, Rig, is_mysql};
use crate::parts::MySqlServer;
use crate::support::{Home, PATHS, Path, until};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use pgflume::mysql::MySqlUrl;
use pgflume::provider::mysql::MySqlProvider;
use pgflume::pull::{Pull, Scheduled, Service};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_statements_and_connections_are_killed_ends_equal() {
    let tables = "create table t (id int primary key, v varchar(200)); insert into t select seq, repeat('x', 200) from seq_1_to_60000";
    for path in PATHS {
        let mut rig = Rig::told_by(&[], tables).await;
        rig.home = Home::new(path);
        let mut root = rig.server().connect(None).await;
        let copying = tokio::spawn({
            let pull = rig.pull().with_retries(1_000);
            // Whose connection ends before it is greeted is told that the server cannot be reached.
            async move {
                for _ in 0..30 {
                    if pull.pass().await.is_ok() {
                        return;
                    }
                }
                panic!("the copy does not end");
            }
        });
        let mut killed = 0;
        while !copying.is_finished() {
            let sql = "select concat(if(command = 'Binlog Dump' or id % 2 = 0, 'kill ', 'kill query '), id) from information_schema.processlist
                where user = ? and time_ms >= 0 limit 1";
            let sql = if is_mysql() { sql.replace("time_ms", "time") } else { sql.to_owned() };
            let kill: Option<String> = root.exec_first(sql, (&rig.name,)).await.unwrap();
            if let Some(kill) = kill.filter(|_| killed < 12) {
                killed += u32::from(root.query_drop(kill).await.is_ok());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        copying.await.unwrap();
        assert!(killed > 3, "{killed}");
        let report = rig.pull().verify(&[], false).await.unwrap();
        assert_eq!((report.tables["t"].rows, report.tables["t"].differences()), (60_000, 0), "{report:?}");
    }
}

/// A service that follows the server, in a task of its own.
fn follow(rig: &Rig) -> (Arc<Service>, JoinHandle<()>) {
    let (every, retry_delay) = (Duration::from_secs(3600), Duration::from_millis(50));
    let service = Arc::new(Service::new(vec![Scheduled { pull: rig.pull(), every, retry_delay, limiter: None }]));
    let running = tokio::spawn({
        let service = service.clone();
        async move { service.run().await }
    });
    service.hint("p");
    (service, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_of_a_server_that_ends_idle_sessions_after_a_second_goes_on() {
    let rig = Rig::told_by(
        &["--wait-timeout=1", "--interactive-timeout=1", "--net-write-timeout=1", "--net-read-timeout=1"],
        "create table t (id int primary key, v int); insert into t values (1, 0)",
    )
    .await;
    let (service, running) = follow(&rig);
    until("it is copied", async || service.report("p").unwrap().passes > 1).await;
    for v in 1..=3 {
        let slept = rig.source("select sleep(2.5)").await; // longer than any session may rest
        assert_eq!(slept, ["0"]);
        rig.sql(&format!("update t set v = {v}")).await;
        until("the commit is readable", async || rig.rows("SELECT v FROM t").await == [v.to_string()]).await;
    }
    assert_eq!(service.report("p").unwrap().failures, 0);
    service.stop();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn syncs_end_with_whoever_runs_them() {
    let rig = Rig::told_by(&[], "create table t (id int primary key, v int); insert into t values (1, 0)").await;
    let (service, running) = follow(&rig);
    let sessions = format!("select count(*) from information_schema.processlist where user = '{}'", rig.name);
    until("it follows", async || service.report("p").unwrap().passes > 1).await;
    assert_ne!(rig.source(&sessions).await, ["0"]);
    running.abort();
    until("its connections are closed", async || rig.source(&sessions).await == ["0"]).await;
}

/// Has one server replay the log of another; both as root, and the statements that stop and start that.
pub async fn replicate(primary: &MySqlServer, replica: &MySqlServer) -> (Conn, Conn, &'static str, &'static str) {
    let mut root = primary.connect(None).await;
    for sql in ["create user r@'%' identified by 'r'", "grant replication slave on *.* to r@'%'"] {
        root.query_drop(sql).await.unwrap();
    }
    let port = primary.port();
    let (change, start, stop) = match is_mysql() {
        true => (
            format!(
                "change replication source to source_host = '127.0.0.1', source_port = {port}, source_user = 'r', source_password = 'r', source_auto_position = 1, get_source_public_key = 1"
            ),
            "start replica",
            "stop replica sql_thread",
        ),
        false => (
            format!(
                "change master to master_host = '127.0.0.1', master_port = {port}, master_user = 'r', master_password = 'r', master_use_gtid = slave_pos"
            ),
            "start slave",
            "stop slave sql_thread",
        ),
    };
    let mut there = replica.connect(None).await;
    there.query_drop(change).await.unwrap();
    there.query_drop(start).await.unwrap();
    (root, there, stop, start)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_is_a_source_by_its_own_log() {
    let gtid: &[&str] = if is_mysql() { &["--gtid-mode=ON", "--enforce-gtid-consistency=ON"] } else { &[] };
    let primary = MySqlServer::start(&[&["--server-id=101"], gtid].concat());
    let updates = if is_mysql() { "--log-replica-updates=ON" } else { "--log-slave-updates=ON" };
    let replica = Arc::new(MySqlServer::start(&[&["--server-id=102", updates], gtid].concat()));
    let (mut root, mut there, stop, start) = replicate(&primary, &replica).await;
    root.query_drop(
        "create database d; create table d.t (id int primary key, v int); insert into d.t values (1, 0), (2, 0)",
    )
    .await
    .unwrap();
    let mut rig = Rig::on(replica.clone(), Path::File, "do 1", NONE).await;
    rig.home = Home::new(Path::File);
    rig.may_read_binlog(true).await;
    rig.sql(&format!("grant select on d.* to {}@'%'", rig.name)).await;
    let url =
        MySqlUrl::parse(&format!("mysql://{}:p%40%3A%2F%C3%9F@127.0.0.1:{}/d", rig.name, replica.port())).unwrap();
    let pull =
        || Pull::new("p".into(), Arc::new(MySqlProvider { url: url.clone(), ..rig.named() }), rig.home.target(), false);
    let shows = async |rows: &str| {
        let mut there = replica.connect(None).await;
        let found =
            there.query_first::<Option<String>, _>("select group_concat(id, ':', v order by id) from d.t").await;
        found.ok().flatten().flatten().as_deref() == Some(rows)
    };
    until("it is replicated", async || shows("1:0,2:0").await).await;
    let passed = pull().pass().await.unwrap();
    assert_eq!((passed.rows, passed.promise), (2, Some("exact")), "{passed:?}");
    // What it has not replayed yet is not there, and nothing is wrong.
    there.query_drop(stop).await.unwrap();
    root.query_drop("update d.t set v = 1 where id = 1; delete from d.t where id = 2; insert into d.t values (3, 3)")
        .await
        .unwrap();
    let passed = pull().pass().await.unwrap();
    assert_eq!((passed.rows, passed.removed, passed.problems.len()), (0, 0, 0), "{passed:?}");
    there.query_drop(start).await.unwrap();
    until("it has caught up", async || shows("1:1,3:3").await).await;
    let passed = pull().pass().await.unwrap();
    assert_eq!((passed.rows, passed.removed), (2, 1), "{passed:?}");
    let report = pull().verify(&[], false).await.unwrap();
    assert_eq!((report.tables["t"].rows, report.tables["t"].differences()), (2, 0), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_reached_by_its_socket() {
    let rig = Rig::undefined(Path::File, "create table t (id int primary key); insert into t values (1)").await;
    let socket = rig.server().socket();
    for mode in ["PREFERRED", "DISABLED"] {
        let url = format!(
            "mysql://{0}:p%40%3A%2F%C3%9F@localhost/{0}?socket={1}&ssl-mode={mode}",
            rig.name,
            socket.display()
        );
        let provider = MySqlProvider { url: MySqlUrl::parse(&url).unwrap(), ..rig.named() };
        let passed = Pull::new("p".into(), Arc::new(provider), rig.home.target(), false).pass().await.unwrap();
        assert!(passed.problems.is_empty(), "{mode}: {passed:?}");
    }
    assert_eq!(rig.rows("SELECT id FROM t").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_the_server_lowers_are_followed_as_it_writes_them() {
    if is_mysql() {
        return; // it takes that only when its files are made
    }
    let rig = Rig::told_by(
        &["--lower-case-table-names=1"],
        "create table Items (Id int primary key, V int); insert into ITEMS values (1, 1); create table Kids (id int primary key, p int, foreign key (p) references Items (Id) on delete cascade); insert into KIDS values (1, 1)",
    )
    .await;
    rig.pass_of(rig.named()).await;
    rig.sql("insert into items values (2, 2); delete from Items where id = 1; update ITEMS set v = 3").await;
    let passed = rig.pass_of(rig.named()).await;
    assert_eq!((passed.promise, passed.problems.len()), (Some("exact"), 0), "{passed:?}");
    assert_eq!(rig.rows("SELECT Id, V FROM items").await, ["2|3"]);
    assert_eq!(rig.rows("SELECT count(*) FROM kids").await, ["0"]);
}
