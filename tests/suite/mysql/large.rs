//! Rows and keys that are long, and what a server takes at once.

use super::{Rig, is_mysql, server};
use crate::support::{PATHS, Path};
use mysql_async::prelude::Queryable;

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_larger_than_a_packet_of_the_server_arrives() {
    let rig = Rig::undefined(
        Path::File,
        "create table t (id int primary key, a longblob, b longblob); create table u (id int primary key); insert into u values (1);
         insert into t values (1, repeat('a', 10000000), null), (2, 'short', 'short'); update t set b = repeat('b', 10000000) where id = 1",
    )
    .await;
    let passed = rig.pass_of(rig.named()).await;
    assert!(passed.problems.is_empty(), "{passed:?}");
    assert_eq!(rig.rows("SELECT id, length(a), length(b) FROM t ORDER BY id").await, ["1|10000000|10000000", "2|5|5"]);
    assert_eq!(rig.rows("SELECT count(*) FROM u").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_rows_are_sent_about_once() {
    if is_mysql() {
        return; // what a login was sent is told by MariaDB alone
    }
    let tables = "create table t (id int primary key, v longtext, updated_at timestamp(6) not null default now(6) on update now(6), index (updated_at));
        insert into t (id, v) select seq, repeat('x', 1000000) from seq_1_to_60";
    let rig = Rig::undefined(Path::File, tables).await;
    let sent = async || -> u64 {
        let mut root = server().connect(None).await;
        let sql = format!("select sum(bytes_sent) from information_schema.user_statistics where user = '{}'", rig.name);
        root.query_first::<Option<u64>, _>(sql).await.unwrap().flatten().unwrap_or_default()
    };
    server().connect(None).await.query_drop("set global userstat = 1").await.unwrap();
    for (what, sql) in [("copied", "select 1"), ("changed", "update t set v = concat(v, 'y')")] {
        rig.sql(sql).await;
        let before = sent().await;
        rig.pass_of(rig.named()).await;
        let bytes = sent().await - before;
        assert!((60_000_000..150_000_000).contains(&bytes), "{what}: {bytes}");
        assert_eq!(
            rig.rows("SELECT count(*), sum(length(v)) % 1000 FROM t").await,
            [if what == "copied" { "60|0" } else { "60|60" }]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_keys_that_begin_alike_are_read_in_their_order() {
    if is_mysql() {
        return; // no MySQL takes a whole text as a key
    }
    let tables = "create table t (k text not null, v int, unique (k));
        insert into t select concat(repeat('p', 1500), seq), seq from seq_1_to_3000";
    for path in PATHS {
        let rig = Rig::undefined(path, tables).await;
        let passed = rig.pass_of(rig.named()).await;
        assert!(passed.problems.is_empty(), "{passed:?}");
        rig.sql("delete from t where v % 2 = 0; update t set v = -1 where v = 7").await;
        let passed = rig.pass_of(rig.named()).await;
        assert!(passed.problems.is_empty(), "{passed:?}");
        assert_eq!(rig.rows("SELECT count(*), min(v) FROM t").await, ["1500|-1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_column_can_hold_no_more_is_gone() {
    let rig = Rig::undefined(
        Path::File,
        "create table t (k varchar(20) character set utf8mb4 primary key, v int); insert into t values ('😀', 1), ('a', 2)",
    )
    .await;
    rig.pass_of(rig.named()).await;
    rig.sql("delete from t where v = 1; alter table t modify k varchar(20) character set latin1").await;
    let passed = rig.pass_of(rig.named()).await;
    assert!(passed.problems.is_empty(), "{passed:?}");
    assert_eq!(rig.rows("SELECT k FROM t").await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_an_empty_member_is_refused() {
    let rig = Rig::undefined(
        Path::File,
        "create table t (a enum('x', '') not null, id int, primary key (a, id)); insert into t values ('x', 1), ('', 2);
         create table u (id int primary key)",
    )
    .await;
    let passed = rig.pass_of(rig.named()).await;
    assert!(passed.problems["t"].contains("among its members"), "{passed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_with_a_word() {
    if is_mysql() {
        return; // how a login's connections ended is told by MariaDB alone
    }
    let rig = Rig::undefined(Path::File, "create table t (id int primary key)").await;
    let mut root = server().connect(None).await;
    let sql = format!(
        "select concat(total_connections, ' ', lost_connections, ' ', denied_connections) from information_schema.user_statistics where user = '{}'",
        rig.name
    );
    root.query_drop("set global userstat = 1").await.unwrap();
    rig.pass_of(rig.named()).await;
    rig.pass_of(rig.named()).await;
    crate::support::until("both are closed", async || {
        let sql = format!("select count(*) from information_schema.processlist where user = '{}'", rig.name);
        root.query_first::<u64, _>(sql).await.unwrap() == Some(0)
    })
    .await;
    let found: Option<String> = root.query_first(sql).await.unwrap();
    assert_eq!(found.as_deref(), Some("2 0 0"));
}
