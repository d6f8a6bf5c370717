//! By SELECT alone: while nothing is committed, no table is read; and what the server's log does not tell is found all the same.

use super::manners::replicate;
use super::{NONE, Rig, is_mysql};
use crate::parts::MySqlServer;
use crate::support::{Home, Path, until};
use mysql_async::prelude::Queryable;
use pgflume::mysql::MySqlUrl;
use pgflume::provider::mysql::MySqlProvider;

use pgflume::pull::Pull;
use pgflume::replica::target::Target;
use std::sync::Arc;
use std::time::Duration;

pub const GTIDS: &[&str] = &["--gtid-mode=ON", "--enforce-gtid-consistency=ON"];

/// A server of its own, that nobody else writes to.
async fn rig(tables: &str) -> Rig {
    let server = Arc::new(MySqlServer::start(if is_mysql() { GTIDS } else { &[] }));
    Rig::on(server, Path::File, tables, NONE).await
}

/// `stamped` has stamps; `digested` has none, and is small; `large` is too large to be read at each look.
const TABLES: &str = "create table stamped (id int primary key, v int, updated_at datetime(6) not null default now(6) on update now(6), key (updated_at));
    create table digested (id int primary key, v int);
    create table large (id int primary key, v int);
    create table other (id int primary key);
    insert into stamped (id, v) select seq, 0 from seq_1_to_5000; insert into digested select seq, 0 from seq_1_to_5000;
    insert into large select seq, 0 from seq_1_to_20000";

fn pull(rig: &Rig, provider: MySqlProvider) -> Pull {
    Pull::new("p".into(), Arc::new(provider), rig.home.target(), false)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_is_read_while_nothing_is_committed() {
    let mut rig = rig(TABLES).await;
    (rig.stamps.is_compared, rig.stamps.compare) = (true, Some(Duration::from_secs(86_400)));
    let pull = pull(&rig, rig.named());
    assert_eq!(pull.pass().await.unwrap().rows, 30_000);
    pull.pass().await.unwrap(); // the first digests
    let before = rig.rows_read().await;
    assert_eq!(pull.pass().await.unwrap().rows, 0);
    let read = rig.rows_read().await - before;
    assert!(read < 1_000, "{read} rows were read");
    // One that the log does not have is not seen by that; any other commit has all looked at.
    rig.sql("set sql_log_bin = 0; update stamped set v = 1 where id = 7; insert into digested values (9000, 1); delete from large where id = 3")
        .await;
    let passed = pull.pass().await.unwrap();
    assert_eq!((passed.rows, passed.removed), (0, 0), "{passed:?}");
    rig.sql("insert into other values (1)").await;
    let passed = pull.pass().await.unwrap();
    assert_eq!((passed.rows, passed.removed), (3, 1), "{passed:?}");
    let report = pull.verify(&[], false).await.unwrap();
    assert!(report.tables.values().all(|table| table.differences() == 0), "{report:?}");
    // A commit is told by the log alone, whatever it was before: each is brought by the next pass.
    for v in 2..12 {
        rig.sql(&format!("update digested set v = {v} where id = 5")).await;
        assert_eq!(pull.pass().await.unwrap().rows, 1, "{v}");
        assert_eq!(pull.pass().await.unwrap().rows, 0, "{v}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_lacks_is_found_when_rows_are_to_be_compared() {
    let mut rig = rig(TABLES).await;
    (rig.stamps.is_compared, rig.stamps.compare) = (true, Some(Duration::from_secs(1)));
    let pull = pull(&rig, rig.named());
    pull.pass().await.unwrap();
    pull.pass().await.unwrap();
    rig.sql("set sql_log_bin = 0; update stamped set v = 1 where id = 7; update large set v = 1 where id = 3").await;
    let mut rows = 0;
    until("both are found", async || {
        rows += pull.pass().await.unwrap().rows;
        rows == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_and_a_filter_by_the_time_are_looked_at_whatever_is_committed() {
    let rig = rig("create table t (id int primary key, till datetime(6)); create view v as select * from t where till > utc_timestamp(6);
        insert into t select seq, utc_timestamp(6) + interval 1 second from seq_1_to_3")
    .await;
    let json = r#"{"v":{"primaryKey":"id","columns":{"id":"INTEGER"}},
        "f":{"source":"DATABASE.t","primaryKey":"id","columns":{"id":"INTEGER"},"where":"till > utc_timestamp(6)"}}"#;
    let json = json.replace("DATABASE", &rig.name);
    let wanted = pgflume::provider::mysql::Wanted::Defined(crate::support::schema(&json));
    let pull = pull(&rig, MySqlProvider { wanted, ..rig.provider() });
    pull.pass().await.unwrap();
    let gone = until("all have gone", async || {
        pull.pass().await.unwrap();
        rig.rows("SELECT (SELECT count(*) FROM v) + (SELECT count(*) FROM f)").await == ["0"]
    });
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("each pass looks at them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_failed_is_not_taken_for_one_that_brought_the_rows() {
    let rig = rig("create table t (id int primary key, v int, updated_at datetime(6) not null);
        insert into t values (1, 0, '2026-01-01 00:00:05'), (2, 0, '2026-01-01 00:00:09')")
    .await;
    let provider = rig.named();
    let good = || pull(&rig, provider.clone());
    good().pass().await.unwrap();
    good().pass().await.unwrap();
    // Its stamp is not the newest: the mark stays the same.
    rig.sql("update t set v = 1, updated_at = '2026-01-01 00:00:08' where id = 1").await;
    let Target::File(path) = rig.home.target() else { unreachable!() };
    let other = libsql::Builder::new_local(path).build().await.unwrap().connect().unwrap();
    other.execute("BEGIN IMMEDIATE", ()).await.unwrap();
    let failed = good().with_retries(0).pass().await.unwrap_err();
    assert!(failed.to_string().contains("locked"), "{failed}");
    other.execute("ROLLBACK", ()).await.unwrap();
    assert_eq!(good().pass().await.unwrap().rows, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_logs_nothing_of_what_it_replays_tells_of_it() {
    let gtids: &[&str] = if is_mysql() { GTIDS } else { &[] };
    let silent = if is_mysql() { "--log-replica-updates=OFF" } else { "--log-slave-updates=OFF" };
    let primary = MySqlServer::start(&[&["--server-id=101"], gtids].concat());
    let replica = Arc::new(MySqlServer::start(&[&["--server-id=102", silent], gtids].concat()));
    let (mut root, mut there, ..) = replicate(&primary, &replica).await;
    root.query_drop("create database d; create table d.t (id int primary key, v int); insert into d.t values (1, 0)")
        .await
        .unwrap();
    let mut rig = Rig::on(replica.clone(), Path::File, "do 1", NONE).await;
    rig.home = Home::new(Path::File);
    rig.sql(&format!("grant select on d.* to {}@'%'", rig.name)).await;
    let url = format!("mysql://{}:p%40%3A%2F%C3%9F@127.0.0.1:{}/d", rig.name, replica.port());
    let pull = pull(&rig, MySqlProvider { url: MySqlUrl::parse(&url).unwrap(), ..rig.named() });
    let mut shows = async |v: i64| {
        let found = there.query_first::<i64, _>("select v from d.t").await;
        found.ok().flatten() == Some(v)
    };
    until("it is replicated", async || shows(0).await).await;
    assert_eq!(pull.pass().await.unwrap().rows, 1);
    for v in 1..4 {
        pull.pass().await.unwrap();
        root.query_drop(format!("update d.t set v = {v}")).await.unwrap();
        until("it is replicated", async || shows(v).await).await;
        assert_eq!(pull.pass().await.unwrap().rows, 1, "{v}");
    }
}

/// Not even a count tells of it: it is seen by a look farther back, which is made though nothing was committed since.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_long_after_its_stamp_is_looked_for_all_the_same() {
    let rig = rig("create table t (id int primary key, updated_at datetime(6) not null default now(6)); insert into t (id) values (1), (2), (3)").await;
    let pull = pull(&rig, rig.named());
    pull.pass().await.unwrap();
    rig.sql("begin; insert into t values (9, now(6) - interval 30 second); delete from t where id = 1; commit").await;
    let seen = until("it is seen", async || {
        pull.pass().await.unwrap();
        rig.rows("SELECT group_concat(id) FROM (SELECT id FROM t ORDER BY id)").await == ["2,3,9"]
    });
    tokio::time::timeout(Duration::from_secs(55), seen).await.expect("each 40 seconds 80 are looked back");
}
