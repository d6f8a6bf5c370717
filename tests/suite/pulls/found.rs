//! What a reader of the code found to go wrong once.

use super::{Rig, own_cluster};
use crate::support::{Db, PATHS, Path};
use pgflume::demo::postgres::Cluster;
use pgflume::postgres::init::InitOptions;
use pgflume::provider::postgres::{PostgresProvider, Wanted};
use pgflume::pull::{Passed, Pull};
use std::sync::Arc;
use std::time::Duration;

const T: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
const MAKE: &str = "create table t (id int primary key, v text)";

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_more_bytes_than_one_transaction_holds_are_brought_in_parts() {
    let rig = Rig::new(
        Path::File,
        &format!("{MAKE}; insert into t select i, repeat('x', 2000) from generate_series(1, 12000) i"),
        T,
    )
    .await;
    rig.pass().await;
    rig.db.sql("update t set v = repeat('y', 2000) where id <= 10001; delete from t where id = 12000").await;
    let done = tokio::time::timeout(Duration::from_secs(60), rig.pass()).await.expect("it does not hang");
    assert!(done.rows >= 10001 && done.removed == 1, "{done:?}");
    assert_eq!(rig.rows("SELECT count(*), sum(v LIKE 'y%') FROM t").await, ["11999|10001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_beside_an_open_transaction_has_nothing_read_again() {
    for path in PATHS {
        let rig = Rig::new(path, &format!("{MAKE}; create table u (id int primary key); insert into t select i, 'fine' from generate_series(1, 100) i"), T).await;
        rig.pass().await;
        rig.replica("CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.v = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END")
            .await;
        rig.db.sql("begin; insert into u values (1); prepare transaction 'open'").await;
        for id in [200, 201] {
            rig.db.sql(&format!("insert into t values ({id}, 'bad'), ({id} + 100, 'good')")).await;
            let done = tokio::time::timeout(Duration::from_secs(30), rig.pass()).await.expect("it comes to an end");
            assert_eq!((done.rows, done.dead, done.problems.len()), (1, 1, 0), "{done:?}");
        }
        let again = rig.pass().await;
        assert_eq!((again.rows, again.dead), (0, 0), "{again:?}");
        rig.db.sql("rollback prepared 'open'").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_under_keys_that_the_replica_writes_otherwise_come_and_go() {
    for (kind, declared, first, second) in [
        ("timestamptz", "TEXT", "2024-03-01 08:11:14.5+00", "2024-03-02 00:00:00+00"),
        ("timestamp", "TEXT", "2024-03-01 08:11:14.5", "2024-03-02 00:00:00"),
        ("boolean", "BOOLEAN", "true", "false"),
        ("bytea", "BLOB", "\\x00ff", "\\x01"),
        ("numeric", "DECIMAL", "1.10", "2"),
    ] {
        let rig = Rig::new(
            Path::File,
            &format!(
                "create table t (k {kind} primary key, n numeric); insert into t values ('{first}', 1), ('{second}', 2)"
            ),
            &format!(r#"{{"t":{{"primaryKey":"k","columns":{{"k":"{declared}","n":"INTEGER"}}}}}}"#),
        )
        .await;
        let count = async |what: &str, done: Passed, dead: &str, rows: &str| {
            assert!(done.problems.is_empty(), "{kind} {what}: {done:?}");
            assert_eq!(rig.rows("SELECT count(*) FROM _pgflume_dead").await, [dead], "{kind} {what}");
            assert_eq!(rig.rows("SELECT count(*) FROM t").await, [rows], "{kind} {what}");
        };
        rig.pass().await;
        rig.db.sql(&format!("update t set n = 0.5 where k = '{first}'")).await;
        count("unfit", rig.pass().await, "1", "2").await;
        rig.db.sql(&format!("delete from t where k = '{second}'")).await;
        count("another goes", rig.pass().await, "1", "1").await;
        rig.db.sql(&format!("update t set n = 7 where k = '{first}'")).await;
        count("it fits again", rig.pass().await, "0", "1").await;
        assert_eq!(rig.rows("SELECT n FROM t").await, ["7"], "{kind}");
        rig.db.sql("update t set n = 0.5").await;
        count("unfit once more", rig.pass().await, "1", "1").await;
        rig.db.sql("delete from t").await;
        count("it goes", rig.pass().await, "0", "0").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_sqlite_takes_for_one_have_one_owner_and_a_lost_sync_is_taken_over() {
    let rig = Rig::new(
        Path::File,
        &format!("{MAKE}; create table \"T\" (id int primary key, v text); insert into \"T\" values (9, 'other')"),
        T,
    )
    .await;
    rig.pass().await;
    let upper = PostgresProvider {
        wanted: Wanted::Defined(crate::support::schema(
            r#"{"T":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"source":"public.T"}}"#,
        )),
        ..rig.provider()
    };
    let refused =
        Pull::new("q".into(), Arc::new(upper), rig.home.target(), false).pass().await.unwrap_err().to_string();
    assert!(refused.contains("belongs to the sync \"p\"") && refused.contains("--adopt"), "{refused}");
    rig.db.sql("insert into t values (1, 'one')").await;
    let renamed = |adopt| Pull::new("renamed".into(), Arc::new(rig.provider()), rig.home.target(), adopt);
    assert!(renamed(false).pass().await.is_err());
    renamed(true).pass().await.unwrap();
    rig.assert_equal("t", &["id", "v"]).await;
    assert_eq!(rig.rows("SELECT name FROM _pgflume_pulls").await, ["renamed"], "nobody waits for the one that is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_removes_however_many_strange_rows_there_are() {
    let cluster: &'static Cluster = Box::leak(Box::new(own_cluster()));
    let rig = Rig::on(
        Db::on(cluster, "template1").await,
        Path::File,
        &format!("{MAKE}; insert into t select i, 'fine' from generate_series(1, 100) i"),
        T,
    )
    .await;
    rig.pass().await;
    let strange = "INSERT INTO t SELECT value + 1000, 'strange' FROM generate_series(1, 25000)";
    let strange = strange.replace(
        "generate_series(1, 25000)",
        "json_each((SELECT '[' || substr(replace(hex(zeroblob(12500)), '00', ',1,1'), 2) || ']'))",
    );
    let strange = strange.replace("SELECT value + 1000", "SELECT key + 1000");
    rig.replica(&strange).await;
    let found = rig.pull().verify(&[], false).await.unwrap();
    assert_eq!(found.tables["t"].extra, 25000, "{found:?}");
    let repaired = rig.pull().verify(&[], true).await.unwrap();
    assert!(repaired.is_equal(), "{repaired:?}");
    rig.assert_equal("t", &["id", "v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_goes_on_beside_a_worker_that_brings_changes() {
    let rig = Arc::new(
        Rig::new(Path::File, &format!("{MAKE}; insert into t select i, 'fine' from generate_series(1, 60000) i"), T)
            .await,
    );
    rig.pass().await;
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let worker = tokio::spawn({
        let (rig, is_over) = (rig.clone(), is_over.clone());
        async move {
            let mut passes = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                rig.db.sql(&format!("update t set v = 'v{passes}' where id = {passes} + 1")).await;
                rig.pull().pass().await.unwrap();
                passes += 1;
            }
            passes
        }
    });
    for _ in 0..3 {
        let report = rig.pull().verify(&[], false).await.unwrap();
        assert!(report.is_equal() && report.tables["t"].rows == 60000, "{report:?}");
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(worker.await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_may_no_longer_be_read_is_a_problem_and_is_never_dropped() {
    let rig =
        Rig::new(Path::File, &format!("{MAKE}; create table r (id int primary key); insert into r values (1)"), T)
            .await;
    let provider = || PostgresProvider {
        wanted: Wanted::Named(InitOptions { tables: vec!["*".into()], ..InitOptions::default() }),
        ..rig.provider()
    };
    let pull = || Pull::new("p".into(), Arc::new(provider()), rig.home.target(), false);
    pull().pass().await.unwrap();
    rig.db.sql(&format!("revoke select on r from {}", rig.reader())).await;
    let done = pull().dropping().pass().await.unwrap();
    assert!(done.problems["r"].contains("grant select") && done.caught_up_at.is_none(), "{done:?}");
    assert_eq!(rig.rows("SELECT count(*) FROM r").await, ["1"]);
    let status = pull().status().await;
    assert_eq!((status.tables["r"].state, status.tables["t"].state), ("kept", "following"), "{status:?}");
    assert!(status.tables["r"].problem.as_ref().unwrap().contains("grant select"));
    rig.grant().await;
    let done = pull().pass().await.unwrap();
    assert!(done.problems.is_empty() && done.caught_up_at.is_some(), "{done:?}");
    assert!(pull().status().await.tables["r"].problem.is_none());
}
