//! Whatever Postgres says about reading rows of one table, and libSQL about writing them, is the matter of that row or
//! of that table: the others go on.

use crate::snapshot::{assert_equal, rebuilt, write_by_hand};
use crate::support::{Db, Home, PATHS, Path, Rig, cluster, config, schema, until};
use crate::volume::set_up;
use pgflume::core::queue_name::DEFAULT_QUEUE;
use pgflume::operate::verify::verify;
use pgflume::postgres::PgUrl;
use pgflume::sync::Worker;
use pgflume::sync::compare::report::VerifyOptions;
use std::sync::Arc;
use std::time::Duration;

const BUDGET: Duration = Duration::from_secs(25);

/// A table with a filter, and one beside it.
fn tables(filter: &str) -> String {
    format!(
        r#"{{"t":{{"primaryKey":"id","columns":{{"id":"INTEGER","v":"INTEGER"}},"where":"{filter}"}},
            "other":{{"primaryKey":"id","columns":{{"id":"INTEGER","v":"TEXT"}}}}}}"#
    )
}

const MAKE: &str = "create table t (id int primary key, v int); create table other (id int primary key, v text);
    insert into t select i, 1 from generate_series(1, 40) i; insert into other select i, 'x' from generate_series(1, 40) i";

/// A function that raises for some rows, with any code.
fn raising(code: &str) -> String {
    format!(
        "create or replace function check_v(v int) returns bool immutable language plpgsql as $$
         begin if v = 0 then raise 'mail %', 'alice@example.com' using errcode = '{code}'; end if; return true; end $$"
    )
}

async fn set_up_with(json: &str, make: &str) -> Rig {
    let rig = Rig::new(Path::File, schema(json)).await;
    rig.db.sql(make).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    rig
}

async fn other(rig: &Rig) -> Vec<String> {
    rig.rows("SELECT DISTINCT v FROM other").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_raises_after_a_truncate_stops_its_own_row_only() {
    let rig = set_up_with(&tables("10 / v > 0"), MAKE).await;
    rig.db.sql("begin; truncate t; insert into t values (1, 0), (2, 5); update other set v = 'y'; commit").await;
    rebuilt(&rig).await;
    assert_eq!(rig.db.queued().await, 0);
    assert_eq!(other(&rig).await, ["y"]);
    assert_eq!(
        rig.rows("SELECT id FROM t ORDER BY id").await,
        ["1", "2"],
        "the row under 1 cannot be read, so it stays"
    );
    assert_eq!(rig.db.dead().await.len(), 1);
    rig.db.sql("update t set v = 1; truncate t").await;
    rebuilt(&rig).await;
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_code_a_function_raises_it_is_the_matter_of_its_row() {
    let rig = set_up_with(&tables("public.check_v(v)"), &format!("{}; {MAKE}", raising("ABC01"))).await;
    let codes = [
        "ABC01", "2F005", "38000", "40001", "42501", "53100", "54000", "55P03", "57014", "57P01", "08006", "28P01",
        "XX000",
    ];
    for (i, code) in codes.into_iter().enumerate() {
        rig.db.sql(&raising(code)).await;
        let id = 1 + i;
        // By mark, among others; and in a step that has a truncate.
        rig.db
            .sql(&format!(
                "update t set v = case when id = {id} then 0 else {i} + 2 end; update other set v = '{code}'"
            ))
            .await;
        let done = rig.worker.drain(BUDGET).await.unwrap_or_else(|e| panic!("{code}: {e}"));
        assert_eq!((done.queued, done.paused.len()), (0, 0), "{code}");
        assert_eq!(rig.db.dead().await.len(), 1, "{code}");
        assert_eq!(other(&rig).await, [code]);
        let newer = format!("SELECT count(*) FROM t WHERE v = {}", i + 2);
        assert_eq!(rig.rows(&newer).await, ["39"], "{code}");
        rig.db.sql(&format!("update t set v = 1 where id = {id}")).await;
        rig.drain().await;
        rig.db.sql("begin; truncate t; insert into t values (1, 0); insert into t select i, 1 from generate_series(2, 40) i; commit").await;
        let done = rig.worker.drain(BUDGET).await.unwrap_or_else(|e| panic!("{code}, truncated: {e}"));
        assert_eq!((done.queued, done.paused.len()), (0, 0), "{code}");
        rig.db.sql("update t set v = 1").await;
        rebuilt(&rig).await;
    }
    // By copy and by comparison.
    rig.db.sql(&raising("28P01")).await;
    rig.db.sql("update t set v = 0 where id in (3, 4, 40)").await;
    pgflume::operate::resync::request(&rig.worker, &["t"]).await.unwrap();
    rebuilt(&rig).await;
    let tables = vec!["t".to_owned(), "other".to_owned()];
    let report = verify(&rig.second_worker(), VerifyOptions { tables, ..VerifyOptions::default() }, Arc::default())
        .await
        .unwrap();
    assert!(report.is_equal() && report.tables["t"].dead == 3, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_gone_or_may_not_be_called_pauses_its_table_only() {
    let rig = set_up_with(&tables("public.check_v(v)"), &format!("{}; {MAKE}", raising("ABC01"))).await;
    for (breaks, fixes) in [
        (
            "create or replace function check_v(v int) returns bool immutable language plpgsql as 'begin return exists (select from nowhere where x = v); end'",
            raising("P0001"),
        ),
        ("alter function check_v(int) rename to check_w", "alter function check_w(int) rename to check_v".to_owned()),
    ] {
        rig.db.sql(breaks).await;
        for write in [
            "update t set v = v + 1; update other set v = v || 'a'",
            "begin; truncate t; insert into t values (1, 1); update other set v = v || 'b'; commit",
        ] {
            rig.db.sql(write).await;
            let done = rig.drain().await;
            assert!(done.paused.contains("t") && done.paused.len() == 1, "{done:?}");
            assert_eq!(other(&rig).await, [rig.db.one("select max(v) from other").await]);
        }
        rig.db.sql(&fixes).await;
        rebuilt(&rig).await;
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_replica_does_not_let_be_emptied_waits_alone() {
    for path in PATHS {
        let rig = Rig::new(path, schema(&tables("true"))).await;
        rig.db.sql(MAKE).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        write_by_hand(
            &rig,
            "CREATE TRIGGER keep BEFORE DELETE ON t BEGIN SELECT RAISE(ABORT, 'alice@example.com stays'); END",
        )
        .await;
        rig.db.sql("truncate t; truncate other").await;
        let done = rig.drain().await;
        assert!(done.paused.contains("t") && done.paused.len() == 1, "{path:?} {done:?}");
        assert_eq!(rig.rows("SELECT count(*) FROM other").await, ["0"]);
        let reason = &rig.worker.paused()["t"];
        assert!(reason.contains("trigger") && !reason.contains("alice"), "{reason}");
        // Single keys are letters.
        rig.db.sql("insert into other values (1, 'z')").await;
        rig.drain().await;
        assert_eq!(other(&rig).await, ["z"]);
        write_by_hand(&rig, "DROP TRIGGER keep").await;
        rebuilt(&rig).await;
        assert_equal(&rig).await;
    }
}

/// What the replica says of a row that is none of its constraints.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_at_which_an_expression_of_the_replica_fails_becomes_a_letter() {
    for path in PATHS {
        let rig = Rig::new(path, schema(&tables("true"))).await;
        rig.db.sql(MAKE).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        write_by_hand(&rig, "UPDATE other SET v = '{}'").await;
        write_by_hand(&rig, "CREATE INDEX by_json ON other (json_extract(v, '$.a'))").await;
        rig.db.sql("update other set v = case when id = 7 then 'alice@example.com' else '{\"a\":1}' end; update t set v = 2").await;
        let done = rig.drain().await;
        assert_eq!((done.queued, done.paused.len(), done.dead), (0, 0, 1), "{path:?}");
        assert_eq!(rig.rows("SELECT count(*) FROM other WHERE v = '{\"a\":1}'").await, ["39"]);
        assert_eq!(rig.rows("SELECT DISTINCT v FROM t").await, ["2"]);
        let dead = rig.db.dead().await;
        assert!(!dead[0].contains("alice"), "{dead:?}");
    }
}

/// Longer than a step goes on with what it took: what is left of it is marked again, but not all of it for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_among_close_keys_that_takes_longer_than_a_step_has_is_found() {
    bad_row_is_found("pg_catalog.pg_sleep(60)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_among_close_keys_that_fails_when_a_step_has_had_its_time_is_found() {
    bad_row_is_found("pg_catalog.pg_sleep(5.1); perform v / v").await;
}

async fn bad_row_is_found(look: &str) {
    let make = format!(
        "create function check_v(v int) returns bool immutable language plpgsql as $$
         begin if v = 0 then perform {look}; end if; return true; end $$; {MAKE}"
    );
    let rig = set_up_with(&tables("public.check_v(v)"), &make).await;
    let worker = Worker::new(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone()));
    let worker = worker.reading_within(Duration::from_millis(5500));
    // From here on it knows that rows are small, and reads close keys as one range.
    rig.db.sql("update t set v = 3").await;
    worker.drain(BUDGET).await.unwrap();
    rig.db.sql("update t set v = case when id = 5 then 0 else 2 end").await;
    until("it is a letter", async || {
        worker.drain(BUDGET).await.unwrap();
        rig.db.dead().await.len() == 1 && rig.db.queued().await == 0
    })
    .await;
    assert_eq!(rig.rows("SELECT count(*) FROM t WHERE v = 2").await, ["39"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_take_too_long_are_waited_for_once_and_the_others_arrive() {
    let make = format!(
        "create function check_v(v int) returns bool immutable language plpgsql as $$
         begin if v = 0 then perform pg_catalog.pg_sleep(60); end if; return true; end $$; {MAKE}"
    );
    let rig = set_up_with(&tables("public.check_v(v)"), &make).await;
    let quick = |rig: &Rig| {
        let worker = Worker::new(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone()));
        worker.reading_within(Duration::from_millis(1500))
    };
    let worker = quick(&rig);
    rig.db.sql("update t set v = case when id in (5, 20) then 0 else 2 end; update other set v = 'y'").await;
    until("both are letters", async || {
        worker.drain(BUDGET).await.unwrap();
        assert_eq!(other(&rig).await, ["y"], "whatever the table does");
        rig.db.dead().await.len() == 2
    })
    .await;
    assert_eq!(rig.db.queued().await, 0);
    assert_eq!(rig.rows("SELECT count(*) FROM t WHERE v = 2").await, ["38"]);
    assert!(rig.db.dead().await.iter().all(|reason| reason.contains("takes longer")));
    // A truncate, a copy, a comparison.
    rig.db.sql("begin; truncate t; insert into t values (1, 0), (2, 2); update other set v = 'z'; commit").await;
    until("swept", async || {
        let done = worker.drain(BUDGET).await.unwrap();
        done.queued == 0 && done.rebuilding == 0
    })
    .await;
    assert_eq!(other(&rig).await, ["z"]);
    pgflume::operate::resync::request(&worker, &["t"]).await.unwrap();
    until("copied", async || worker.drain(BUDGET).await.unwrap().rebuilding == 0).await;
    let tables = vec!["t".to_owned()];
    let report =
        verify(&quick(&rig), VerifyOptions { tables, ..VerifyOptions::default() }, Arc::default()).await.unwrap();
    assert!(report.is_equal() && report.tables["t"].dead == 1, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_somebody_cancels_is_tried_again_and_no_letter_is_made() {
    let make = format!(
        "create function check_v(v int) returns bool immutable language plpgsql as $$
         begin if v = 0 then perform pg_catalog.pg_sleep(2); end if; return true; end $$; {MAKE}"
    );
    let rig = set_up_with(&tables("public.check_v(v)"), &make).await;
    rig.db.sql("update t set v = 0 where id = 5").await;
    let worker = rig.worker.clone();
    let drain = tokio::spawn(async move { worker.drain(BUDGET).await });
    until("the filter sleeps", async || {
        let sql = "select count(case when wait_event = 'PgSleep' then pg_cancel_backend(pid) end) from pg_stat_activity
                   where datname = current_database() and pid <> pg_backend_pid()";
        rig.db.one(sql).await != "0"
    })
    .await;
    assert_eq!(drain.await.unwrap().unwrap().queued, 0);
    assert_eq!(rig.db.dead().await.len(), 0);
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_no_utf8_is_one_letter_by_mark_and_by_copy() {
    let admin = PgUrl::parse(&cluster().url("postgres")).unwrap().connect().await.unwrap();
    admin
        .batch_execute("create database no_encoding_keys encoding 'SQL_ASCII' template template0 locale 'C'")
        .await
        .unwrap();
    let db = Db::existing("no_encoding_keys", cluster()).await;
    db.sql(include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"))).await;
    db.sql(&format!("select pgmq.create('{DEFAULT_QUEUE}')")).await;
    db.sql(
        "create table t (id text primary key, v text); create table ok (id int primary key, v text);
            create table pairs (a text, b int, primary key (a, b))",
    )
    .await;
    let json = r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},"ok":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
                   "pairs":{"primaryKey":["a","b"],"columns":{"a":"TEXT","b":"INTEGER"}}}"#;
    let rig = Rig::with(db, Home::new(Path::File), schema(json));
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    let odd = r"insert into t values (E'k\xe9', 'x'), (E'k\xea', 'x'), ('k\1', 'x'), ('a', 'x'), ('z', 'x'), (E'q', E'\xff');
                insert into pairs values (E'\xe9', 1), ('b', 1), (E'\xc3\xa9', 2); insert into ok values (1, 'x')";
    rig.db.sql(odd).await;
    let done = rig.worker.drain(BUDGET).await.unwrap();
    assert_eq!((done.queued, done.dead), (0, 4), "two keys, one value, one pair");
    let all = "SELECT id FROM t UNION ALL SELECT a || b FROM pairs UNION ALL SELECT id FROM ok ORDER BY 1";
    let arrived = ["1", "a", "b1", "k\\1", "z", "é2"];
    assert_eq!(rig.rows(all).await, arrived);
    for sql in ["DELETE FROM t", "DELETE FROM pairs", "DELETE FROM ok"] {
        write_by_hand(&rig, sql).await;
    }
    pgflume::operate::resync::request(&rig.worker, &["t", "ok", "pairs"]).await.unwrap();
    rebuilt(&rig).await;
    assert_eq!(rig.rows(all).await, arrived, "by copy");
    assert_eq!(rig.db.dead().await.len(), 3, "and told once; two keys look alike: {:?}", rig.db.dead().await);
    rig.db.sql(r"delete from t where id like E'k\xe9' or id like E'k\xea'; update ok set v = 'y'").await;
    assert_eq!(rig.worker.drain(BUDGET).await.unwrap().queued, 0);
    assert_eq!(rig.rows("SELECT v FROM ok").await, ["y"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_follows_its_source_to_another_type_is_rebuilt_and_the_others_go_on() {
    for path in PATHS {
        let json = r#"{"e":{"primaryKey":"id","columns":{"id":"INTEGER"},"evolve":true},
                       "other":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
        let rig = Rig::new(path, schema(json)).await;
        rig.db
            .sql(
                "create table e (id int primary key); create table other (id int primary key, v text);
                    insert into e values (1), (2); insert into other values (1, 'x')",
            )
            .await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        let changes = [
            "alter table e add column z int default 5",
            "alter table e alter column z drop default, alter column z type text using 'n' || z",
            "alter table e drop column z, add column z bytea default '\\x00ff'",
            "alter table e drop column z, add column z text default '007'",
            "alter table e drop column z, add column z double precision default 0.5",
        ];
        for (i, change) in changes.into_iter().enumerate() {
            rig.db.sql(change).await;
            rig.db.sql(&format!("update other set v = '{i}'; insert into e (id) values ({})", 10 + i)).await;
            let done = rig.worker.drain(BUDGET).await.unwrap_or_else(|e| panic!("{path:?} {change}: {e}"));
            assert_eq!(done.paused.len(), 0, "{change}");
            rebuilt(&rig).await;
            assert_eq!(other(&rig).await, [i.to_string()], "{change}");
            let kept = rig.db.one("select jsonb_agg(z order by id)::text from e where z is not null").await;
            let count = rig.rows("SELECT count(z) FROM e").await;
            assert_eq!(count, [rig.db.one("select count(z) from e").await], "{path:?} {change}: {kept}");
        }
        assert_eq!(rig.rows("SELECT DISTINCT typeof(z) FROM e").await, ["real"]);
        // One that the replica does not let be rebuilt waits alone.
        write_by_hand(&rig, "CREATE VIEW v AS SELECT z FROM e").await;
        write_by_hand(&rig, "CREATE TRIGGER on_e AFTER INSERT ON e BEGIN SELECT RAISE(ABORT, 'no'); END").await;
        rig.db.sql("alter table e alter column z type text; update other set v = 'last'").await;
        rig.worker.drain(BUDGET).await.unwrap_or_else(|e| panic!("{path:?}: {e}"));
        assert_eq!(other(&rig).await, ["last"]);
    }
}
