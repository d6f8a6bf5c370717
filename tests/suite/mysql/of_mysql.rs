//! What only a MySQL has: these tests do nothing against a MariaDB.

use super::{Rig, is_mysql};
use mysql_async::prelude::Queryable;
use pgflume::mysql::MySqlUrl;
use pgflume::provider::mysql::MySqlProvider;
use pgflume::pull::Pull;
use std::sync::Arc;

/// Tables of what a MySQL alone keeps, or logs in its own way.
const TABLES: &str = "create table j (id int primary key, j json, k json, v int, s varchar(20) invisible default 'hidden');
    insert into j (id, j, k, v) select seq, json_object('a', seq, 'b', repeat('x', 100), 'c', json_array(1, 2.5, true, null)), '[18446744073709551615, 1e300, -0.5]', 0 from seq_1_to_300;
    create table v (id int primary key, e vector(3), w int, unique key ((w + 1))); insert into v (id, e, w) values (1, string_to_vector('[1,2.5,-3]'), 1), (2, null, 2);
    set sql_generate_invisible_primary_key = 1; create table g (v int); insert into g values (1), (2), (3);
    create table i (id int primary key, a int, b int); insert into i values (1, 10, 100), (2, 20, 200)";

const WRITES: [&str; 8] = [
    "update j set j = json_set(j, '$.a', -1) where id = 5; update j set j = json_remove(j, '$.b'), v = 1 where id = 6; delete from j where id = 7",
    "update v set e = string_to_vector('[0,0,1]') where id = 1; insert into v (id, e, w) values (3, string_to_vector('[9,9,9]'), 3)",
    "update g set v = 20 where v = 2; delete from g where v = 3; insert into g values (4)",
    "alter table i add column m varchar(9) default 'new' after id, algorithm = instant; update i set a = 11 where id = 1; insert into i values (3, 'm', 30, 300)",
    "alter table i drop column a, algorithm = instant; update i set b = 201 where id = 2; insert into i values (4, 'n', 400)",
    "alter table i rename column b to c; delete from i where id = 3",
    "set gtid_next = 'AUTOMATIC:tagged'; update j set v = 7 where id = 9; set gtid_next = 'AUTOMATIC'; update j set v = 8 where id = 10",
    "begin; update j set v = v + 1 where id < 200; savepoint s; delete from j; rollback to s; commit",
];

async fn assert_equal(rig: &Rig, promise: &str, context: &str) {
    let passed = rig.pass_of(rig.named()).await;
    assert_eq!((passed.problems.len(), passed.promise), (0, Some(promise)), "{context}: {passed:?}");
    let report = rig.pull().verify(&[], false).await.unwrap();
    assert_eq!(report.tables.len(), 4, "{context}: {report:?}");
    for (name, table) in &report.tables {
        assert_eq!(table.differences(), 0, "{context}, {name}: {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_logs_in_its_own_way_is_read() {
    if !is_mysql() {
        return;
    }
    for (arguments, promise) in [
        (&["--binlog-row-value-options=PARTIAL_JSON", "--binlog-row-image=MINIMAL"][..], "exact"),
        (&["--binlog-transaction-compression=ON", "--binlog-row-metadata=FULL"], "exact"),
        (&["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"], "exact_but"),
        (&["--binlog-checksum=NONE", "--binlog-rows-query-log-events=ON", "--binlog-row-event-max-size=256"], "exact"),
    ] {
        let rig = Rig::told_by(arguments, TABLES).await;
        assert_equal(&rig, promise, "the first copy").await;
        for sql in WRITES {
            if promise == "exact_but" && sql.contains("gtid_next") {
                continue;
            }
            rig.sql(sql).await;
            assert_equal(&rig, promise, &format!("{arguments:?}: {sql}")).await;
        }
        let j = rig.rows("SELECT j FROM j WHERE id = 5").await;
        assert!(j[0].contains("\"a\": -1"), "{j:?}");
        assert_eq!(rig.rows("SELECT hex(e) FROM v WHERE id = 1").await, ["00000000000000000000803F"]);
    }
}

/// The plugin of MySQL's logins asks for the server's key where the connection is not encrypted.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_told_to_the_right_server_only() {
    if !is_mysql() {
        return;
    }
    let rig =
        Rig::undefined(crate::support::Path::File, "create table t (id int primary key); insert into t values (1)")
            .await;
    let port = rig.server().port();
    for mode in ["DISABLED", "REQUIRED", "PREFERRED"] {
        // Who has logged in before is known by a hash until this.
        rig.sql("flush privileges").await;
        let url = format!("mysql://{0}:p%40%3A%2F%C3%9F@127.0.0.1:{port}/{0}?ssl-mode={mode}", rig.name);
        let provider = MySqlProvider { url: MySqlUrl::parse(&url).unwrap(), ..rig.named() };
        let passed = Pull::new("p".into(), Arc::new(provider), rig.home.target(), false).pass().await;
        assert!(passed.is_ok_and(|passed| passed.problems.is_empty()), "{mode}");
    }
    let user: Vec<String> = rig
        .server()
        .connect(None)
        .await
        .query(format!("select plugin from mysql.user where user = '{}'", rig.name))
        .await
        .unwrap();
    assert_eq!(user, ["caching_sha2_password"]);
}

/// As the applier of a replica does for as long as a transaction takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_a_session_keeps_for_long_keeps_no_pass_back() {
    if !is_mysql() {
        return;
    }
    let rig = Rig::told_by(
        &["--gtid-mode=ON", "--enforce-gtid-consistency=ON"],
        "create table t (id int primary key, v int); insert into t values (1, 0)",
    )
    .await;
    rig.pass_of(rig.named()).await;
    let mut long = rig.server().connect(Some(&rig.name)).await;
    for sql in ["set gtid_next = '3e11fa47-71ca-11e1-9e33-c80aa9429562:7'", "begin", "insert into t values (7, 7)"] {
        long.query_drop(sql).await.unwrap();
    }
    for v in 1..=2 {
        rig.sql(&format!("update t set v = {v} where id = 1")).await;
        let passed = rig.pass_of(rig.named()).await;
        assert_eq!((passed.rows, passed.problems.len(), passed.promise), (1, 0, Some("exact")), "{passed:?}");
    }
    assert_eq!(rig.rows("SELECT id, v FROM t").await, ["1|2"]);
    long.query_drop("commit").await.unwrap();
    rig.pass_of(rig.named()).await;
    assert_eq!(rig.rows("SELECT id, v FROM t ORDER BY id").await, ["1|2", "7|7"]);
}
