//! What has a bound: a row or a message is not fetched beyond one, a hand-sent mark is not worked off beyond a step's
//! time, letters are not looked through for each other, and a count that fails fails nothing else.

use crate::limits::{directory_with, run};
use crate::parts::{Fault, Proxy};
use crate::snapshot::{assert_equal, rebuilt, write_by_hand};
use crate::support::{PATHS, Path, Rig, config, schema};
use crate::volume::set_up;
use pgflume::config::Config;
use pgflume::operate::verify::verify;
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use pgflume::sync::compare::report::VerifyOptions;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BUDGET: Duration = Duration::from_secs(25);

const WIDE: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","a":"TEXT","b":"BLOB","j":"JSON","l":"JSON"}},
    "texts":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},
    "p":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
    "other":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

const MAKE: &str = "create table t (id int primary key, a text, b bytea, j jsonb, l text[]);
    create table texts (id text primary key, v varchar); create table p (id int primary key, v text) partition by range (id);
    create table p1 partition of p for values from (0) to (1000); create table other (id int primary key, v text)";

/// A worker that fetches no row beyond 100 kB.
fn bounded(rig: &Rig) -> Worker {
    Worker::new(Config { row_bytes: 100_000, ..config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone()) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_large_becomes_a_letter_before_it_is_fetched() {
    for path in PATHS {
        let rig = Rig::new(path, schema(WIDE)).await;
        rig.db.sql(MAKE).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        let worker = bounded(&rig);
        worker.drain(BUDGET).await.unwrap();
        // Each in another way, among rows that fit; some are small where they are stored.
        rig.db.sql("insert into t select i, 'a', 'b', '{}', '{x}' from generate_series(1, 200) i;
            insert into t (id, a) values (1001, repeat('x', 150000)), (1002, repeat('x', 99999));
            insert into t (id, a, b) values (1003, repeat('x', 60000), repeat('x', 60000)::bytea), (1004, null, repeat('x', 150000)::bytea);
            insert into t (id, j) values (1005, to_jsonb(repeat('x', 150000))), (1007, to_jsonb(repeat('x', 90000)));
            insert into t (id, l) values (1006, array[repeat('x', 150000)]);
            insert into texts values ('large', repeat('x', 150000)), ('small', 'x'); insert into p values (1, repeat('x', 150000)), (2, 'x');
            insert into other values (1, 'x')").await;
        let done = worker.drain(BUDGET).await.unwrap();
        assert_eq!((done.queued, done.dead), (0, 7), "{path:?} {:?}", rig.db.dead().await);
        assert!(rig.db.dead().await.iter().all(|reason| reason.contains("MAX_ROW_BYTES")));
        let small = "SELECT count(*) FROM t WHERE id < 1000 OR id IN (1002, 1007)";
        assert_eq!(rig.rows(small).await, ["202"]);
        assert_eq!(rig.rows("SELECT length(a) FROM t WHERE id = 1002").await, ["99999"]);
        assert_eq!(
            rig.rows("SELECT (SELECT group_concat(id) FROM texts), (SELECT group_concat(id) FROM p), v FROM other")
                .await,
            ["small|2|x"]
        );
        // By copy and by comparison.
        let names = ["t", "texts", "p"];
        pgflume::operate::resync::request(&worker, &names).await.unwrap();
        while worker.drain(BUDGET).await.unwrap().rebuilding > 0 {}
        assert_eq!(rig.rows(small).await, ["202"]);
        assert_eq!(rig.db.dead().await.len(), 7, "told once");
        let tables = names.map(str::to_owned).to_vec();
        let report =
            verify(&bounded(&rig), VerifyOptions { tables, ..VerifyOptions::default() }, Arc::default()).await.unwrap();
        assert!(report.is_equal() && report.tables["t"].dead == 5, "{report:?}");
        // A worker with another limit delivers them.
        pgflume::operate::dead::retry(&rig.worker, &pgflume::postgres::books::dead_letters::Choice::default())
            .await
            .unwrap();
        rebuilt(&rig).await;
        assert_equal(&rig).await;
        // And a row that grows leaves its letter, and the old state, and is named.
        rig.db.sql("update other set v = repeat('x', 200000); insert into other values (2, 'y')").await;
        assert_eq!(worker.drain(BUDGET).await.unwrap().dead, 1);
        assert_eq!(rig.rows("SELECT id, v FROM other ORDER BY id").await, ["1|x", "2|y"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_lie_close_together_are_measured_too() {
    let rig = Rig::new(Path::File, schema(WIDE)).await;
    rig.db.sql(MAKE).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let worker = bounded(&rig);
    rig.db.sql("insert into other select i, 'x' from generate_series(1, 500) i").await;
    worker.drain(BUDGET).await.unwrap();
    rig.db.sql("update other set v = case when id = 250 then repeat('y', 150000) else 'y' end").await;
    let done = worker.drain(BUDGET).await.unwrap();
    assert_eq!((done.queued, done.dead), (0, 1));
    assert_eq!(rig.rows("SELECT v, count(*) FROM other GROUP BY v").await, ["x|1", "y|499"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_becomes_a_letter_on_the_server_and_can_be_tried_again() {
    let rig = Rig::new(Path::File, schema(WIDE)).await;
    let worker = bounded(&rig);
    let image = |id: u32, bytes: usize| {
        format!(r#"{{"type":"INSERT","table":"other","record":{{"id":{id},"v":"{}"}}}}"#, "x".repeat(bytes))
    };
    for (id, bytes) in [(1, 10), (2, 150_000), (3, 90_000), (4, 150_000), (5, 10)] {
        rig.db.send(&image(id, bytes)).await;
    }
    let done = worker.drain(BUDGET).await.unwrap();
    assert_eq!((done.processed, done.queued, done.dead), (5, 0, 2));
    assert_eq!(rig.rows("SELECT id FROM other ORDER BY id").await, ["1", "3", "5"]);
    assert!(rig.db.dead().await.iter().all(|reason| reason.contains("MAX_ROW_BYTES")));
    pgflume::operate::dead::retry(&rig.worker, &pgflume::postgres::books::dead_letters::Choice::default())
        .await
        .unwrap();
    assert_eq!(rig.drain().await.queued, 0);
    assert_eq!(rig.rows("SELECT length(v) FROM other ORDER BY id").await, ["10", "150000", "90000", "150000", "10"]);
    // Nothing else on the queue.
    rig.db.send(&image(6, 150_000)).await;
    let done = worker.drain(BUDGET).await.unwrap();
    assert_eq!((done.processed, done.queued, done.dead), (1, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_is_an_option_that_is_checked() {
    let rig = Rig::new(Path::File, schema(WIDE)).await;
    let directory = directory_with(WIDE);
    rig.db
        .send(&format!(r#"{{"type":"INSERT","table":"other","record":{{"id":1,"v":"{}"}}}}"#, "x".repeat(3000)))
        .await;
    for wrong in ["0", "-1", "many", "2GiB", "1 TB", "1023"] {
        let run = run(&rig, directory.path(), &["sync", &format!("--max-row-bytes={wrong}")]).await;
        assert!(run.output.status.code() == Some(2) && run.log().contains("MAX_ROW_BYTES"), "{wrong}: {}", run.log());
    }
    run(&rig, directory.path(), &["sync", "--max-row-bytes", "2KiB"]).await.succeeded();
    assert_eq!(rig.db.dead().await.len(), 1);
}

/// A target that takes its time, and one message that marks more than a step has time for.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_has_no_time_for_of_a_single_message_is_marked_again() {
    let rig = Rig::new(Path::Sqld, schema(WIDE)).await;
    rig.db.sql(MAKE).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    rig.db.sql("insert into other select i, repeat('x', 100) from generate_series(1, 160000) i").await;
    rig.drain().await;
    let Target::Remote { url, token } = rig.home.target() else { unreachable!() };
    let proxy = Proxy::start(url.rsplit(':').next().unwrap().parse().unwrap());
    proxy.set(Fault::Delay(Duration::from_millis(100)));
    let target = Target::Remote { url: proxy.url(), token };
    let worker = Worker::new(config(&rig.db.url(), target, rig.worker.schema().clone()));
    rig.db.sql("insert into pgmq.q_replicate_data_libsql (vt, message) select now(), jsonb_build_object('v', 1, 'table', 'other', 'keys',
                (select jsonb_agg(jsonb_build_array(i::text)) from generate_series(1, 160000) i))").await;
    let mut steps = 0;
    loop {
        let started = Instant::now();
        let done = worker.drain(Duration::ZERO).await.unwrap();
        steps += 1;
        println!("step {steps}: {done:?}");
        assert!(started.elapsed() < Duration::from_secs(40), "one step took {:?}", started.elapsed());
        if done.queued == 0 {
            break;
        }
        assert!(done.processed > 0, "each step gets on: {done:?}");
    }
    assert!(steps > 1, "it was not one step");
    assert_eq!(rig.rows("SELECT count(*) FROM other").await, ["160000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_letters_cost_a_step_and_a_new_letter_no_walk() {
    let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
    let rig = Rig::new(Path::File, schema(json)).await;
    write_by_hand(&rig, "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, v TEXT CHECK (v <> 'bad'))").await;
    rig.db.sql("create table t (id int primary key, v text)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    rig.db.sql("insert into t values (200001, 'bad'), (200002, 'good')").await;
    assert_eq!(rig.drain().await.dead, 1);
    rig.db.sql("insert into pgmq.q_replicate_data_libsql_dead (vt, message) select now(), jsonb_build_object('reason', 'r', 'class', 'target', 'table', 't', 'key', jsonb_build_array(i::text))
                from generate_series(1, 90000) i; analyze pgmq.q_replicate_data_libsql_dead").await;
    // The same letter is not told twice, and another is told.
    rig.db.sql("update t set v = 'bad'; insert into t select i, case when i % 3 = 0 then 'bad' else 'good' end from generate_series(300001, 300600) i").await;
    let started = Instant::now();
    rig.drain().await;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let told = "select count(*) from pgmq.q_replicate_data_libsql_dead where (message->'key'->>0)::int > 200000";
    assert_eq!(rig.db.one(told).await, "202");
    rig.db.sql("update t set v = 'good' where id = 300003").await;
    rig.drain().await;
    assert_eq!(rig.db.one(told).await, "201", "superseded");
}

/// What is left is counted when all is done and acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_count_that_fails_fails_no_drain() {
    let json = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
    let rig = Rig::new(Path::File, schema(json)).await;
    rig.db.send(r#"{"type":"INSERT","table":"t","record":{"id":1,"v":"x"}}"#).await;
    rig.drain().await;
    rig.db.sql("create role counter login; grant usage on schema pgmq, pgflume to counter; grant all on all tables in schema pgmq, pgflume to counter; grant all on all sequences in schema pgmq, pgflume to counter; grant execute on all functions in schema pgflume, pg_catalog to counter; grant pg_monitor to counter").await;
    rig.db.send(r#"{"type":"INSERT","table":"t","record":{"id":2,"v":"x"}}"#).await;
    // The progress is moved by the last step: from then on nothing more is to be seen of the rebuilds.
    rig.db.sql("create function forbid() returns trigger language plpgsql security definer as $$begin
                  revoke select on pgflume.resyncs from counter; return null; end$$;
                create constraint trigger forbid after update on pgflume.progress deferrable initially deferred for each row
                  when (old.seq is distinct from new.seq) execute function forbid()").await;
    let url = rig.db.url().replace("postgres@", "counter@");
    let worker = Worker::new(config(&url, rig.home.target(), rig.worker.schema().clone())).ending_caught_up();
    let done = worker.drain(BUDGET).await;
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["2"]);
    assert_eq!(done.map(|done| done.processed).map_err(|e| e.to_string()), Ok(1));
}

/// Each kind of column whose large values are not copied, and one that is converted.
const LENT: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","a":"TEXT","v":"TEXT","b":"BLOB","j":"JSON","s":"JSON","l":"JSON"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn large_values_of_each_kind_arrive_whole_and_one_wrong_byte_is_found() {
    for path in PATHS {
        let rig = Rig::new(path, schema(LENT)).await;
        rig.db.sql("create table t (id int primary key, a text, v varchar, b bytea, j jsonb, s json, l text[])").await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rig.drain().await;
        // Of three bytes a character, so that no part of it is a text.
        let long = "repeat('\u{20ac}x\"\\', 300000)";
        let sql = format!("insert into t (id, a) values (1, {long}), (7, {long}); insert into t (id, v) values (2, {long});
            insert into t (id, b) values (3, convert_to({long}, 'UTF8')); insert into t (id, j) values (4, to_jsonb({long}));
            insert into t (id, s) values (5, to_json({long})); insert into t (id, l) values (6, array[repeat('z', 1500000)])");
        rig.db.sql(&sql).await;
        let done = rig.drain().await;
        assert_eq!((done.queued, done.dead), (0, 0), "{path:?} {:?}", rig.db.dead().await);
        let lengths =
            "SELECT group_concat(length(coalesce(a, v, b, j, s, l)) || typeof(coalesce(a, v, b, j, s, l))) FROM t";
        let expected = "1200000text,1200000text,1800000blob,1800002text,1800002text,1500004text,1200000text";
        assert_eq!(rig.rows(lengths).await, [expected], "{path:?}");
        // By copy, and by a second mark on top of what is there.
        pgflume::operate::resync::request(&rig.worker, &["t"]).await.unwrap();
        rebuilt(&rig).await;
        rig.db.sql("update t set a = a || 'x', v = v || 'x', b = b || 'x', s = to_json(repeat('y', 1200000))").await;
        rig.drain().await;
        // In the database: not every server gives so large an answer.
        let verify = async |repair| {
            let options = VerifyOptions { tables: vec!["t".into()], repair, ..VerifyOptions::default() };
            verify(&rig.worker, options, Arc::default()).await.unwrap().tables.remove("t").unwrap()
        };
        assert_eq!(verify(false).await.differences(), 0, "{path:?}");
        for (id, wrong) in [
            (1, "a = substr(a, 1, 600000) || 'y' || substr(a, 600002)"),
            (3, "b = x'00' || substr(b, 2)"),
            (5, "s = replace(s, '\"', '''')"),
        ] {
            write_by_hand(&rig, &format!("UPDATE t SET {wrong} WHERE id = {id}")).await;
        }
        let found = verify(true).await;
        assert_eq!((found.different, found.repaired), (3, 3), "{path:?} {found:?}");
        assert_eq!(verify(false).await.differences(), 0, "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_row_costs_no_more_than_three_times_its_size() {
    let rig = Rig::new(Path::File, schema(LENT)).await;
    rig.db.sql("create table t (id int primary key, a text, v varchar, b bytea, j jsonb, s json, l text[])").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let directory = directory_with(LENT);
    run(&rig, directory.path(), &["sync"]).await.succeeded();
    // Just below the limit of 64 MiB; incompressible in the way that Postgres compresses, so that it is read as it is.
    let (mb, largest) =
        (64 * 1024 * 1024 / 1_000_000, "(select string_agg(md5(i::text), '') from generate_series(1, 2097100) i)");
    for (id, column) in [(1, "a"), (2, "b")] {
        let value = if column == "b" { format!("convert_to({largest}, 'UTF8')") } else { largest.to_owned() };
        rig.db.sql(&format!("insert into t (id, {column}) values ({id}, {value})")).await;
        for arguments in [&["sync"][..], &["verify"], &["resync", "t"]] {
            let done = run(&rig, directory.path(), arguments).await.succeeded();
            assert!(done.peak_mb <= 3 * mb, "{column} {arguments:?}: {} MB for {mb} MB", done.peak_mb);
        }
        assert_eq!(rig.rows(&format!("SELECT length({column}) FROM t WHERE id = {id}")).await, ["67107200"]);
        rig.db.sql("delete from t").await;
        run(&rig, directory.path(), &["sync"]).await.succeeded();
    }
    assert_eq!(rig.db.dead().await, Vec::<String>::new());
}
