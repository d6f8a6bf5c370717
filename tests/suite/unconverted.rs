//! Keys that Postgres has and would not take today: a domain that was tightened, a check that is somebody's function.
//! They are never taken for absent, and nobody's function is run to look for them.

use crate::snapshot::{assert_equal, rebuilt, write_by_hand};
use crate::support::{PATHS, Path, Rig, schema};
use crate::volume::set_up;
use pgflume::core::difference::VerifyReport;
use pgflume::operate::verify::verify;
use pgflume::sync::compare::report::VerifyOptions;
use std::sync::Arc;

async fn verified(rig: &Rig, repair: bool) -> VerifyReport {
    let tables = rig.worker.schema().tables().map(|t| t.name.clone()).collect();
    verify(&rig.second_worker(), VerifyOptions { tables, repair, ..VerifyOptions::default() }, Arc::default())
        .await
        .unwrap()
}

const TIGHTENED: &str = "create domain code as text; create domain deeper as code; create domain few as int; create domain exact as numeric(10, 2);
    create table t (id code primary key, v text); insert into t values ('legacy!', 'a'), ('ok', 'b');
    create table n (id deeper, i few, primary key (id, i)); insert into n values ('legacy!', 7), ('ok', 1);
    create table s (id few primary key, v text); insert into s select i, 'x' from generate_series(1, 100) i;
    create table d (id exact primary key, v text); insert into d values (1.50, 'x'), (2, 'x')";

const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},
    "n":{"primaryKey":["id","i"],"columns":{"id":"TEXT","i":"INTEGER"}},
    "s":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
    "d":{"primaryKey":"id","columns":{"id":"DECIMAL","v":"TEXT"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_key_its_domain_would_not_take_today_is_read_written_compared_and_kept() {
    for path in PATHS {
        let rig = Rig::new(path, schema(TABLES)).await;
        rig.db.sql(TIGHTENED).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        rig.db.sql("alter domain code add constraint c check (value ~ '^[a-z]+$') not valid; alter domain few add check (value < 5) not valid;
                    alter domain exact add check (value > 1.75) not valid").await;
        for repair in [false, true] {
            let report = verified(&rig, repair).await;
            assert!(report.is_equal() && report.tables.values().all(|t| t.differences() == 0), "{path:?} {report:?}");
        }
        rig.db
            .sql("update t set v = 'new'; update s set v = 'new'; update d set v = 'new'; delete from n where i = 7")
            .await;
        rig.drain().await;
        assert_eq!(rig.db.dead().await.len(), 0);
        assert_equal(&rig).await;
        rig.db.sql("delete from t where v = 'new' and id::text = 'legacy!'; delete from s where id::int > 50").await;
        pgflume::operate::resync::request(&rig.worker, &["t", "n", "s", "d"]).await.unwrap();
        rebuilt(&rig).await;
        assert_equal(&rig).await;
        assert!(verified(&rig, true).await.is_equal());
        assert_equal(&rig).await;
    }
}

/// What the replica alone has goes all the same, also where it is no key of the source at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_replica_that_is_none_in_postgres_is_looked_for_by_its_text() {
    let json = r#"{"i":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},"u":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}}}"#;
    let rig = Rig::new(Path::File, schema(json)).await;
    rig.db.sql("create table i (id int primary key, v text); create table u (id uuid primary key, v text);
                insert into i select i, 'x' from generate_series(1, 3000) i; insert into u values (gen_random_uuid(), 'x')").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    write_by_hand(&rig, "INSERT INTO i VALUES ('none', 'x'), ('99999999999', 'x'), ('07', 'x')").await;
    write_by_hand(&rig, "INSERT INTO u VALUES ('no uuid', 'x')").await;
    let report = verified(&rig, true).await;
    assert!(report.is_equal() && report.tables["i"].extra == 3 && report.tables["u"].extra == 1, "{report:?}");
    assert_equal(&rig).await;
}

/// Postgres has a row that it can neither find under its key nor put out.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_at_which_postgres_fails_stays_and_its_table_is_not_called_equal() {
    let json = r#"{"t":{"primaryKey":"id","columns":{"id":"REAL","v":"INTEGER"},"where":"10 / v > 0"},
                   "ok":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#;
    let rig = Rig::new(Path::File, schema(json)).await;
    rig.db
        .sql(
            "create table t (id float8 primary key, v int); create table ok (id int primary key);
                insert into t select i, 1 from generate_series(1, 50) i; insert into ok values (1)",
        )
        .await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    rig.db.sql("update t set v = 0 where id = 7; select set_config('pgflume.takes', pg_current_xact_id()::text, true); delete from pgmq.q_replicate_data_libsql").await;
    write_by_hand(&rig, "INSERT INTO t VALUES (100.5, 1)").await;
    let report = verified(&rig, true).await;
    assert!(!report.is_equal() && report.tables["ok"].problem.is_none(), "{report:?}");
    let table = &report.tables["t"];
    assert!(table.problem.as_ref().is_some_and(|p| p.contains("could not be compared")), "{table:?}");
    assert_eq!((table.extra, table.repaired), (1, 1), "{table:?}");
    assert_eq!(
        rig.rows("SELECT count(*) FROM t").await,
        ["50"],
        "the row under 7 stays, the one that only the replica had is gone"
    );
}

const CALLS: &str = "create sequence calls;
    create function chk(v anyelement) returns bool immutable language plpgsql as 'begin if current_user = ''reader'' then perform pg_catalog.nextval(''public.calls''); end if; return true; end';
    create function txt(v anyelement) returns text immutable language plpgsql as 'begin perform pg_catalog.nextval(''public.calls''); return ''x''; end';
    grant usage on sequence calls to public";

#[tokio::test(flavor = "multi_thread")]
async fn a_domains_check_and_a_types_cast_are_never_run_by_the_worker() {
    let json = r#"{"d":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},
        "a":{"primaryKey":"id","columns":{"id":"TEXT"}}, "c":{"primaryKey":"id","columns":{"id":"TEXT"}},
        "r":{"primaryKey":"id","columns":{"id":"TEXT"}}, "v":{"primaryKey":"id","columns":{"id":"INTEGER","m":"TEXT"}},
        "j":{"primaryKey":"id","columns":{"id":"INTEGER","m":"JSON"},"lossy":["m"]}, "ok":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#;
    let rig = Rig::new(Path::File, schema(json)).await;
    rig.db.sql(&CALLS.replace("current_user = ''reader''", "true")).await;
    // Those inside of other types have their checks from the start: Postgres adds none later.
    rig.db.sql("create domain dom as text; create domain inner_dom as text check (public.chk(value)); create domain num as int check (public.chk(value)); create type pair as (a inner_dom, b int); create type span as range (subtype = num);
        create type mood as enum ('sad'); create type moods as (m mood);
        create table d (id dom primary key, v text); create table a (id inner_dom[] primary key); create table c (id pair primary key);
        create table r (id span primary key); create table v (id int primary key, m mood); create table j (id int primary key, m moods[]);
        create table ok (id int primary key);
        insert into d select i, 'x' from generate_series(1, 100) i; insert into a values ('{x}'); insert into c values ('(x,1)');
        insert into r values ('[1,2)'); insert into v values (1, 'sad'); insert into j values (1, array[row('sad')::moods]); insert into ok values (1)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await; // those with a check inside wait
    rig.db.sql("alter domain dom add check (public.chk(value));
        create cast (mood as text) with function txt(anyelement); create function js(m mood) returns json immutable language sql as 'select to_json(public.txt(m))';
        create cast (mood as json) with function js(mood)").await;
    let before = rig.db.one("select last_value::text || is_called::text from calls").await;
    // No write of its own runs the checks: marks by hand.
    for (table, key) in [
        ("d", "\"5\""),
        ("d", "\"none\""),
        ("a", "\"{x}\""),
        ("c", "\"(x,1)\""),
        ("r", "\"[1,2)\""),
        ("v", "\"1\""),
        ("j", "\"1\""),
        ("ok", "\"1\""),
    ] {
        rig.db.send(&format!(r#"{{"v":1,"table":"{table}","keys":[[{key}]]}}"#)).await;
    }
    let done = rig.drain().await;
    assert_eq!(
        done.paused.iter().map(String::as_str).collect::<Vec<_>>(),
        ["a", "c", "j", "r", "v"],
        "{:?}",
        rig.worker.paused()
    );
    pgflume::operate::resync::request(&rig.worker, &["a", "c", "d", "j", "r", "v"]).await.unwrap();
    rig.drain().await;
    let report = verified(&rig, true).await;
    assert!(report.tables["d"].problem.is_none() && report.tables["d"].differences() == 0, "{report:?}");
    for table in ["a", "c", "j", "r", "v"] {
        assert!(report.tables[table].problem.is_some(), "{table} {report:?}");
    }
    assert_eq!(rig.db.one("select last_value::text || is_called::text from calls").await, before, "nothing was called");
    assert_eq!(
        rig.rows("SELECT (SELECT count(*) FROM d), (SELECT count(*) FROM a), (SELECT count(*) FROM v)").await,
        ["100|0|1"]
    );
    let reason = &rig.worker.paused()["v"];
    assert!(reason.contains(".m") && reason.contains("drop cast"), "{reason}");
}
