//! Whole tables: copied in key order at the step's snapshot, resumed, swept, refilled.

use crate::support::{Db, Home, PATHS, Path, Rig, SECRET, Server, config, newest_cluster, schema};
use crate::volume::{set_up, verdicts};
use pgflume::operate::resync;
use pgflume::sync::{Worker, pairing};
use std::time::Duration;

const BUDGET: Duration = Duration::from_secs(25);

/// Keys of every kind that orders differently in Postgres and in SQLite, or needs several columns.
pub const KEYS: &str = r#"{
    "ints":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
    "texts":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},
    "bytes":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},
    "uuids":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},
    "times":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},
    "numbers":{"primaryKey":"id","columns":{"id":"DECIMAL","v":"TEXT"}},
    "doubles":{"primaryKey":"id","columns":{"id":"REAL","v":"TEXT"}},
    "blobs":{"primaryKey":"id","columns":{"id":"BLOB","v":"TEXT"}},
    "moods":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},
    "nocase":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}},
    "pairs":{"primaryKey":["b","a"],"columns":{"a":"TEXT","b":"TEXT","v":"TEXT"}},
    "mixed":{"primaryKey":["a","b"],"columns":{"a":"TEXT","b":"INTEGER","v":"TEXT"}},
    "parts":{"primaryKey":["id","day"],"columns":{"id":"INTEGER","day":"TEXT","v":"TEXT"}},
    "few":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"where":"v like '%77'"}}"#;

pub const TABLES: &str = "
    create extension citext;
    create type mood as enum ('zebra', 'ape', 'monk');
    create table ints (id bigint primary key, v text);
    create table texts (id text collate \"en-x-icu\" primary key, v text);
    create table bytes (id text collate \"C\" primary key, v text);
    create table uuids (id uuid primary key, v text);
    create table times (id timestamptz primary key, v text);
    create table numbers (id numeric primary key, v text);
    create table doubles (id float8 primary key, v text);
    create table blobs (id bytea primary key, v text);
    create table moods (id mood primary key, v text);
    create table nocase (id citext primary key, v text);
    create table pairs (a uuid, b text collate \"en-x-icu\", v text, primary key (a, b));
    create table mixed (a citext, b int, v text, primary key (a, b));
    create table parts (id int, day date, v text, primary key (id, day)) partition by range (day);
    create table parts_1 partition of parts for values from (minvalue) to ('2024-02-01');
    create table parts_2 partition of parts for values from ('2024-02-01') to (maxvalue);
    create table few (id int primary key, v text);
    insert into ints select i * 7 - 5000, 'v' || i from generate_series(1, 5000) i;
    insert into texts select chr(65 + i % 57) || (case when i % 2 = 0 then 'ä' else 'Z' end) || i, i from generate_series(1, 5000) i;
    insert into bytes select id, v from texts;
    insert into uuids select gen_random_uuid(), i from generate_series(1, 5000) i;
    insert into times select '-infinity'::timestamptz, 0 union all select 'infinity', 0 union all select '0044-03-15 BC'::timestamptz, 0
        union all select '2024-01-01'::timestamptz + i * interval '1 h 1 us', i from generate_series(1, 5000) i;
    insert into numbers select 'NaN'::numeric, 0 union all select (i / 10.0)::numeric(10, 2), i from generate_series(1, 5000) i;
    insert into doubles select 'NaN'::float8, 0 union all select '-Infinity', 0 union all select 1e300 / i, i from generate_series(1, 5000) i;
    insert into blobs select decode(md5(i::text), 'hex'), i from generate_series(1, 5000) i;
    insert into moods select m, 'x' from unnest(enum_range(null::mood)) m;
    insert into nocase select chr(97 + i % 26) || chr(65 + i % 26) || i, i from generate_series(1, 5000) i;
    insert into pairs select md5((i % 50)::text)::uuid, 'é' || i, i from generate_series(1, 5000) i;
    insert into mixed select 'K' || i % 50, i, i from generate_series(1, 5000) i;
    insert into parts select i, date '2024-01-01' + i % 60, i from generate_series(1, 5000) i;
    insert into few select i, i from generate_series(1, 20000) i";

pub async fn assert_equal(rig: &Rig) {
    for verdict in verdicts(rig).await {
        assert!(verdict.is_equal(), "{verdict:?}");
    }
}

/// Drains until nothing is queued and nothing is left to rebuild.
pub async fn rebuilt(rig: &Rig) {
    while rig.drain().await.rebuilding > 0 {}
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_with_keys_of_every_kind_are_copied_and_what_the_source_lacks_is_removed() {
    for path in PATHS {
        let rig = Rig::new(path, schema(KEYS)).await;
        rig.db.sql(TABLES).await;
        // The replica has something already: other rows under other keys, and old ones.
        rig.drain().await;
        for table in ["ints", "texts", "uuids", "doubles", "mixed"] {
            let key = if table == "mixed" { "a" } else { "id" };
            let extra = if table == "mixed" { ", 7" } else { "" };
            let into = if table == "mixed" { "a, b, v" } else { "id, v" };
            let from = if table == "texts" { "'zzz'" } else { "'-77'" };
            write_by_hand(&rig, &format!("INSERT INTO {table} ({into}) VALUES ({from}{extra}, 'old')")).await;
            assert_eq!(rig.rows(&format!("SELECT count({key}) FROM {table}")).await, ["1"]);
        }
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        assert_equal(&rig).await;
        assert_eq!(rig.rows("SELECT count(*) FROM few").await, ["200"]);
        assert_eq!(rig.rows("SELECT caught_up_at IS NOT NULL FROM _pgflume_freshness").await, ["1"]);
        assert_eq!(rig.drain().await.rows, 0, "it is done");
    }
}

pub async fn write_by_hand(rig: &Rig, sql: &str) {
    use pgflume::replica::local::Local;
    use pgflume::replica::remote::Remote;
    use pgflume::replica::{Store, Work};
    let store: Box<dyn Store> = match rig.home.target() {
        pgflume::replica::target::Target::File(path) => Box::new(Local::open(&path).await.unwrap()),
        pgflume::replica::target::Target::Remote { url, token } => Box::new(Remote::new(&url, token).unwrap()),
        pgflume::replica::target::Target::Given(_) => unreachable!(),
    };
    store.write(Work { before: vec![sql.to_owned().into()], ..Work::default() }).await.unwrap();
}

const ONE: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_first_copy_looks_for_nothing_that_the_source_lacks() {
    for path in PATHS {
        let rig = Rig::new(path, schema(KEYS)).await;
        rig.db.sql(TABLES).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        // What is marked is brought before the copy begins.
        rig.db.sql("update ints set v = 'new' where id % 3 = 0; delete from texts where v like '1%'").await;
        rebuilt(&rig).await;
        let swept = "select count(*) from pgflume.resyncs where not fresh or removed > 0";
        assert_eq!(rig.db.one(swept).await, "0");
        assert_equal(&rig).await;
        // One that has rows is swept.
        write_by_hand(&rig, "INSERT INTO ints VALUES (-1, 'not there')").await;
        resync::request(&rig.worker, &["ints"]).await.unwrap();
        rebuilt(&rig).await;
        let swept = "select name || ' ' || removed from pgflume.resyncs where not fresh";
        assert_eq!(rig.db.all(swept).await, ["ints 1"]);
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_where_it_was_stopped_and_writers_go_on_meanwhile() {
    for path in PATHS {
        let rig = Rig::new(path, schema(ONE)).await;
        rig.db.sql("create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 60000) i").await;
        rig.drain().await;
        write_by_hand(&rig, "INSERT INTO t VALUES (70000, 'not there')").await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        let mut steps = 0;
        let mut seen = 0;
        loop {
            // One step, by a worker that knows nothing of the ones before.
            let done = rig.second_worker().drain(Duration::ZERO).await.unwrap();
            steps += 1;
            let copied: i64 = rig.db.one("select rows from pgflume.resyncs").await.parse().unwrap();
            assert!(copied >= seen, "it does not start over");
            seen = copied;
            rig.db
                .sql(&format!(
                    "update t set v = 'new' where id in (1, 59999); delete from t where id = {steps} + 10; insert into t values (-{steps}, 'late'), (100000 + {steps}, 'late')"
                ))
                .await;
            if done.rebuilding == 0 {
                break;
            }
        }
        assert!(steps > 1, "one step for all shows nothing");
        rebuilt(&rig).await;
        assert_equal(&rig).await;
        assert_eq!(rig.rows("SELECT v FROM t WHERE id IN (1, 59999)").await, ["new", "new"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nuke_empties_the_tables_and_the_next_drains_refill_them() {
    for path in PATHS {
        let rig = Rig::new(path, schema(ONE)).await;
        rig.db.sql("create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 300) i").await;
        rig.drain().await;
        let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
        assert_eq!(server.call("POST", "/nuke", Some(SECRET)).await.status, 200);
        assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["0"], "empty when it answers");
        // Filled although no trigger captures it; by another drain, where the worker has just begun and saw it wait.
        while rig.rows("SELECT count(*) FROM t").await != ["300"] {
            assert_eq!(server.sync().await.status, 200);
        }
        assert_eq!(server.call("POST", "/nuke?refill=false", Some(SECRET)).await.status, 200);
        server.sync().await;
        assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["0"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asked_for_resync_mends_a_live_table_without_emptying_it() {
    for path in PATHS {
        let rig = Rig::new(path, schema(ONE)).await;
        rig.db.sql("create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 3000) i").await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        for damage in [
            "UPDATE t SET v = 'damaged' WHERE id = 7",
            "DELETE FROM t WHERE id = 8",
            "INSERT INTO t VALUES (9999, 'extra')",
        ] {
            write_by_hand(&rig, damage).await;
        }
        let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
        let header = vec![("x-webhook-signature".to_owned(), SECRET.to_owned())];
        let wrong = server.request("POST", "/resync", header.clone(), br#"{"tables":["nope"]}"#.to_vec()).await;
        assert_eq!(wrong.status, 400, "{}", wrong.body);
        assert!(wrong.body.contains("nope"));
        let asked = server.request("POST", "/resync", header, br#"{"tables":["t"]}"#.to_vec()).await;
        assert_eq!(asked.status, 202, "{}", asked.body);
        // It begins by itself; whoever asks for a drain waits for it or is told that it runs.
        loop {
            server.sync().await;
            if rig.db.one("select phase from pgflume.resyncs").await == "done" {
                break;
            }
        }
        assert_equal(&rig).await;
        assert_eq!(rig.db.one("select removed from pgflume.resyncs").await, "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_taken_over_wait_alone() {
    let tables = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"},"lossy":["v"]},
        "u":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"},"where":"public.fine(id)"}}"#;
    let rig = Rig::new(Path::File, schema(tables)).await;
    rig.db
        .sql("create table t (id int primary key, v text); insert into t select i, i from generate_series(1, 5000) i;
              update t set v = 'not a number' where id in (77, 4000);
              create function fine(int) returns bool language plpgsql immutable as $$begin if $1 = 123 then raise 'no'; end if; return true; end$$;
              create table u (id int primary key, v text); insert into u select i, i from generate_series(1, 5000) i")
        .await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["4998"]);
    assert_eq!(rig.rows("SELECT count(*) FROM u").await, ["4999"]);
    let dead = rig.db.all("select concat_ws(' ', message->>'table', message->>'key', message->>'class') from pgmq.q_replicate_data_libsql_dead order by 1").await;
    assert_eq!(dead, [r#"t ["4000"] value"#, r#"t ["77"] value"#, r#"u ["123"] source"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_rows_mostly_do_not_fit_waits_and_says_so_and_the_others_go_on() {
    let tables = r#"{"a":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"}},"b":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
        "c":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#;
    let rig = Rig::new(Path::File, schema(tables)).await;
    rig.db
        .sql("create table a (id int primary key, v text); insert into a select i, 'text' from generate_series(1, 5000) i;
              create table b (id int primary key, v text); insert into b select i, 'text' from generate_series(1, 50) i;
              create table c (id int)")
        .await;
    rig.drain().await;
    resync::request(&rig.worker, &["a", "b", "c"]).await.unwrap();
    let done = rig.drain().await;
    assert_eq!(done.rebuilding, 2);
    assert_eq!(rig.rows("SELECT count(*) FROM b").await, ["50"]);
    let problems =
        rig.db.all("select name || ': ' || problem from pgflume.resyncs where phase <> 'done' order by name").await;
    assert!(problems[0].starts_with("a: more than 1000 rows"), "{problems:?}");
    assert!(problems[1].contains("no primary key and no unique index"), "{problems:?}");
    assert_eq!(rig.rows("SELECT caught_up_at FROM _pgflume_freshness").await, ["NULL"], "it is not whole");
    let status = pgflume::operate::status::status(&rig.worker).await.unwrap();
    let shown = serde_json::to_string(&status).unwrap();
    assert!(shown.contains("more than 1000 rows"), "{shown}");
    let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    let ready = server.call("GET", "/ready", None).await;
    assert!(ready.status == 503 && ready.body.contains("cannot be rebuilt"), "{}", ready.body);
    let metrics = server.call("GET", "/metrics", None).await;
    for line in ["pgflume_source_up 1.0", "pgflume_tables_stuck 2.0", "pgflume_resync_rows{table=\"b\"} 50.0"] {
        assert!(metrics.body.lines().any(|l| l == line), "{line}: {}", metrics.body);
    }
    assert!(!metrics.body.contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_and_refilled_table_is_swept_over_several_steps() {
    let rig = Rig::new(Path::File, schema(ONE)).await;
    rig.db
        .sql(
            "create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 30000) i",
        )
        .await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    rig.db.sql("begin; truncate t; insert into t select i, 'y' from generate_series(100, 200) i; commit").await;
    rebuilt(&rig).await;
    assert_equal(&rig).await;
    assert_eq!(rig.rows("SELECT count(*), min(v) FROM t").await, ["101|y"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_rows_a_second_is_kept() {
    let rig = Rig::new(Path::File, schema(ONE)).await;
    rig.db
        .sql("create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 3000) i")
        .await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let mut slow = config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone());
    slow.rows_per_second = Some(2000);
    let worker = Worker::new(slow);
    let started = std::time::Instant::now();
    while worker.drain(BUDGET).await.unwrap().rebuilding > 0 {}
    assert!(started.elapsed() > Duration::from_millis(1000), "{:?}", started.elapsed());
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_postgres_is_copied_too_and_image_tables_wait_for_their_messages() {
    let rig = Rig::with(Db::on(newest_cluster(), "with_pgmq").await, Home::new(Path::File), schema(ONE));
    rig.db.sql("create table t (id int primary key, v text); insert into t values (1, 'row')").await;
    rig.db.send(r#"{"type":"INSERT","table":"t","record":{"id":1,"v":"older image"}}"#).await;
    resync::request(&rig.worker, &["t"]).await.unwrap();
    rebuilt(&rig).await;
    assert_eq!(rig.rows("SELECT v FROM t").await, ["row"]);
    // An image may tell of a row that is gone since, of which nothing else tells: its table was empty before it came.
    write_by_hand(&rig, "DELETE FROM t").await;
    rig.db.send(r#"{"type":"INSERT","table":"t","record":{"id":2,"v":"gone"}}"#).await;
    resync::request(&rig.worker, &["t"]).await.unwrap();
    rebuilt(&rig).await;
    assert_eq!(rig.rows("SELECT v FROM t").await, ["row"]);
    pairing::nuke(&rig.worker, None, true).await.unwrap();
    rebuilt(&rig).await;
    assert_eq!(rig.rows("SELECT v FROM t").await, ["row"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_ten_times_goes_on_where_it_was_and_a_reader_sees_no_row_go_back() {
    const ROWS: i64 = 40_000;
    for path in PATHS {
        let rig = Rig::new(path, schema(ONE)).await;
        rig.db
            .sql(&format!("create table t (id int primary key, v text); insert into t select i, '0' from generate_series(1, {ROWS}) i"))
            .await;
        rig.drain().await;
        write_by_hand(&rig, "INSERT INTO t VALUES (900000, 'not there')").await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rig.worker.drain(Duration::ZERO).await.unwrap();
        let schema_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(schema_file.path(), ONE).unwrap();
        let start = || {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pgflume"));
            command.arg("sync").env_clear().env("PGMQ_URL", rig.db.url()).env("SCHEMA_FILE", schema_file.path());
            match rig.home.target() {
                pgflume::replica::target::Target::File(path) => command.env("LIBSQL_URL", path),
                pgflume::replica::target::Target::Remote { url, token } => {
                    command.env("LIBSQL_URL", url).env("LIBSQL_AUTH_TOKEN", token.unwrap().expose())
                }
                pgflume::replica::target::Target::Given(_) => unreachable!(),
            };
            // So slow that ten kills fit in.
            command.env("SNAPSHOT_ROWS_PER_SECOND", "4000").env("RUST_LOG", "off");
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        };
        let (mut seen, mut versions, mut kills, mut round) = (0, std::collections::BTreeMap::new(), 0, 0);
        let mut worker = start();
        loop {
            round += 1;
            rig.db.sql(&format!("update t set v = v::int + 1 where id % 977 = {round} % 977; insert into t values ({ROWS} + {round}, '0')")).await;
            for row in rig.rows("SELECT id || ' ' || v FROM t WHERE id % 977 < 40").await {
                let (id, v) = row.split_once(' ').unwrap();
                let (id, v): (i64, i64) = (id.parse().unwrap(), v.parse().unwrap_or_default());
                assert!(*versions.get(&id).unwrap_or(&0) <= v, "row {id} went back");
                versions.insert(id, v);
            }
            let lost = versions.len() as i64 - rig.rows("SELECT id FROM t WHERE id % 977 < 40").await.len() as i64;
            assert!(lost <= 0, "a row vanished");
            let copied: i64 = rig.db.one("select rows from pgflume.resyncs").await.parse().unwrap();
            assert!(copied >= seen, "it started over");
            if kills < 10 && (copied > seen || round % 3 == 0) {
                worker.kill().unwrap();
                worker.wait().unwrap();
                worker = start();
                kills += 1;
            }
            seen = copied;
            if let Some(ended) = worker.try_wait().unwrap() {
                assert!(ended.success(), "{ended}");
                break;
            }
        }
        assert_eq!(kills, 10, "{path:?}: it was too quick to be killed");
        rebuilt(&rig).await;
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_truncated_while_it_is_swept_or_copied_keeps_no_row_of_before() {
    for phase in ["copy", "sweep"] {
        let rig = Rig::new(Path::File, schema(ONE)).await;
        rig.db.sql("create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 40000) i").await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        resync::request(&rig.worker, &["t"]).await.unwrap();
        // As if it had been stopped in the middle.
        let middle = format!("update pgflume.resyncs set phase = '{phase}', cursor = '{{20000}}', fresh = true");
        rig.db.sql(&middle).await;
        rig.db.sql("begin; truncate t; insert into t select i, 'y' from generate_series(30000, 30100) i; commit").await;
        rebuilt(&rig).await;
        assert_equal(&rig).await;
        assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["101"], "{phase}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nuke_that_was_cut_short_is_refilled_and_a_cursor_of_another_key_is_not_trusted() {
    let rig = Rig::new(Path::File, schema(ONE)).await;
    rig.db
        .sql("create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 300) i")
        .await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    // The tables are emptied, and then Postgres does not commit.
    let die = "create function pgflume.die() returns trigger language plpgsql as $$begin
            raise exception 'no commit' using errcode = '57P01'; end$$;
        create trigger die before update of epoch on pgflume.progress for each row execute function pgflume.die()";
    rig.db.sql(die).await;
    assert!(pairing::nuke(&rig.worker, None, true).await.is_err());
    rig.db.sql("drop function pgflume.die cascade").await;
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["0"]);
    rebuilt(&rig).await;
    assert_equal(&rig).await;
    resync::request(&rig.worker, &["t"]).await.unwrap();
    write_by_hand(&rig, "DELETE FROM t WHERE id < 100").await;
    rig.db.sql("update pgflume.resyncs set cursor = '{200}', ordered_by = 'another key'").await;
    rebuilt(&rig).await;
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgres_cannot_look_at_is_not_removed_and_a_key_that_it_cannot_read_is() {
    let tables = r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"},"where":"public.fine(id)"}}"#;
    let rig = Rig::new(Path::File, schema(tables)).await;
    rig.db
        .sql("create function fine(uuid) returns bool language plpgsql immutable as $$begin return true; end$$;
              create table t (id uuid primary key, v text); insert into t select md5(i::text)::uuid, i from generate_series(1, 500) i")
        .await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    rig.db.sql("create or replace function fine(uuid) returns bool language plpgsql immutable as $$begin if $1 = md5('7')::uuid then raise 'no'; end if; return true; end$$").await;
    write_by_hand(&rig, "INSERT INTO t VALUES ('no uuid', 'extra')").await;
    resync::request(&rig.worker, &["t"]).await.unwrap();
    rebuilt(&rig).await;
    assert_eq!(rig.rows("SELECT count(*), sum(v = '7'), sum(id = 'no uuid') FROM t").await, ["500|1|0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_begins_anew_where_the_order_of_its_keys_changes_on_the_way() {
    let changes = [
        ("int", "alter table t alter id type text"),
        ("text collate \"en-x-icu\"", "alter table t alter id type text collate \"C\""),
        ("mood", "alter type mood rename value 'm100' to 'renamed'"),
    ];
    for (kind, change) in changes {
        let declared = r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT","v":"TEXT"}}}"#;
        let rig = Rig::new(Path::File, schema(declared)).await;
        let moods: Vec<String> = (1..=3000).map(|i| format!("'m{i}'")).collect();
        let value = if kind == "mood" { "('m' || i)::mood" } else { "i" };
        rig.db
            .sql(&format!(
                "create type mood as enum ({}); create table t (id {kind} primary key, v text); insert into t select {value}, i from generate_series(1, 3000) i",
                moods.join(", ")
            ))
            .await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        let mut slow = config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone());
        slow.rows_per_second = Some(4000);
        let worker = Worker::new(slow);
        while rig.db.one("select rows from pgflume.resyncs").await == "0" {
            worker.drain(Duration::ZERO).await.unwrap();
        }
        assert_ne!(rig.db.one("select phase from pgflume.resyncs").await, "done", "{kind}: too quick to show anything");
        rig.db.sql(change).await;
        rebuilt(&rig).await;
        assert_equal(&rig).await;
    }
}
