//! Both sides compared while writes go on; differences found, shown and repaired.

use crate::parts::{Sqld, SqldOptions};
use crate::snapshot::{KEYS, TABLES, assert_equal, rebuilt, write_by_hand};
use crate::support::{Home, PATHS, Path, Rig, schema};
use crate::volume::set_up;
use pgflume::core::difference::{DifferenceKind, VerifyReport};
use pgflume::core::secret::Secret;
use pgflume::operate::verify::verify;
use pgflume::postgres::PgUrl;
use pgflume::replica::target::Target;
use pgflume::sync::compare::report::VerifyOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

async fn verified(rig: &Rig, options: VerifyOptions) -> VerifyReport {
    let tables = if options.tables.is_empty() {
        rig.worker.schema().tables().map(|t| t.name.clone()).collect()
    } else {
        options.tables.clone()
    };
    verify(&rig.second_worker(), VerifyOptions { tables, ..options }, Arc::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_difference_under_every_kind_of_key_is_found_and_repaired() {
    for path in PATHS {
        let rig = Rig::new(path, schema(KEYS)).await;
        rig.db.sql(TABLES).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        let report = verified(&rig, VerifyOptions::default()).await;
        assert!(report.is_equal(), "the snapshot is taken first: {report:?}");
        assert!(report.tables["ints"].is_whole && report.tables["ints"].rows == 5000, "{report:?}");
        for table in [
            "ints", "texts", "bytes", "uuids", "times", "numbers", "doubles", "blobs", "nocase", "pairs", "mixed",
            "parts",
        ] {
            let row = |offset| format!("rowid = (SELECT rowid FROM {table} ORDER BY rowid LIMIT 1 OFFSET {offset})");
            write_by_hand(&rig, &format!("UPDATE {table} SET v = v || ' ' WHERE {}", row(77))).await;
            write_by_hand(&rig, &format!("DELETE FROM {table} WHERE {}", row(99))).await;
        }
        write_by_hand(&rig, "INSERT INTO ints VALUES (-99999999, 'extra'), (99999999, 'extra'), (-4991, 'between')")
            .await;
        write_by_hand(&rig, "INSERT INTO texts VALUES ('', 'extra'), ('zzzz', 'extra')").await;
        write_by_hand(&rig, "INSERT INTO uuids VALUES ('no uuid', 'extra'), ('00000000-0000-0000-0000-00000000000A', 'not as Postgres writes it')").await;
        let report = verified(&rig, VerifyOptions::default()).await;
        assert!(!report.is_equal());
        for (name, table) in &report.tables {
            let expected = match name.as_str() {
                "moods" | "few" => (0, 0, 0),
                "ints" => (1, 1, 3),
                "texts" | "uuids" => (1, 1, 2),
                _ => (1, 1, 0),
            };
            assert_eq!((table.different, table.missing, table.extra), expected, "{path:?} {name}: {table:?}");
            assert!(
                table.examples.iter().all(|e| e.kind != DifferenceKind::Different || e.columns == ["v"]),
                "{table:?}"
            );
        }
        let report = verified(&rig, VerifyOptions { repair: true, ..VerifyOptions::default() }).await;
        assert!(report.is_equal() && report.tables["ints"].repaired == 5, "{report:?}");
        assert_equal(&rig).await;
        assert!(verified(&rig, VerifyOptions::default()).await.tables.values().all(|t| t.differences() == 0));
    }
}

const WIDE: &str = r#"{"wide":{"primaryKey":"id","columns":{"id":"INTEGER","i":"INTEGER","r":"REAL","t":"TEXT","b":"BOOLEAN","j":"JSON","x":"BLOB","d":"DECIMAL"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_single_bit_or_another_type_is_a_difference() {
    for path in PATHS {
        let rig = Rig::new(path, schema(WIDE)).await;
        rig.db
            .sql("create table wide (id int primary key, i int8, r float8, t text, b bool, j jsonb, x bytea, d numeric);
                  insert into wide values (0, null, null, null, null, null, null, null);
                  insert into wide select i, i, i + 0.1, 'é' || i, i % 2 = 0, '{\"a\": 1.10}', '\\x00ff', 1.10 from generate_series(1, 300) i;
                  update wide set t = repeat('long ', 200000) where id = 9; update wide set r = 1e300 where id = 11; update wide set r = 5 where id = 12")
            .await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        assert!(verified(&rig, VerifyOptions::default()).await.is_equal());
        let damages = [
            (1, "i", "i + 1"),
            (2, "r", "2.1000000000000005"),
            (3, "t", "'e' || 3"),
            (4, "b", "0"),
            (5, "j", "'{\"a\":1.10}'"),
            (6, "x", "x'00fe'"),
            (7, "d", "'1.1'"),
            (8, "t", "NULL"),
            (9, "t", "t || 'x'"),
            (10, "t", "x'c3a93130'"),
            (11, "r", "1.0000000000000002e300"),
            (13, "r", "NULL"),
        ];
        for (id, column, value) in damages {
            write_by_hand(&rig, &format!("UPDATE wide SET {column} = {value} WHERE id = {id}")).await;
        }
        write_by_hand(&rig, "UPDATE wide SET i = 7 WHERE id = 0").await;
        let report = verified(&rig, VerifyOptions::default()).await;
        assert_eq!(report.tables["wide"].different, damages.len() as u64 + 1, "{report:?}");
        assert!(verified(&rig, VerifyOptions { repair: true, ..VerifyOptions::default() }).await.is_equal());
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_go_on_are_no_difference_and_a_repair_among_them_is_exact() {
    for path in PATHS {
        let rig = Rig::new(path, schema(WIDE)).await;
        rig.db
            .sql(
                "create table wide (id int primary key, i int8, r float8, t text, b bool, j jsonb, x bytea, d numeric);
                  insert into wide (id, i) select i, i from generate_series(1, 20000) i",
            )
            .await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let (url, stop) = (rig.db.url(), stop.clone());
            writers.spawn(async move {
                let client = PgUrl::parse(&url).unwrap().connect().await.unwrap();
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let sql = format!("update wide set i = i + 1 where id % 4000 = 4 * ({n} % 1000) + {writer}; delete from wide where id = {writer} + 4 * {n}; insert into wide (id, t) values (100000 + {n} * 4 + {writer}, 'new')");
                    client.batch_execute(&sql).await.unwrap();
                }
            });
        }
        for round in 0..3 {
            write_by_hand(
                &rig,
                "UPDATE wide SET t = 'damaged' WHERE id IN (SELECT id FROM wide WHERE id BETWEEN 15000 AND 15010)",
            )
            .await;
            let report = verified(&rig, VerifyOptions { repair: round < 2, ..VerifyOptions::default() }).await;
            assert!(
                report.tables["wide"].different <= 11
                    && report.tables["wide"].missing + report.tables["wide"].extra == 0,
                "{report:?}"
            );
            assert!(report.tables["wide"].different > 0, "{report:?}");
        }
        stop.store(true, Ordering::Relaxed);
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
        assert!(verified(&rig, VerifyOptions { repair: true, ..VerifyOptions::default() }).await.is_equal());
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_replica_is_compared_by_itself() {
    let primary = Sqld::start(SqldOptions::default());
    let copy = primary.start_replica();
    let (url, token) = (primary.url(), primary.token_rw());
    let copy_at = Target::Remote { url: copy.url(), token: Some(Secret::new(token.clone())) };
    let rig = Rig::with(crate::support::Db::new().await, Home::Sqld(Box::new(primary)), schema(WIDE));
    assert!(url.starts_with("http"));
    rig.db.sql("create table wide (id int primary key, i int8, r float8, t text, b bool, j jsonb, x bytea, d numeric); insert into wide (id, i) select i, i from generate_series(1, 3000) i").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    let options = VerifyOptions { target: Some(copy_at), ..VerifyOptions::default() };
    // The copy may have no tables for a moment.
    let report = loop {
        let tables = vec!["wide".to_owned()];
        match verify(&rig.second_worker(), VerifyOptions { tables, ..options.clone() }, Arc::default()).await {
            Ok(report) => break report,
            Err(e) if e.to_string().contains("has no") => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    };
    assert!(report.is_equal() && report.tables["wide"].rows == 3000, "{report:?}");
    write_by_hand(&rig, "UPDATE wide SET i = -1 WHERE id = 77").await;
    // Until the copy has it.
    while verified(&rig, options.clone()).await.is_equal() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_go_on_where_the_last_one_ended_and_tell_since_when_every_row_was_compared() {
    let rig = Rig::new(Path::File, schema(r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT"}}}"#)).await;
    rig.db.sql("create table t (id text collate \"en-x-icu\" primary key); insert into t select 'k' || i from generate_series(1, 10000) i; analyze t").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    write_by_hand(&rig, "INSERT INTO t VALUES ('extra')").await;
    let (mut rows, mut extra, mut runs) = (0, 0, 0);
    loop {
        let report = verified(&rig, VerifyOptions { sample: Some(0.25), ..VerifyOptions::default() }).await;
        let table = &report.tables["t"];
        assert!(table.rows <= 2500, "{table:?}");
        (rows, extra, runs) = (rows + table.rows, extra + table.extra, runs + 1);
        let coverage =
            pgflume::operate::status::status(&rig.worker).await.unwrap().tables["t"].verified.clone().unwrap();
        if table.is_whole {
            assert_eq!((coverage.last_rows, coverage.last_different), (Some(10000), Some(1)), "{coverage:?}");
            assert!(coverage.every_row_within_seconds.unwrap() > 0.0);
            break;
        }
        assert_eq!(coverage.every_row_within_seconds, None);
    }
    assert_eq!((rows, extra), (10000, 1));
    assert!(runs > 4, "four parts of rows, and the keys of the replica");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_stand_aside_and_tables_that_cannot_be_compared_say_why() {
    let tables = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"},"lossy":["v"]},"u":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#;
    let rig = Rig::new(Path::File, schema(tables)).await;
    rig.db.sql("create table t (id int primary key, v text); insert into t select i, i from generate_series(1, 50) i; update t set v = 'x' where id = 7").await;
    set_up(
        &rig.db.url(),
        &schema(r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"},"lossy":["v"]}}"#),
    )
    .await;
    rebuilt(&rig).await;
    let report = verified(&rig, VerifyOptions::default()).await;
    assert_eq!(
        (report.tables["t"].rows, report.tables["t"].dead, report.tables["t"].differences()),
        (50, 1, 0),
        "{report:?}"
    );
    assert!(report.tables["u"].problem.as_deref().unwrap().contains("does not exist"), "{report:?}");
    assert!(!report.is_equal());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_replica_has_is_found_between_parts_and_behind_filters() {
    let tables = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","live":"BOOLEAN"},"where":"live"}}"#;
    let rig = Rig::new(Path::File, schema(tables)).await;
    rig.db.sql("create table t (id int primary key, live bool); insert into t select i, i % 3 = 0 from generate_series(1, 20000) i; analyze t").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    write_by_hand(&rig, "INSERT INTO t SELECT id + 1, 1 FROM t").await;
    let mut extra = 0;
    loop {
        let report = verified(&rig, VerifyOptions { sample: Some(0.07), ..VerifyOptions::default() }).await;
        extra += report.tables["t"].extra;
        if report.tables["t"].is_whole {
            break;
        }
    }
    assert_eq!(extra, 6666);
    let report = verified(&rig, VerifyOptions { repair: true, ..VerifyOptions::default() }).await;
    assert_eq!((report.tables["t"].extra, report.tables["t"].repaired), (6666, 6666), "{report:?}");
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_excuses_only_a_row_that_still_cannot_be_read() {
    let tables =
        r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"INTEGER"},"lossy":["v"],"where":"public.fine(id)"}}"#;
    let rig = Rig::new(Path::File, schema(tables)).await;
    rig.db
        .sql("create function fine(int) returns bool language plpgsql immutable as $$begin if $1 = 40 then raise 'no'; end if; return true; end$$;
              create table t (id int primary key, v text); insert into t select i, i from generate_series(1, 50) i; update t set v = 'x' where id in (7, 8)")
        .await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    let report = verified(&rig, VerifyOptions::default()).await;
    assert_eq!(
        (report.tables["t"].rows, report.tables["t"].dead, report.tables["t"].differences()),
        (50, 3, 0),
        "{report:?}"
    );
    // The letter stays, but the row is fine again and the replica does not have it.
    rig.db.sql("alter table t disable trigger user; update t set v = '7' where id = 7; alter table t enable always trigger pgflume_replicate_data_libsql_update").await;
    let report = verified(&rig, VerifyOptions::default()).await;
    assert_eq!((report.tables["t"].dead, report.tables["t"].missing), (2, 1), "{report:?}");
    // And a row that does not fit, without a letter.
    rig.db.sql("delete from pgmq.q_replicate_data_libsql_dead").await;
    let report = verified(&rig, VerifyOptions { repair: true, ..VerifyOptions::default() }).await;
    assert!(!report.is_equal(), "{report:?}");
    assert_eq!(
        (report.tables["t"].different, report.tables["t"].missing, report.tables["t"].repaired),
        (2, 1, 1),
        "{report:?}"
    );
    assert_eq!(rig.rows("SELECT count(*) FROM t WHERE id IN (7, 9)").await, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_comparisons_and_drains_at_once_all_come_to_an_end() {
    let rig = Rig::new(Path::File, schema(r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#)).await;
    rig.db.sql("create table t (id int primary key); insert into t select i from generate_series(1, 60000) i").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let worker = rig.second_worker();
        let options = VerifyOptions { tables: vec!["t".into()], ..VerifyOptions::default() };
        tasks.spawn(async move { verify(&worker, options, Arc::default()).await.unwrap().is_equal() });
    }
    pgflume::operate::resync::request(&rig.worker, &["t"]).await.unwrap();
    while !tasks.is_empty() {
        rig.db.sql("insert into t select max(id) + 1 from t").await;
        rig.drain().await;
        if let Some(done) = tasks.try_join_next() {
            assert!(done.unwrap());
        }
    }
    rebuilt(&rig).await;
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_server_cannot_hold_stops_neither_comparison_nor_repair() {
    let rig = Rig::new(Path::Sqld, schema(r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#)).await;
    rig.db.sql("create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 100) i; update t set v = repeat('long ', 1200000) where id = 7").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    write_by_hand(&rig, "UPDATE t SET v = 'damaged' WHERE id IN (6, 8)").await;
    let report = verified(&rig, VerifyOptions { repair: true, ..VerifyOptions::default() }).await;
    let table = &report.tables["t"];
    assert_eq!((table.rows, table.dead, table.different, table.repaired), (100, 1, 2, 2), "{report:?}");
    assert!(report.is_equal());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_many_columns_is_compared() {
    let columns: Vec<String> = (0..1500).map(|i| format!("\"c{i}\":\"INTEGER\"")).collect();
    let definition = format!(r#"{{"t":{{"primaryKey":"id","columns":{{"id":"INTEGER",{}}}}}}}"#, columns.join(","));
    for path in PATHS {
        let rig = Rig::new(path, schema(&definition)).await;
        let columns: Vec<String> = (0..1500).map(|i| format!("c{i} int")).collect();
        rig.db.sql(&format!("create table t (id int primary key, {}); insert into t (id, c7) select i, i from generate_series(1, 50) i", columns.join(", "))).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        rebuilt(&rig).await;
        write_by_hand(&rig, "UPDATE t SET c1499 = 1 WHERE id = 7").await;
        let report = verified(&rig, VerifyOptions::default()).await;
        assert_eq!(report.tables["t"].examples[0].columns, ["c1499"], "{path:?} {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_come_to_an_end_beside_writers_that_never_do() {
    let definition = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#;
    let rig = Rig::new(Path::Sqld, schema(definition)).await;
    rig.db.sql("create table t (id int primary key); insert into t select i from generate_series(1, 20000) i").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let (url, stop) = (rig.db.url(), stop.clone());
        writers.spawn(async move {
            let client = PgUrl::parse(&url).unwrap().connect().await.unwrap();
            for n in 0.. {
                client.batch_execute(&format!("insert into t values (100000 + {n} * 8 + {writer})")).await.unwrap();
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
    }
    assert!(verified(&rig, VerifyOptions::default()).await.is_equal());
    let worker = rig.second_worker().ending_caught_up();
    let drained = worker.drain(std::time::Duration::from_secs(3600)).await.unwrap();
    assert!(drained.processed > 0, "{drained:?}");
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
}
