//! Tables that are altered, locked, closed, or hold what cannot be taken over.

use super::{Rig, own_cluster};
use crate::support::{Db, PATHS, Path};
use pgflume::demo::postgres::Cluster;
use pgflume::pull::Pull;
use std::sync::Arc;

const TABLES: &str = "create table t (id int primary key, v text); create table u (id int primary key, n int);
    insert into t select i, 'old' from generate_series(1, 300) i; insert into u select i, i from generate_series(1, 50) i";
const JSON: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn definitions_follow_the_source() {
    for path in PATHS {
        let rig = Rig::new(path, TABLES, JSON).await;
        rig.pass_named().await;
        rig.assert_equal("t", &["id", "v"]).await;
        rig.assert_equal("u", &["id", "n"]).await;
        // A default that fills without writing rows, an index, a type, a column that goes.
        rig.db
            .sql("alter table t add column w int default 7; create index on t (w); alter table u alter column n type text using 'x' || n")
            .await;
        rig.pass_named().await;
        rig.assert_equal("t", &["id", "v", "w"]).await;
        rig.assert_equal("u", &["id", "n"]).await;
        let indexes = rig.rows("SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'idx_%'").await;
        assert_eq!(indexes, ["idx_t_w"]);
        rig.db.sql("drop index t_w_idx; alter table t drop column v; alter table u rename column n to m; create table late (id int primary key)").await;
        rig.grant().await;
        let done = rig.pass_named().await;
        assert!(done.problems.is_empty(), "{done:?}");
        rig.assert_equal("t", &["id", "w"]).await;
        rig.assert_equal("u", &["id", "m"]).await;
        assert_eq!(rig.rows("SELECT count(*) FROM late").await, ["0"]);
        let columns =
            rig.rows("SELECT name FROM pragma_table_info('t') UNION ALL SELECT name FROM pragma_table_info('u')").await;
        assert_eq!(columns, ["id", "w", "id", "m"], "what is gone is gone");
        assert!(rig.rows("SELECT name FROM sqlite_master WHERE name LIKE 'idx_%'").await.is_empty());
        // A table that goes is kept, and said, until it may go.
        rig.db.sql("drop table u").await;
        let done = rig.pass_named().await;
        assert!(done.kept.contains("u") && done.caught_up_at.is_some(), "{done:?}");
        assert_eq!(rig.rows("SELECT count(*) FROM u").await, ["50"]);
        let dropping = Pull::new("p".into(), Arc::new(rig.named()), rig.home.target(), false).dropping();
        dropping.pass().await.unwrap();
        assert!(rig.rows("SELECT name FROM sqlite_master WHERE name = 'u'").await.is_empty());
        // Another key.
        rig.db.sql("alter table t drop constraint t_pkey; alter table t add column k text; update t set k = 'k' || id; alter table t add primary key (k)").await;
        rig.pass_named().await;
        rig.assert_equal("t", &["k", "id", "w"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_of_an_enum_that_is_renamed_is_brought_though_no_row_is_written() {
    let rig = Rig::new(
        Path::File,
        "create type mood as enum ('sad', 'glad'); create table t (id int primary key, m mood);
         insert into t select i, case when i % 2 = 0 then 'sad' else 'glad' end::mood from generate_series(1, 20) i",
        r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","m":"TEXT"}}}"#,
    )
    .await;
    rig.pass().await;
    rig.db.sql("alter type mood rename value 'sad' to 'blue'").await;
    let done = rig.pass().await;
    assert_eq!(done.rows, 10, "{done:?}");
    rig.assert_equal("t", &["id", "m"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_taken_over_stand_aside_until_they_can() {
    for path in PATHS {
        let rig = Rig::new(
            path,
            "create table t (id int primary key, n numeric); insert into t select i, i from generate_series(1, 100) i;
             update t set n = 0.5 where id = 50",
            r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","n":"INTEGER"}}}"#,
        )
        .await;
        let done = rig.pass().await;
        assert_eq!((done.rows, done.dead), (99, 1), "{done:?}");
        assert!(done.caught_up_at.is_some());
        let letters = rig.rows("SELECT \"table\", \"key\", class FROM _pgflume_dead").await;
        assert_eq!(letters, ["t|[\"50\"]|value"]);
        let idle = rig.pass().await;
        assert_eq!((idle.rows, idle.dead), (0, 0), "{idle:?}");
        // One that is here already, and is no longer what it should be.
        rig.db.sql("update t set n = 0.25 where id = 7; delete from t where id = 8").await;
        let done = rig.pass().await;
        assert_eq!((done.rows, done.removed, done.dead), (0, 1, 1), "{done:?}");
        rig.db.sql("update t set n = 3 where id in (7, 50)").await;
        let done = rig.pass().await;
        assert_eq!(done.rows, 2, "{done:?}");
        assert!(rig.rows("SELECT * FROM _pgflume_dead").await.is_empty());
        rig.assert_equal("t", &["id", "n"]).await;
        // One that becomes again what the replica has, and one that was never there and goes.
        rig.db.sql("update t set n = 0.5 where id = 11; insert into t values (200, 0.5)").await;
        assert_eq!(rig.pass().await.dead, 2);
        rig.db.sql("update t set n = 11 where id = 11; delete from t where id = 200").await;
        let done = rig.pass().await;
        assert_eq!((done.rows, done.removed), (0, 0), "{done:?}");
        assert!(rig.rows("SELECT * FROM _pgflume_dead").await.is_empty());
        // One that goes takes its letter along.
        rig.db.sql("update t set n = 0.5 where id = 9").await;
        rig.pass().await;
        rig.db.sql("delete from t where id = 9").await;
        let done = rig.pass().await;
        assert_eq!(done.removed, 1, "{done:?}");
        assert!(rig.rows("SELECT * FROM _pgflume_dead").await.is_empty());
        rig.assert_equal("t", &["id", "n"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_replica_rejects_stand_aside_and_the_others_are_there() {
    for path in PATHS {
        let rig = Rig::new(path, TABLES, JSON).await;
        rig.pass().await;
        rig.replica("CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.v = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END")
            .await;
        rig.replica("CREATE TRIGGER no2 BEFORE UPDATE ON t WHEN NEW.v = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END")
            .await;
        rig.db.sql("update t set v = 'good' where id < 20; update t set v = 'bad' where id in (5, 6); insert into t values (1000, 'bad')").await;
        let done = rig.pass().await;
        assert_eq!((done.rows, done.dead), (17, 3), "{done:?}");
        assert!(done.caught_up_at.is_some());
        assert_eq!(rig.rows("SELECT count(*) FROM t WHERE v = 'good'").await, ["17"]);
        let idle = rig.pass().await;
        assert_eq!((idle.rows, idle.dead, idle.removed), (0, 0, 0), "{idle:?}");
        rig.db.sql("update t set v = 'fine' where v = 'bad'").await;
        let done = rig.pass().await;
        assert_eq!(done.rows, 3, "{done:?}");
        rig.assert_equal("t", &["id", "v"]).await;
        assert!(rig.rows("SELECT * FROM _pgflume_dead").await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_locked_closed_or_has_no_key_keeps_nobody_back() {
    let rig = Rig::new(
        Path::File,
        &format!(
            "{TABLES}; create table locked (id int primary key); create table nokey (id int);
                  create table closed (id int primary key); create table policed (id int primary key);
                  alter table policed enable row level security; insert into locked values (1); insert into policed values (1);
                  create table parent (id int primary key); create table child (primary key (id)) inherits (parent);
                  insert into child values (1)"
        ),
        r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
            "locked":{"primaryKey":"id","columns":{"id":"INTEGER"}},
            "nokey":{"primaryKey":"id","columns":{"id":"INTEGER"}},
            "closed":{"primaryKey":"id","columns":{"id":"INTEGER"}},
            "policed":{"primaryKey":"id","columns":{"id":"INTEGER"}},
            "parent":{"primaryKey":"id","columns":{"id":"INTEGER"}},
            "missing":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#,
    )
    .await;
    rig.db.sql(&format!("revoke all on closed from {}", rig.reader())).await;
    rig.db.sql("begin; lock table locked in access exclusive mode").await;
    let done = rig.pass().await;
    assert_eq!(done.rows, 300, "{done:?}");
    assert!(done.caught_up_at.is_none());
    let problem = |name: &str| done.problems.get(name).cloned().unwrap_or_default();
    for (name, words) in [
        ("locked", "pg_locks"),
        ("nokey", "no primary key"),
        ("closed", "grant select"),
        ("missing", "does not exist"),
        ("parent", "inheritance children"),
        ("policed", "row-level security"),
    ] {
        assert!(problem(name).contains(words), "{name}: {done:?}");
    }
    rig.db.sql("commit; update t set v = 'later' where id = 1").await;
    let done = rig.pass().await;
    assert_eq!((done.rows, done.problems.len()), (2, 5), "{done:?}");
    assert_eq!(rig.rows("SELECT count(*) FROM locked").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_that_stays_open_holds_back_is_not_written_again() {
    let rig = Rig::new(Path::File, TABLES, JSON).await;
    rig.pass().await;
    rig.db.sql("begin; update u set n = 1 where id = 1; prepare transaction 'held'").await;
    rig.db.sql("update t set v = 'once' where id < 100").await;
    assert_eq!(rig.pass().await.rows, 99);
    for _ in 0..3 {
        let idle = rig.pass().await;
        assert_eq!((idle.rows, idle.removed), (0, 0), "{idle:?}");
    }
    rig.db.sql("commit prepared 'held'").await;
    rig.assert_equal("t", &["id", "v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_write_nothing_at_all_is_enough() {
    let rig = Rig::new(Path::File, TABLES, JSON).await;
    rig.db.sql(&format!("alter role {} set default_transaction_read_only = on", rig.reader())).await;
    rig.pass().await;
    rig.db.sql("set synchronous_commit = off; update t set v = 'async' where id = 3; delete from t where id = 4").await;
    let done = rig.pass().await;
    assert_eq!((done.rows, done.removed), (1, 1), "{done:?}");
    rig.assert_equal("t", &["id", "v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_somebody_else_did_to_the_replica_is_found_by_comparing_and_repaired() {
    // On a server of its own: transactions of other tests would hold its marks back, and passes read more rows again.
    let cluster: &'static Cluster = Box::leak(Box::new(own_cluster()));
    for path in PATHS {
        let rig = Rig::on(Db::on(cluster, "template1").await, path, TABLES, JSON).await;
        rig.pass().await;
        let equal = rig.pull().verify(&[], false).await.unwrap();
        assert!(equal.is_equal() && equal.tables["t"].rows == 300 && equal.tables["t"].is_whole, "{equal:?}");
        rig.replica("DELETE FROM t WHERE id IN (3, 4)").await;
        rig.replica("UPDATE t SET v = 'tampered' WHERE id = 5").await;
        rig.replica("INSERT INTO t VALUES (7000, 'extra'), (-1, 'extra')").await;
        // Changes that come meanwhile are no differences.
        rig.db.sql("update t set v = 'later' where id = 6; insert into t values (301, 'later')").await;
        let found = rig.pull().verify(&[], false).await.unwrap();
        let t = &found.tables["t"];
        assert_eq!((t.missing, t.different, t.extra, t.repaired), (2, 1, 2, 0), "{path:?} {t:?}");
        assert!(!found.is_equal());
        let repaired = rig.pull().verify(&["t".to_owned()], true).await.unwrap();
        assert!(repaired.is_equal() && repaired.tables["t"].repaired == 5, "{repaired:?}");
        rig.assert_equal("t", &["id", "v"]).await;
        // Rows that are fewer than they should be are noticed where rows go: all are read again.
        rig.replica("DELETE FROM t WHERE id IN (30, 31)").await;
        rig.db.sql("delete from t where id = 6").await;
        assert_eq!(rig.pass().await.rows, 2);
        rig.assert_equal("t", &["id", "v"]).await;
        assert_eq!(rig.pull().verify(&[], false).await.unwrap().tables["t"].differences(), 0);
        let unknown = rig.pull().verify(&["x".to_owned()], false).await.unwrap_err().to_string();
        assert!(unknown.contains("has no table \"x\": it has t"), "{unknown}");
        // One that is due comes with a pass.
        rig.replica("UPDATE t SET v = 'tampered' WHERE id = 5").await;
        let idle = rig.pull().comparing(Some(std::time::Duration::from_secs(3600))).pass().await.unwrap();
        assert!(idle.compared.is_empty(), "{idle:?}");
        let due = rig.pull().comparing(Some(std::time::Duration::ZERO)).pass().await.unwrap();
        assert_eq!(due.compared["t"].repaired, 1, "{due:?}");
        rig.assert_equal("t", &["id", "v"]).await;
    }
}
