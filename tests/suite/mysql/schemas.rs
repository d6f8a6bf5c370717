//! Tables that are altered.

use super::Rig;
use crate::support::PATHS;

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_come_go_and_change_are_followed() {
    for path in PATHS {
        let rig =
            Rig::undefined(path, "create table t (id int primary key, v int, w int); insert into t values (1, 2, 3)")
                .await;
        rig.pass_of(rig.named()).await;
        rig.sql("alter table t add column x varchar(9) default 'n', drop column w, modify v varchar(9)").await;
        rig.sql("insert into t values (2, 'two', 'y'); create table u (id int primary key)").await;
        let passed = rig.pass_of(rig.named()).await;
        assert!(passed.problems.is_empty(), "{passed:?}");
        assert_eq!(rig.rows("SELECT id, v, x FROM t ORDER BY id").await, ["1|2|n", "2|two|y"]);
        assert_eq!(rig.rows("SELECT count(*) FROM u").await, ["0"]);
        rig.sql("alter table t drop primary key, add primary key (v)").await;
        let passed = rig.pass_of(rig.named()).await;
        assert!(passed.problems.is_empty(), "{passed:?}");
        rig.sql("insert into t values (2, 'three', 'z')").await;
        rig.pass_of(rig.named()).await;
        assert_eq!(rig.rows("SELECT id, v FROM t ORDER BY v").await, ["1|2", "2|three", "2|two"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_locks_is_left_aside_and_said() {
    use crate::mysql::server;
    use mysql_async::prelude::Queryable;
    let rig = Rig::undefined(
        crate::support::Path::File,
        "create table t (id int primary key); create table u (id int primary key); insert into u values (1)",
    )
    .await;
    let mut other = server().connect(Some(&rig.name)).await;
    other.query_drop("lock tables t write").await.unwrap();
    let passed = rig.pass_of(rig.named()).await;
    assert!(passed.problems["t"].contains("lock"), "{passed:?}");
    assert_eq!(rig.rows("SELECT id FROM u").await, ["1"]);
    other.query_drop("unlock tables").await.unwrap();
    assert!(rig.pass_of(rig.named()).await.problems.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_touch_no_stamp_are_seen_by_the_definition() {
    let stamp = "updated_at timestamp(6) not null default '2020-01-01'";
    for path in PATHS {
        let rig = Rig::undefined(
            path,
            &format!("create table t (id int primary key, v int, g int as (v + 1) virtual, {stamp}); insert into t (id, v) values (1, 10);
                create table a (id int primary key, v int, {stamp}); insert into a (id, v) values (1, 1)"),
        )
        .await;
        rig.pass_of(rig.named()).await;
        rig.sql("alter table t modify g int as (v + 2) virtual").await;
        // As a tool does that alters a table beside its writers.
        until_another_second(&rig).await;
        rig.sql(
            "create table b like a; insert into b (id, v) values (1, 2); rename table a to old, b to a; drop table old",
        )
        .await;
        let passed = rig.pass_of(rig.named()).await;
        assert!(passed.problems.is_empty(), "{passed:?}");
        assert_eq!(
            (rig.rows("SELECT g FROM t").await, rig.rows("SELECT v FROM a").await),
            (vec!["12".into()], vec!["2".into()])
        );
    }
}

/// Tables that are made within one second cannot be told apart.
async fn until_another_second(rig: &Rig) {
    let made = "select max(unix_timestamp(create_time)) < unix_timestamp() from information_schema.tables where table_schema = database()";
    crate::support::until("the next second", async || rig.source(made).await == ["1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_come_and_go_with_those_of_the_source() {
    for path in PATHS {
        let rig = Rig::undefined(
            path,
            "create table t (id int primary key, a varchar(20), b int, key one (a), unique key two (b)); insert into t values (1, 'x', 1)",
        )
        .await;
        let indexed = async || {
            rig.rows("SELECT group_concat(name) FROM (SELECT i.name AS name FROM pragma_index_list('t') l JOIN pragma_index_info(l.name) i ORDER BY 1)").await
        };
        rig.pass_of(rig.named()).await;
        assert_eq!(indexed().await, ["a,b"]);
        rig.sql("alter table t drop key one, add key three (b, a)").await;
        let passed = rig.pass_of(rig.named()).await;
        assert!(passed.problems.is_empty(), "{passed:?}");
        assert_eq!(indexed().await, ["a,b,b"], "one has gone, and one of two columns has come");
        rig.sql("drop index three on t; drop index two on t").await;
        rig.pass_of(rig.named()).await;
        assert_eq!(indexed().await, ["NULL"]);
        assert_eq!(rig.rows("SELECT id, a, b FROM t").await, ["1|x|1"]);
    }
}
