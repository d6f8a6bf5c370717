//! What happens between two views, tables that cannot be read, and encrypted connections.

use super::Rig;
use crate::parts::MySqlServer;
use crate::pulls::watched::Hooked;
use crate::support::Path;
use mysql_async::prelude::Queryable;
use pgflume::mysql::MySqlUrl;
use pgflume::provider::Limits;
use pgflume::pull::{Pace, Pull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_in_what_was_read_by_an_earlier_view_is_found_in_the_same_pass() {
    for stamp in ["", ", updated_at datetime(6) not null default now(6) on update now(6)"] {
        let tables = format!(
            "create table t (id int primary key, v varchar(20){stamp}); insert into t (id, v) select seq, 'old' from seq_1_to_9000"
        );
        let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
        let rig = Arc::new(Rig::new(Path::File, &tables, json).await);
        let (is_done, writer) = (AtomicBool::new(false), rig.clone());
        let end: crate::pulls::watched::Hook = Arc::new(move || {
            let (is_first, writer) = (!is_done.swap(true, Ordering::SeqCst), writer.clone());
            Box::pin(async move {
                if is_first {
                    writer
                        .sql("update t set v = 'new' where id = 1; delete from t where id = 2; insert into t (id, v) values (-5, 'came')")
                        .await;
                }
            })
        });
        let provider = Hooked { inner: rig.provider(), begun: None, durable: None, end: Some(end) };
        let limits = Limits { rows: 1000, bytes: 1 << 20 };
        let pace = Pace { closing: limits, part: limits, view_time: Duration::ZERO };
        let pull = Pull::new("p".into(), Arc::new(provider), rig.home.target(), false).at_pace(pace);
        pull.pass().await.unwrap();
        let there = rig.source("select concat_ws('|', id, v) from t order by id").await;
        assert_eq!(rig.rows("SELECT id, v FROM t ORDER BY id").await, there, "{stamp}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_counted_whatever_the_columns_are_called() {
    let tables = "create table t (id int primary key, part int, updated_at datetime not null default now()); insert into t (id, part) select seq, seq % 3 from seq_1_to_30000";
    let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","part":"INTEGER"}}}"#;
    let rig = Rig::new(Path::File, tables, json).await;
    rig.pass().await;
    rig.sql("delete from t where id in (1, 15000, 29999)").await;
    let passed = rig.pass().await;
    assert!(passed.removed == 3 && passed.problems.is_empty(), "{passed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_read_keeps_no_other_back() {
    let tables =
        "create table t (id int primary key); insert into t values (1); create table u (id int primary key, v int);
        insert into u values (1, 1), (2, 1); create view w as select id from u; create view x as select v from u";
    let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER"}},"w":{"primaryKey":"id","columns":{"id":"INTEGER"}},
        "x":{"primaryKey":"v","columns":{"v":"INTEGER"}},"y":{"source":"public.u","primaryKey":"v","columns":{"v":"INTEGER"}},
        "z":{"source":"public.u","primaryKey":"id","columns":{"id":"INTEGER"},"where":"nothing = 1"}}"#;
    let rig = Rig::new(Path::File, tables, json).await;
    rig.sql(&format!("create user gone_{0}; create definer = gone_{0} view v as select id from u; drop view w; create definer = gone_{0} view w as select id from u; drop user gone_{0}", rig.name)).await;
    let passed = rig.pass().await;
    assert_eq!(rig.rows("SELECT id FROM t").await, ["1"]);
    for (table, expected) in
        [("w", "definer"), ("x", "2 rows under 1 keys"), ("y", "no unique index"), ("z", "MySQL says 1054")]
    {
        assert!(passed.problems.get(table).is_some_and(|p| p.contains(expected)), "{table}: {passed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_encrypted_where_the_server_can_and_checked_where_that_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (directory.path().join("c.pem"), directory.path().join("k.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let arguments = [format!("--ssl-cert={}", cert.display()), format!("--ssl-key={}", key.display())];
    let server = MySqlServer::start(&arguments.each_ref().map(String::as_str));
    let mut root = server.connect(None).await;
    for sql in [
        "create database d",
        "create table d.t (id int primary key)",
        "create user u@'%' require ssl",
        "grant select on d.* to u@'%'",
    ] {
        root.query_drop(sql).await.unwrap();
    }
    let about = async |parameters: &str| {
        let url = format!("mysql://u@127.0.0.1:{}/d?{parameters}", server.port());
        pgflume::provider::mysql::about(&MySqlUrl::parse(&url).unwrap()).await
    };
    assert!(about("").await.is_ok(), "PREFERRED");
    assert!(about("ssl-mode=REQUIRED").await.is_ok());
    assert!(about("ssl-mode=DISABLED").await.is_err());
    assert!(about("ssl-mode=VERIFY_IDENTITY").await.is_err(), "nobody of the system's has signed it");
    let authority = format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={}", cert.display());
    about(&authority).await.unwrap();
}
