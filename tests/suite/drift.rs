//! Schema change from the user's side: what has drifted is named with its command, `setup` applies an edit
//! of `schema.json` to both sides, and tables that follow their source do so by themselves.

use crate::support::{Db, Home, PATHS, Path, Rig, SECRET, Server, config, schema};
use pgflume::core::error::Error;
use pgflume::core::queue_name::{DEFAULT_QUEUE, QueueName};
use pgflume::operate::alter::{self, AlterReport, Sides};
use pgflume::operate::status;
use pgflume::postgres::PgUrl;
use pgflume::postgres::capture::{self, SetupOptions};
use pgflume::postgres::drift::{Drift, DriftKind};
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const BUDGET: Duration = Duration::from_secs(25);

const TABLE: &str = "create table items (id int primary key, name text, size int, note text);
    insert into items values (1, 'a', 10, 'n1'), (2, 'b', 20, 'n2')";
const ITEMS: &str = r#"{"items": {"primaryKey": "id", "columns": {"id": "INTEGER", "name": "TEXT"}}}"#;
const SIZED: &str = r#"{"items": {"primaryKey": "id", "columns": {"id": "INTEGER", "name": "TEXT", "size": "INTEGER"}, "indexes": ["size"]}}"#;

fn sides(rig: &Rig, json: &str, allow_drop: bool) -> Sides {
    Sides {
        postgres: PgUrl::parse(&rig.db.url()).unwrap(),
        target: Some(rig.home.target()),
        schema: schema(json),
        queue: QueueName::parse(DEFAULT_QUEUE).unwrap(),
        wanted: SetupOptions { allow_drop, ..SetupOptions::default() },
    }
}

async fn setup_with(sides: &Sides) -> Result<AlterReport, Error> {
    let plan = alter::plan(sides).await?;
    alter::apply(sides, plan).await
}

async fn setup(rig: &Rig, json: &str) -> Result<AlterReport, Error> {
    setup_with(&sides(rig, json, false)).await
}

/// Set up, and the rows in the replica.
async fn rig(path: Path, tables: &str, json: &str) -> Rig {
    let db = Db::new().await;
    db.sql(tables).await;
    let rig = Rig::with(db, Home::new(path), schema(json));
    setup(&rig, json).await.unwrap();
    rig.drain().await;
    rig
}

/// The same sides with a worker that has another `schema.json`.
fn restarted(rig: Rig, json: &str) -> Rig {
    Rig::with(rig.db, rig.home, schema(json))
}

async fn drift(rig: &Rig) -> Vec<Drift> {
    status::status(&rig.worker).await.unwrap().drift
}

/// The only drift.
async fn one(rig: &Rig) -> Drift {
    let mut all = drift(rig).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.swap_remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_has_drifted_after_a_set_up_and_without_one() {
    let db = Db::new().await;
    db.send(r#"{"type":"INSERT","table":"items","record":{"id":1}}"#).await;
    let bare = Rig::with(db, Home::new(Path::File), schema(ITEMS));
    assert_eq!(drift(&bare).await, []);
    bare.drain().await;
    assert_eq!(drift(&bare).await, []);
    for path in PATHS {
        let rig = rig(path, TABLE, ITEMS).await;
        assert_eq!(drift(&rig).await, []);
        assert_eq!(rig.rows("SELECT * FROM items ORDER BY 1").await, ["1|a", "2|b"]);
        assert!(status::unready(&rig.worker).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_the_source_is_named_with_its_remedy() {
    let rig = rig(Path::File, TABLE, SIZED).await;
    for (ddl, kind, column, problem, remedy, undo) in [
        (
            "alter table items add extra timestamptz",
            DriftKind::ColumnAdded,
            Some("extra"),
            "not replicated",
            r#"add "extra": "TEXT""#,
            "alter table items drop extra",
        ),
        (
            "alter table items rename name to title",
            DriftKind::ColumnMissing,
            Some("name"),
            "\"title\" now",
            "--allow-drop",
            "alter table items rename title to name",
        ),
        (
            "alter table items alter size type bigint",
            DriftKind::ColumnRetyped,
            Some("size"),
            "is bigint in Postgres now, and was integer",
            "pgflume setup",
            "alter table items alter size type int",
        ),
        (
            "alter table items drop constraint items_pkey",
            DriftKind::KeyChanged,
            None,
            "no key",
            "add primary key",
            "alter table items add primary key (id)",
        ),
        (
            "alter table items rename to things",
            DriftKind::TableRenamed,
            None,
            "public.things",
            "\"source\"",
            "alter table things rename to items",
        ),
        (
            "alter table items disable trigger pgflume_replicate_data_libsql_update",
            DriftKind::CaptureMissing,
            None,
            "the update trigger is disabled",
            "pgflume setup",
            "alter table items enable always trigger pgflume_replicate_data_libsql_update",
        ),
        (
            "alter table items enable trigger all",
            DriftKind::CaptureMissing,
            None,
            "does not fire for every session",
            "pgflume setup",
            "select 1",
        ),
        ("drop table items", DriftKind::TableMissing, None, "is gone", "--allow-drop", "select 1"),
    ] {
        rig.db.sql(ddl).await;
        let found = one(&rig).await;
        assert_eq!((found.kind, found.column.as_deref()), (kind, column), "{ddl}");
        assert!(found.problem.contains(problem) && found.remedy.contains(remedy), "{ddl}: {found:?}");
        let reasons = status::unready(&rig.worker).await;
        assert_eq!(reasons.contains_key("schema"), kind.is_fault(), "{ddl}: {reasons:?}");
        rig.db.sql(undo).await;
        if ddl.contains("enable trigger all") {
            setup(&rig, SIZED).await.unwrap();
        }
        if !ddl.starts_with("drop") {
            assert_eq!(drift(&rig).await, [], "{undo}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_leaves_its_table_waiting_and_says_so_over_http() {
    let rig = rig(Path::File, TABLE, SIZED).await;
    rig.db.sql("alter table items drop size; insert into items values (3, 'c')").await;
    let server = Server::start(config(&rig.db.url(), rig.home.target(), schema(SIZED))).await;
    let answer = server.sync().await;
    assert!(answer.body.contains(r#""paused":["items"]"#), "{}", answer.body);
    let status = server.call("GET", "/status", Some(SECRET)).await;
    assert!(status.body.contains("column_missing") && status.body.contains("--allow-drop"), "{}", status.body);
    let ready = server.call("GET", "/ready", None).await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("schema") && ready.body.contains("size"), "{}", ready.body);
    let without = restarted(rig, ITEMS);
    setup_with(&sides(&without, ITEMS, true)).await.unwrap();
    without.drain().await;
    assert_eq!(without.rows("SELECT * FROM items ORDER BY 1").await, ["1|a", "2|b", "3|c"]);
    assert_eq!(drift(&without).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_go_on_after_a_replicated_column_was_dropped_or_renamed() {
    for ddl in ["alter table items drop name", "alter table items rename name to title"] {
        let rig = rig(Path::File, TABLE, ITEMS).await;
        rig.db.sql(ddl).await;
        rig.db.sql("update items set size = 11 where id = 1; delete from items where id = 2; insert into items (id) values (3)").await;
        let marked =
            "select k->>0 from pgmq.q_replicate_data_libsql q, jsonb_array_elements(q.message->'keys') k order by 1";
        assert_eq!(rig.db.all(marked).await, ["1", "2", "3"], "{ddl}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_column_arrives_with_the_values_of_old_rows() {
    for path in PATHS {
        let rig = rig(path, TABLE, ITEMS).await;
        let edited = restarted(rig, SIZED);
        assert_eq!(
            drift(&edited).await.iter().filter(|d| d.kind == DriftKind::SchemaChanged).count(),
            2,
            "column and index"
        );
        let plan = alter::plan(&sides(&edited, SIZED, false)).await.unwrap().to_string();
        for part in ["items.size: the column is new", "capture of", r#"ADD COLUMN "size" INTEGER"#, "CREATE INDEX"] {
            assert!(plan.contains(part), "{part}: {plan}");
        }
        assert_eq!(
            edited.rows("SELECT count(*) FROM pragma_table_info('items')").await,
            ["2"],
            "a plan changes nothing"
        );
        setup(&edited, SIZED).await.unwrap();
        edited.db.sql("update items set size = 21 where id = 2; insert into items values (3, 'c', 30)").await;
        edited.drain().await;
        assert_eq!(edited.rows("SELECT * FROM items ORDER BY 1").await, ["1|a|10", "2|b|21", "3|c|30"], "{path:?}");
        assert_eq!(
            edited.rows("SELECT name FROM sqlite_master WHERE name = 'idx_items_size'").await,
            ["idx_items_size"]
        );
        assert_eq!(drift(&edited).await, []);
        let again = setup(&edited, SIZED).await.unwrap();
        assert!(again.changes.is_empty());
        assert_eq!(edited.drain().await.rows, 0, "nothing is copied twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_replica_at_hand_the_worker_adds_the_column_itself() {
    let rig = rig(Path::File, TABLE, ITEMS).await;
    let report = setup_with(&Sides { target: None, ..sides(&rig, SIZED, false) }).await.unwrap();
    assert!(report.to_string().contains("LIBSQL_URL is not set"), "{report}");
    let edited = restarted(rig, SIZED);
    assert_eq!(drift(&edited).await.iter().map(|d| d.kind).collect::<Vec<_>>(), [DriftKind::ReplicaLacks]);
    edited.drain().await;
    assert_eq!(edited.rows("SELECT * FROM items ORDER BY 1").await, ["1|a|10", "2|b|20"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_the_old_file_goes_on_and_leaves_nothing_stale() {
    for path in PATHS {
        let old = rig(path, TABLE, ITEMS).await;
        setup(&old, SIZED).await.unwrap();
        let new = Worker::new(config(&old.db.url(), old.home.target(), schema(SIZED)));
        let drain = || async { new.drain(BUDGET).await.unwrap() };
        old.db.sql("insert into items values (3, 'c', 30)").await;
        assert_eq!(old.drain().await.queued, 0);
        drain().await;
        assert_eq!(old.rows("SELECT * FROM items ORDER BY 1").await, ["1|a|10", "2|b|20", "3|c|30"]);
        old.db.sql("update items set size = 31 where id = 3").await;
        assert_eq!(old.drain().await.queued, 0, "the old worker takes the mark of a column that it does not know");
        drain().await;
        assert_eq!(old.rows("SELECT size FROM items ORDER BY 1").await, ["10", "20", "31"], "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_workers_beside_each_other_under_writes_end_with_equal_sides() {
    for path in PATHS {
        let old = rig(path, TABLE, ITEMS).await;
        old.db.sql("insert into items select n, 'x', n from generate_series(3, 3000) n").await;
        let new = Arc::new(Worker::new(config(&old.db.url(), old.home.target(), schema(SIZED))));
        let url = PgUrl::parse(&old.db.url()).unwrap();
        let writer = tokio::spawn(async move {
            let client = url.connect().await.unwrap();
            for i in 0..300 {
                let sql = format!(
                    "update items set size = size + {i} where id % 300 = {i}; delete from items where id = {}",
                    1000 + i
                );
                client.batch_execute(&sql).await.unwrap();
            }
        });
        setup(&old, SIZED).await.unwrap();
        while !writer.is_finished() {
            let (by_old, by_new) = tokio::join!(old.worker.drain(BUDGET), new.drain(BUDGET));
            by_old.unwrap();
            by_new.unwrap();
        }
        writer.await.unwrap();
        old.drain().await;
        assert_eq!(new.drain(BUDGET).await.unwrap().rebuilding, 0);
        let source = "select concat_ws('|', id, name, size) from items order by id";
        assert_eq!(
            old.rows("SELECT id, name, size FROM items ORDER BY id").await,
            old.db.all(source).await,
            "{path:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_is_refused_without_allow_drop_and_done_with_it() {
    for path in PATHS {
        let tables = format!("{TABLE}; create table more (id int primary key); insert into more values (1)");
        let both =
            SIZED.replace(r#"{"items""#, r#"{"more": {"primaryKey": "id", "columns": {"id": "INTEGER"}}, "items""#);
        let rig = restarted(rig(path, &tables, &both).await, ITEMS);
        let found = drift(&rig).await;
        assert!(found.iter().any(|d| d.table == "more" && d.remedy.contains("--allow-drop")), "{found:?}");
        let refused = setup(&rig, ITEMS).await.unwrap_err().to_string();
        for part in ["nothing was changed", "items.size", "more:", "--allow-drop"] {
            assert!(refused.contains(part), "{refused}");
        }
        let unnamed = Sides { target: None, ..sides(&rig, ITEMS, true) };
        assert!(setup_with(&unnamed).await.unwrap_err().to_string().contains("set LIBSQL_URL"));
        assert_eq!(rig.rows("SELECT size FROM items ORDER BY 1").await, ["10", "20"]);
        assert_eq!(rig.rows("SELECT id FROM more").await, ["1"]);
        setup_with(&sides(&rig, ITEMS, true)).await.unwrap();
        assert_eq!(rig.rows("SELECT * FROM items ORDER BY 1").await, ["1|a", "2|b"]);
        let left = "SELECT name FROM sqlite_master WHERE name IN ('more', 'idx_items_size')";
        assert!(rig.rows(left).await.is_empty());
        let triggers = "select count(*) from pg_trigger where tgrelid = 'more'::regclass and tgname like 'pgflume%'";
        assert_eq!(rig.db.one(triggers).await, "0");
        rig.drain().await;
        assert_eq!(drift(&rig).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_type_rebuilds_the_table_or_copies_it_again() {
    let numbers =
        r#"{"items": {"primaryKey": "id", "columns": {"id": "INTEGER", "size": "INTEGER"}, "indexes": ["size"]}}"#;
    for path in PATHS {
        let mut rig = rig(path, TABLE, numbers).await;
        let view = rig.home.target();
        by_hand(&view, "CREATE VIEW seen AS SELECT id, size FROM items").await;
        by_hand(&view, "CREATE INDEX mine ON items (id, size)").await;
        for (kind, expected) in
            [("TEXT", "text|10"), ("DECIMAL", "text|10"), ("REAL", "real|10.0"), ("INTEGER", "integer|10")]
        {
            let json = numbers.replace(r#""size": "INTEGER""#, &format!(r#""size": "{kind}""#));
            rig = restarted(rig, &json);
            setup(&rig, &json).await.unwrap();
            assert_eq!(rig.rows("SELECT count(*) FROM seen").await, ["2"], "readers go on: {kind}");
            rig.drain().await;
            assert_eq!(rig.rows("SELECT typeof(size), size FROM seen WHERE id = 1").await, [expected], "{path:?}");
            assert_eq!(
                rig.rows("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1").await,
                ["idx_items_size", "mine"]
            );
            assert_eq!(drift(&rig).await, []);
        }
    }
}

async fn by_hand(target: &Target, sql: &str) {
    let replica = pgflume::replica::Replica::open(target).await.unwrap();
    let head = replica.head().await.unwrap().unwrap();
    replica.alter(&head, vec![sql.into()]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_or_column_that_somebody_dropped_in_the_replica_comes_back_with_its_rows() {
    let rig = rig(Path::File, TABLE, SIZED).await;
    by_hand(&rig.home.target(), "DROP TABLE items").await;
    assert_eq!(one(&rig).await.kind, DriftKind::ReplicaLacks);
    rig.drain().await;
    assert_eq!(rig.rows("SELECT * FROM items ORDER BY 1").await, ["1|a|10", "2|b|20"]);
    by_hand(&rig.home.target(), "ALTER TABLE items DROP COLUMN name").await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT id, name FROM items ORDER BY 1").await, ["1|a", "2|b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_rebuilds_the_table() {
    for path in PATHS {
        let tables = "create table t (id int primary key, code text not null unique, v text);
            insert into t values (1, 'x', 'one'), (2, 'y', 'two')";
        let json = |key: &str| {
            format!(r#"{{"t": {{"primaryKey": {key}, "columns": {{"id": "INTEGER", "code": "TEXT", "v": "TEXT"}}}}}}"#)
        };
        let rig = rig(path, tables, &json("\"id\"")).await;
        rig.db.sql("alter table t drop constraint t_pkey; alter table t alter id drop not null").await;
        assert!(one(&rig).await.remedy.contains("set primaryKey in schema.json to \"code\""));
        let edited = restarted(rig, &json("\"code\""));
        setup(&edited, &json("\"code\"")).await.unwrap();
        assert_eq!(edited.rows("SELECT v FROM t ORDER BY 1").await, ["one", "two"], "never empty");
        edited.db.sql("update t set code = 'z' where id = 2; insert into t values (null, 'q', 'three')").await;
        edited.drain().await;
        assert_eq!(
            edited.rows("SELECT * FROM t ORDER BY code").await,
            ["NULL|q|three", "1|x|one", "2|z|two"],
            "{path:?}"
        );
        assert_eq!(drift(&edited).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_filter_copies_and_sweeps() {
    let filtered = |condition: &str| {
        format!(r#"{{"items": {{"primaryKey": "id", "columns": {{"id": "INTEGER"}}, "where": "{condition}"}}}}"#)
    };
    let rig = rig(Path::File, TABLE, &filtered("size < 15")).await;
    assert_eq!(rig.rows("SELECT id FROM items").await, ["1"]);
    let edited = restarted(rig, &filtered("size > 15"));
    assert!(one(&edited).await.problem.contains("`where` has changed"));
    setup(&edited, &filtered("size > 15")).await.unwrap();
    edited.drain().await;
    assert_eq!(edited.rows("SELECT id FROM items").await, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_retyped_in_postgres_is_copied_again() {
    let rig = rig(Path::File, TABLE, &SIZED.replace("INTEGER\"}", "TEXT\"}")).await;
    rig.db.sql("alter table items alter size type text using 'about ' || size").await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT size FROM items ORDER BY id").await, ["about 10", "about 20"]);
    assert_eq!(one(&rig).await.kind, DriftKind::ColumnRetyped);
}

/// Nothing marks the rows: their old values would stay for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_dropped_and_made_anew_is_copied_again() {
    for is_seen_between in [false, true] {
        let rig = rig(Path::File, TABLE, SIZED).await;
        rig.db.sql("alter table items drop column size").await;
        if is_seen_between {
            rig.drain().await;
        }
        rig.db.sql("alter table items add column size int").await;
        rig.drain().await;
        assert_eq!(rig.rows("SELECT size FROM items ORDER BY id").await, ["NULL", "NULL"], "{is_seen_between}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_up_that_was_cut_short_is_finished_by_the_next() {
    for path in PATHS {
        let rig = restarted(rig(path, TABLE, ITEMS).await, SIZED);
        // Not yet where the capture is made, which has that setting.
        let die = "create function pgflume.die() returns trigger language plpgsql as $$begin
                if coalesce(current_setting('pgflume.seen', true), '') = '' then
                    raise exception 'cut short' using errcode = '57P01';
                end if;
                return null; end$$;
            create trigger die before insert or update on pgflume.shapes for each statement execute function pgflume.die()";
        rig.db.sql(die).await;
        assert!(setup(&rig, SIZED).await.is_err(), "Postgres does not know what will have to be copied");
        assert_eq!(rig.rows("SELECT count(*) FROM pragma_table_info('items')").await, ["2"], "so nothing is changed");
        rig.db.sql("drop function pgflume.die cascade").await;
        setup(&rig, SIZED).await.unwrap();
        rig.drain().await;
        assert_eq!(rig.rows("SELECT size FROM items ORDER BY 1").await, ["10", "20"], "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_evolves_takes_new_columns_by_itself_under_concurrent_writes() {
    let evolving = ITEMS.replace(r#""primaryKey""#, r#""evolve": true, "primaryKey""#);
    for path in PATHS {
        let rig = rig(path, TABLE, &evolving).await;
        assert_eq!(rig.rows("SELECT * FROM items ORDER BY 1").await, ["1|a", "2|b"], "what was left out stays out");
        rig.db.sql("insert into items select n, 'x', n from generate_series(3, 5000) n").await;
        rig.drain().await;
        let url = PgUrl::parse(&rig.db.url()).unwrap();
        let writer = tokio::spawn(async move {
            let client = url.connect().await.unwrap();
            client.batch_execute("alter table items add \"Colour\" numeric(6,2) default 1.5").await.unwrap();
            for i in 0..200 {
                let sql = format!(
                    "update items set \"Colour\" = {i} where id % 200 = {i}; insert into items values ({}, 'y', 1, 'n', 2)",
                    6000 + i
                );
                client.batch_execute(&sql).await.unwrap();
            }
            client.batch_execute("update items set \"Colour\" = 9 where id = 1").await.unwrap();
        });
        while !writer.is_finished() {
            rig.drain().await;
        }
        writer.await.unwrap();
        rig.drain().await;
        let sql = "SELECT id, name, Colour FROM items ORDER BY id";
        let source = "select concat_ws('|', id, name, \"Colour\") from items order by id";
        assert_eq!(rig.rows(sql).await, rig.db.all(source).await, "{path:?}");
        assert_eq!(rig.rows("SELECT count(*) FROM pragma_table_info('items')").await, ["3"]);
        assert_eq!(drift(&rig).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_trigger_tells_of_an_altered_table_and_never_fails_its_ddl() {
    let evolving = ITEMS.replace(r#""primaryKey""#, r#""evolve": true, "primaryKey""#);
    let rig = rig(Path::File, TABLE, &evolving).await;
    rig.db.sql("create table other (id int); alter table other add x int").await;
    assert_eq!(rig.db.queued().await, 0);
    let owner = format!("{}_owner", rig.db.name);
    rig.db
        .sql(&format!(
            "create role {owner}; grant create, usage on schema public to {owner}; alter table items owner to {owner}"
        ))
        .await;
    rig.drain().await;
    rig.db.sql(&format!("set role {owner}; alter table items add extra int default 7; reset role")).await;
    assert_eq!(rig.db.queued().await, 1, "whoever follows the queue sees it");
    assert_eq!(rig.drain().await.queued, 0);
    assert_eq!(rig.rows("SELECT extra FROM items ORDER BY 1").await, ["7", "7"]);
    rig.db.sql("alter table pgmq.q_replicate_data_libsql rename to q_gone; alter table items add another int").await;
    rig.db.sql("alter table pgmq.q_gone rename to q_replicate_data_libsql").await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT another FROM items ORDER BY 1").await, ["NULL", "NULL"]);
    let both = sides(&rig, &evolving, false);
    capture::teardown(&both.postgres, &both.queue, capture::TeardownOptions::default()).await.unwrap();
    rig.db.sql("alter table items add last int").await;
    assert_eq!(rig.db.one("select count(*) from pg_event_trigger").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_an_evolving_table_loses_stops_nothing() {
    let evolving = ITEMS.replace(r#""primaryKey""#, r#""evolve": true, "primaryKey""#);
    let rig = rig(Path::File, TABLE, &evolving).await;
    rig.db.sql("alter table items add extra int default 7").await;
    rig.drain().await;
    assert_eq!(rig.rows("SELECT extra FROM items WHERE id = 1").await, ["7"]);
    rig.db.sql("alter table items drop extra; update items set name = 'c' where id = 1").await;
    assert_eq!(rig.drain().await.queued, 0);
    assert_eq!(rig.rows("SELECT name FROM items WHERE id = 1").await, ["c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_table_is_followed_by_its_new_source() {
    let rig = rig(Path::File, TABLE, ITEMS).await;
    rig.db.sql("alter table items rename to things; insert into things values (3, 'c')").await;
    let json = ITEMS.replace(r#""primaryKey""#, r#""source": "public.things", "primaryKey""#);
    let edited = restarted(rig, &json);
    setup(&edited, &json).await.unwrap();
    edited.db.sql("update things set name = 'd' where id = 1").await;
    edited.drain().await;
    assert_eq!(edited.rows("SELECT * FROM items ORDER BY 1").await, ["1|d", "2|b", "3|c"]);
    assert_eq!(drift(&edited).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_plans_refuses_and_applies() {
    let rig = rig(Path::File, TABLE, SIZED).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("schema.json");
    std::fs::write(&file, ITEMS).unwrap();
    let Target::File(replica) = rig.home.target() else { unreachable!() };
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.env_clear().env("PGMQ_URL", rig.db.url()).env("LIBSQL_URL", &replica).env("SCHEMA_FILE", &file);
        let output = command.arg("setup").args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, plan, _) = run(&["--plan"]);
    assert_eq!(code, Some(0));
    assert!(plan.contains(r#"DROP COLUMN "size""#) && plan.contains("Setup would refuse this"), "{plan}");
    let (code, _, error) = run(&[]);
    assert!(code == Some(1) && error.contains("--allow-drop"), "{error}");
    let (code, report, _) = run(&["--allow-drop"]);
    assert!(code == Some(0) && report.contains("drop the column"), "{report}");
    assert_eq!(rig.rows("SELECT * FROM items ORDER BY 1").await, ["1|a", "2|b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_captures_and_records_as_well() {
    let rig = rig(Path::File, TABLE, ITEMS).await;
    let sides = sides(&rig, SIZED, false);
    let script = capture::print(&sides.postgres, &sides.schema, &sides.queue, &sides.wanted).await.unwrap();
    rig.db.sql(&script).await;
    let edited = restarted(rig, SIZED);
    assert_eq!(drift(&edited).await.iter().map(|d| d.kind).collect::<Vec<_>>(), [DriftKind::ReplicaLacks]);
    edited.drain().await;
    assert_eq!(edited.rows("SELECT size FROM items ORDER BY 1").await, ["10", "20"]);
}
