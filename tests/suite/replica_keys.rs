//! Tables of the replica that declare another key than `schema.json`'s: written by a unique index over it, on both
//! write paths, whatever the table is like.

use crate::support::{Db, Home, PATHS, Path, Rig, schema};
use pgflume::replica::Replica;

const TABLE: &str = "create table t (id int, code text primary key, v text);
    insert into t values (1, 'a', 'one'), (2, 'A', 'two'), (null, 'b', 'three')";
const SCHEMA: &str = r#"{"t": {"primaryKey": "code", "columns": {"id": "INTEGER", "code": "TEXT", "v": "TEXT"}}}"#;

/// A database with `tables`, and a replica that somebody else has made by `made`.
async fn rig(path: Path, tables: &str, made: &str, json: &str) -> Rig {
    let db = Db::new().await;
    db.sql(tables).await;
    let home = Home::new(path);
    let rig = Rig::adopting(db, home, schema(json));
    for statement in made.split(';').filter(|s| !s.trim().is_empty()) {
        rig.replica(statement).await;
    }
    let setup = pgflume::postgres::capture::SetupOptions::default();
    let postgres = pgflume::postgres::PgUrl::parse(&rig.db.url()).unwrap();
    let queue = pgflume::core::queue_name::QueueName::parse(pgflume::core::queue_name::DEFAULT_QUEUE).unwrap();
    pgflume::postgres::capture::setup(&postgres, rig.worker.schema(), &queue, &setup).await.unwrap();
    rig
}

async fn is_equal(rig: &Rig, what: &str) {
    crate::limits::drained(rig).await;
    assert_eq!(rig.db.dead().await, [""; 0], "{what}");
    let there = rig
        .db
        .all("select concat_ws('|', coalesce(id::text, 'NULL'), code, v) from t order by code collate \"C\", v")
        .await;
    assert_eq!(rig.rows("SELECT id, code, v FROM t ORDER BY code COLLATE BINARY, v").await, there, "{what}");
}

/// Each way in which somebody else may have made the table; the rows come and go, keys that differ in case included.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_written_by_the_key_whatever_the_replicas_table_declares() {
    let tables = [
        "CREATE TABLE t (id INT PRIMARY KEY, code TEXT, v TEXT)",
        "CREATE TABLE t (id INT, code TEXT, v TEXT)",
        "CREATE TABLE t (id INT, code TEXT COLLATE NOCASE, v TEXT)",
        "CREATE TABLE t (id INT, code, v)",
        "CREATE TABLE t (id INT, code VARCHAR(20), v TEXT, rowid TEXT, _ROWID_ TEXT)",
        "CREATE TABLE t (id INT, code TEXT, v TEXT); CREATE UNIQUE INDEX mine ON t (code) WHERE id < 0",
        "CREATE TABLE t (id INT, code TEXT, v TEXT); CREATE UNIQUE INDEX mine ON t (code || v)",
        "CREATE TABLE t (id INT, code TEXT, v TEXT); CREATE INDEX _pgflume_key_t ON t (v)",
        "CREATE TABLE other (x INT); CREATE TABLE t (id INT, code TEXT, v TEXT); CREATE UNIQUE INDEX _pgflume_key_T ON other (x)",
        "CREATE TABLE t (id INT, code TEXT, v TEXT, internal TEXT DEFAULT 'i', PRIMARY KEY (id, internal))",
    ];
    for path in PATHS {
        for made in tables {
            let old = "INSERT INTO t (id, code, v) VALUES (7, 'b', 'old'), (8, 'b', 'older'), (9, 'gone', 'x'), (10, NULL, 'nobody''s')";
            let rig = rig(path, TABLE, &format!("{made};{old}"), SCHEMA).await;
            let what = format!("{path:?}: {made}");
            is_equal(&rig, &what).await;
            rig.db.sql("update t set v = v || '!' where code = 'A'; delete from t where code = 'a'; insert into t values (5, 'a b', 'x'), (6, 'B', 'y')").await;
            is_equal(&rig, &what).await;
            rig.db.sql("delete from t where code = 'B'; update t set code = 'c' where code = 'b'").await;
            is_equal(&rig, &what).await;
            assert_eq!(
                rig.rows("SELECT code, v FROM t ORDER BY code COLLATE BINARY").await,
                ["A|two!", "a b|x", "c|three"],
                "{what}"
            );
        }
    }
}

/// It tells its rows apart exactly already: nothing is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_unique_index_of_somebody_else_is_as_good_as_ours() {
    for made in [
        "CREATE TABLE t (id INT, code TEXT UNIQUE, v TEXT)",
        "CREATE TABLE t (id INT, code TEXT, v TEXT); CREATE UNIQUE INDEX mine ON t (code)",
        "CREATE TABLE t (id INT, code TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID",
        "CREATE TABLE t (id INT, CODE TEXT PRIMARY KEY, v TEXT)",
    ] {
        let rig = rig(Path::File, TABLE, made, SCHEMA).await;
        is_equal(&rig, made).await;
        assert_eq!(rig.rows("SELECT name FROM sqlite_master WHERE name LIKE '_pgflume_key%'").await, [""; 0], "{made}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_rows_with_the_same_key_the_youngest_stays_until_the_copy() {
    let json = SCHEMA;
    for path in PATHS {
        // Nothing can be read in Postgres: what stays is what was there.
        let without_rowid = "CREATE TABLE t (id INT PRIMARY KEY, code TEXT, v TEXT) WITHOUT ROWID;
            INSERT INTO t VALUES (3, 'a', 'highest'), (1, 'a', 'lowest')";
        let with = "CREATE TABLE t (id INT PRIMARY KEY, code TEXT, v TEXT);
            INSERT INTO t VALUES (3, 'a', 'first'), (1, 'a', 'last'), (4, 'A', 'another')";
        for (made, expected) in [(without_rowid, vec!["highest"]), (with, vec!["another", "last"])] {
            let rig = Rig::adopting(Db::new().await, Home::new(path), schema(json));
            for statement in made.split(';') {
                rig.replica(statement).await;
            }
            rig.drain().await;
            assert_eq!(rig.rows("SELECT v FROM t ORDER BY 1").await, expected, "{path:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_collides_on_the_old_key_is_a_dead_letter_and_the_others_arrive() {
    for path in PATHS {
        let tables = "create table t (id int, code text primary key, v text);
            insert into t values (1, 'a', 'one'), (1, 'b', 'two'), (3, 'c', 'three')";
        let rig = rig(path, tables, "CREATE TABLE t (id INT PRIMARY KEY, code TEXT, v TEXT)", SCHEMA).await;
        crate::limits::drained(&rig).await;
        assert_eq!(rig.rows("SELECT code FROM t ORDER BY 1").await, ["a", "c"], "{path:?}");
        assert_eq!(rig.db.dead().await.len(), 1, "{path:?}");
    }
}

/// SQLite would number the row by itself, and the replica would say what Postgres does not.
#[tokio::test(flavor = "multi_thread")]
async fn no_number_is_made_up_for_a_null() {
    for path in PATHS {
        let rig = rig(path, TABLE, "CREATE TABLE t (id INTEGER PRIMARY KEY, code TEXT, v TEXT)", SCHEMA).await;
        crate::limits::drained(&rig).await;
        assert_eq!(rig.rows("SELECT id, code FROM t ORDER BY 1").await, ["1|a", "2|A"], "{path:?}");
        let dead = rig.db.dead().await;
        assert!(dead.len() == 1 && dead[0].contains("cannot be NULL"), "{path:?}: {dead:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_several_columns_is_held_by_an_index_or_the_table_is_refused() {
    let tables = "create table t (id int, code text, part int, v text, primary key (code, part));
        insert into t values (1, 'a', 1, 'one'), (2, 'A', 1, 'two'), (3, 'a', 2, 'three')";
    let json = r#"{"t": {"primaryKey": ["code", "part"], "columns": {"id": "INTEGER", "code": "TEXT", "part": "INTEGER", "v": "TEXT"}}}"#;
    for path in PATHS {
        let made = "CREATE TABLE t (id INT PRIMARY KEY, part INT, code TEXT, v TEXT);
            INSERT INTO t (id, code, part, v) VALUES (10, 'a', 1, 'old'), (11, 'a', NULL, 'x'), (12, NULL, 1, 'y'), (13, 'a', 1, 'older')";
        let rig = rig(path, tables, made, json).await;
        is_equal(&rig, "composite").await;
        rig.db.sql("delete from t where code = 'A'; update t set part = 9 where part = 2").await;
        is_equal(&rig, "composite").await;
    }
    let rig = rig(
        Path::File,
        tables,
        "CREATE TABLE t (id INT PRIMARY KEY, code TEXT COLLATE NOCASE, part INT, v TEXT)",
        json,
    )
    .await;
    let error = rig.worker.drain(std::time::Duration::from_secs(25)).await.unwrap_err().to_string();
    assert!(error.contains("another primary key") && error.contains("pgflume setup"), "{error}");
}

/// Where inserts would fail for a column that nobody fills, or the index's name is a table's, only a rebuild will do.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_have_the_key_beside_its_own_is_refused_with_the_remedy() {
    for made in [
        "CREATE TABLE t (own TEXT NOT NULL PRIMARY KEY, id INT, code TEXT, v TEXT)",
        "CREATE TABLE t (own TEXT PRIMARY KEY, id INT, code TEXT, v TEXT) WITHOUT ROWID",
        "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)",
        "CREATE TABLE t (id INT PRIMARY KEY, code TEXT, v TEXT); CREATE TABLE _pgflume_key_t (x INT)",
        "CREATE TABLE t (id INT PRIMARY KEY, code TEXT, v TEXT, rowid INT, _rowid_ INT, oid INT)",
    ] {
        let rig = rig(Path::File, TABLE, made, SCHEMA).await;
        let error = rig.worker.drain(std::time::Duration::from_secs(25)).await.unwrap_err().to_string();
        assert!(error.contains("another primary key") && error.contains("pgflume setup"), "{made}: {error}");
        assert!(rig.db.queued().await == 0 || rig.db.dead().await.is_empty());
    }
}

/// A key that is the declared one, but into which SQLite lets NULL: found, and removed. Both sides sort the one key alike.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_key_are_found_and_removed() {
    let tables = "create table t (code text primary key, v text); insert into t values ('a', 'x'), ('b', 'y');
        create table n (id int primary key, v text); insert into n select i, 'x' from generate_series(1, 50) i";
    let json = r#"{"t": {"primaryKey": "code", "columns": {"code": "TEXT", "v": "TEXT"}}, "n": {"primaryKey": "id", "columns": {"id": "INTEGER", "v": "TEXT"}}}"#;
    let made = "CREATE TABLE t (code TEXT PRIMARY KEY, v TEXT); CREATE TABLE n (id INT PRIMARY KEY, v TEXT)";
    for path in PATHS {
        let rig = rig(path, tables, made, json).await;
        let directory = crate::limits::directory_with(json);
        let run = async |arguments: &[&str]| {
            let done = crate::limits::run(&rig, directory.path(), arguments).await;
            (done.output.status.code(), format!("{}{}", done.printed(), done.log()))
        };
        assert_eq!(run(&["sync"]).await.0, Some(0));
        for repair in [&["verify", "--repair"][..], &["resync"]] {
            rig.replica("INSERT INTO t VALUES (NULL, 'x'), (NULL, 'y')").await;
            rig.replica("INSERT INTO n VALUES (NULL, 'x')").await;
            let (code, said) = run(&["verify"]).await;
            assert_eq!(code, Some(3), "{path:?}: {said}");
            let (_, repaired) = run(repair).await;
            let left = rig.rows("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM n)").await;
            assert_eq!(left, ["2|50"], "{path:?} {repair:?}: {repaired}");
            let (code, said) = run(&["verify"]).await;
            assert_eq!(code, Some(0), "{path:?} {repair:?}: {said}");
        }
    }
}

/// By the index, as before there was a collation in it: a batch is not to read the whole table.
#[tokio::test(flavor = "multi_thread")]
async fn every_statement_finds_rows_by_the_keys_index() {
    for path in PATHS {
        let home = Home::new(path);
        let replica = Replica::open(&home.target()).await.unwrap();
        for sql in [
            "CREATE TABLE t (k TEXT NOT NULL, v TEXT, PRIMARY KEY (k))",
            "CREATE TABLE c (a TEXT, b INT, PRIMARY KEY (a, b))",
            "CREATE TABLE n (k INTEGER PRIMARY KEY, v)",
        ] {
            replica.query(sql, vec![]).await.unwrap();
        }
        for sql in [
            "DELETE FROM t WHERE (k) IS (?1 COLLATE BINARY)",
            "DELETE FROM n WHERE (k) IS (?1)",
            "DELETE FROM c WHERE (a, b) IS (?1 COLLATE BINARY, ?2)",
            "DELETE FROM t WHERE (k COLLATE BINARY) IN (SELECT value FROM json_each(?1))",
            "DELETE FROM c WHERE (a, b) IN (SELECT value, value FROM json_each(?1))",
            "SELECT k FROM t WHERE (k) > (?1 COLLATE BINARY) ORDER BY k COLLATE BINARY LIMIT 5",
            "SELECT a FROM c WHERE (a, b) > (?1 COLLATE BINARY, ?2) ORDER BY a COLLATE BINARY, b LIMIT 5",
            "SELECT count(*) FROM t WHERE (k) <= (?1 COLLATE BINARY)",
            "SELECT t.v FROM (SELECT value AS v FROM json_each(?1)) p LEFT JOIN t ON t.k = p.v COLLATE BINARY",
        ] {
            let rows = replica
                .query(
                    format!("EXPLAIN QUERY PLAN {sql}"),
                    vec![pgflume::core::value::Cell::Null; 2][..sql.matches('?').count().min(2)].to_vec(),
                )
                .await
                .unwrap();
            let plan: Vec<_> = rows.iter().map(|row| crate::store::show(&row[3])).collect();
            let of_table =
                plan.iter().find(|l| ["t", "c", "n"].iter().any(|t| l.split(' ').nth(1) == Some(t))).unwrap();
            assert!(
                of_table.starts_with("SEARCH") && !plan.iter().any(|l| l.contains("TEMP B-TREE FOR ORDER")),
                "{path:?} {sql}: {plan:?}"
            );
        }
    }
}

/// `id` is no longer the key, then it is again.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changes_and_changes_back_leaves_no_index_behind() {
    let json = |key: &str| SCHEMA.replace("\"code\", \"columns\"", &format!("\"{key}\", \"columns\""));
    for path in PATHS {
        let tables = "create table t (id int not null unique, code text primary key, v text);
            insert into t values (1, 'a', 'one'), (2, 'b', 'two')";
        let by_id = rig(path, tables, "CREATE TABLE t (id INTEGER PRIMARY KEY, code TEXT, v TEXT)", &json("id")).await;
        is_equal(&by_id, "by id").await;
        let index = "SELECT name FROM sqlite_master WHERE name LIKE '_pgflume_key%'";
        let by_code = Rig::with(by_id.db, by_id.home, schema(&json("code")));
        crate::limits::drained(&by_code).await;
        assert_eq!(by_code.rows(index).await, ["_pgflume_key_t"], "{path:?}");
        let by_id = Rig::with(by_code.db, by_code.home, schema(&json("id")));
        crate::limits::drained(&by_id).await;
        assert_eq!(by_id.rows(index).await, [""; 0], "{path:?}");
    }
}

/// By `pgflume setup`, which alters the replica itself: neither an index that is in the way is left, nor the old key.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_the_key_is_applied_by_setup() {
    let json = |key: &str| SCHEMA.replace("\"code\", \"columns\"", &format!("\"{key}\", \"columns\""));
    let tables = "create table t (id int not null unique, code text primary key, v text);
        insert into t values (1, 'a', 'one'), (2, 'b', 'two')";
    let index = "SELECT name FROM sqlite_master WHERE name LIKE '_pgflume_key%'";
    for path in PATHS {
        let rig = rig(path, tables, "CREATE TABLE t (id INTEGER PRIMARY KEY, code TEXT, v TEXT)", &json("id")).await;
        is_equal(&rig, "by id").await;
        let edit = async |json: &str, arguments: &[&str]| {
            let directory = crate::limits::directory_with(json);
            let said = crate::limits::run(&rig, directory.path(), arguments).await.succeeded();
            crate::limits::run(&rig, directory.path(), &["sync"]).await.succeeded();
            crate::limits::run(&rig, directory.path(), &["verify"]).await.succeeded();
            said.printed()
        };
        let said = edit(&json("code"), &["setup"]).await;
        assert!(said.contains("t: add the unique index over the key (code)"), "{path:?}: {said}");
        assert_eq!(rig.rows(index).await, ["_pgflume_key_t"], "{path:?}");
        let said = edit(&json("id"), &["setup"]).await;
        assert!(said.contains("drop the index \"_pgflume_key_t\""), "{path:?}: {said}");
        assert_eq!(rig.rows(index).await, [""; 0], "{path:?}");
        edit(&json("code"), &["setup"]).await;
        // SQLite drops no column of a declared key.
        let without = SCHEMA.replace("\"id\": \"INTEGER\", ", "");
        let said = edit(&without, &["setup", "--allow-drop"]).await;
        assert!(said.contains("rebuild the table: \"id\" is dropped"), "{path:?}: {said}");
        assert_eq!(
            rig.rows("SELECT name, pk FROM pragma_table_info('t') ORDER BY 1").await,
            ["code|1", "v|0"],
            "{path:?}"
        );
        assert_eq!(rig.rows(index).await, [""; 0], "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nuke_makes_the_table_with_the_key() {
    for path in PATHS {
        let rig = rig(path, TABLE, "CREATE TABLE t (id INT PRIMARY KEY, code TEXT, v TEXT)", SCHEMA).await;
        is_equal(&rig, "before").await;
        let config = crate::support::config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone());
        let server = crate::support::Server::start(config).await;
        let answer = server.call("POST", "/nuke", Some(crate::support::SECRET)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        is_equal(&rig, "after").await;
        assert_eq!(rig.rows("SELECT name FROM pragma_table_info('t') WHERE pk").await, ["code"], "{path:?}");
        assert_eq!(
            rig.rows("SELECT name FROM sqlite_master WHERE name LIKE '_pgflume_key%'").await,
            [""; 0],
            "{path:?}"
        );
    }
}

/// A table of somebody else has the name of one of our indexes, or an index on another table has.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_in_the_replica_is_said() {
    let json = SCHEMA.replace("}}}", "}, \"indexes\": [\"v\"]}}");
    for path in PATHS {
        let rig_of = async |made: &str| rig(path, TABLE, made, &json).await;
        let directory = crate::limits::directory_with(&json);
        let table = rig_of("CREATE TABLE IDX_t_v (x INT)").await;
        let error = table.worker.drain(std::time::Duration::from_secs(25)).await.unwrap_err().to_string();
        assert!(error.contains("idx_t_v") && error.contains("rename"), "{path:?}: {error}");
        let index = rig_of("CREATE TABLE other (x INT); CREATE INDEX idx_t_v ON other (x)").await;
        let log = crate::limits::run(&index, directory.path(), &["sync"]).await.succeeded().log();
        assert!(log.contains("this index is not made") && log.contains("idx_t_v"), "{path:?}: {log}");
        is_equal(&index, "without the index").await;
    }
}

const BESIDE: &str = "create table t (id int not null, code text primary key, v text);
    insert into t values (1, 'a', 'one'), (2, 'b', 'two'), (3, 'c', 'three')";
const BY_ID: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, code TEXT, v TEXT, own TEXT DEFAULT 'theirs')";

/// Every row collides with one that moves in the same batch: the final state has no collision, and so has the replica none.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_the_old_key_that_change_places_end_right() {
    let declared = [BY_ID, "CREATE TABLE t (id INT, code TEXT, v TEXT, PRIMARY KEY (id))"];
    for (path, made) in PATHS.into_iter().flat_map(|path| declared.map(|made| (path, made))) {
        let rig = rig(path, BESIDE, made, SCHEMA).await;
        let what = format!("{path:?} {made}");
        is_equal(&rig, &what).await;
        rig.db.sql("update t set id = 3 - id where id < 3").await;
        is_equal(&rig, &what).await;
        rig.db.sql("update t set id = id % 3 + 1").await;
        is_equal(&rig, &what).await;
        // One after the other, and the key too.
        rig.db.sql("delete from t where code = 'a'; update t set code = 'z', id = 9 where code = 'b'; insert into t values (2, 'a', 'new'), (3, 'b', 'x')").await;
        rig.db.sql("update t set id = 12 - id").await;
        is_equal(&rig, &what).await;
    }
}

/// What somebody else keeps in a column of the replica goes only of rows that stand in the way of others.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_schema_json_does_not_name_is_kept_where_no_row_is_in_the_way() {
    for path in PATHS {
        let rig = rig(path, BESIDE, BY_ID, SCHEMA).await;
        is_equal(&rig, "before").await;
        rig.replica("UPDATE t SET own = 'mine'").await;
        rig.db.sql("update t set id = case id when 3 then 3 else 3 - id end, v = v || '!'").await;
        is_equal(&rig, "swapped").await;
        assert_eq!(
            rig.rows("SELECT code, own FROM t ORDER BY code").await,
            ["a|theirs", "b|theirs", "c|mine"],
            "{path:?}"
        );
    }
}

/// A key that changed without a mark: the copy brings the new row while the old one still has its number.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_row_that_has_the_old_key_makes_way_for_the_copy() {
    for path in PATHS {
        let rig = rig(path, BESIDE, BY_ID, SCHEMA).await;
        is_equal(&rig, "before").await;
        rig.db.sql("set local session_replication_role = replica; update t set code = '_real' where code = 'c'; update t set id = 7 where code = 'a'; update t set id = 1 where code = 'b'").await;
        let directory = crate::limits::directory_with(SCHEMA);
        for arguments in [&["resync"][..], &["verify"]] {
            let done = crate::limits::run(&rig, directory.path(), arguments).await;
            assert_eq!(done.output.status.code(), Some(0), "{path:?} {arguments:?}: {}{}", done.printed(), done.log());
        }
        is_equal(&rig, &format!("{path:?}")).await;
    }
}

/// The one that holds the number is stale, and no copy is under way: it is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_makes_way_for_a_marked_one_is_not_lost() {
    for path in PATHS {
        let rig = rig(path, BESIDE, BY_ID, SCHEMA).await;
        is_equal(&rig, "before").await;
        rig.db.sql("set local session_replication_role = replica; update t set id = id + 1").await;
        rig.db.sql("update t set v = 'marked' where code = 'a'").await;
        is_equal(&rig, &format!("{path:?}")).await;
    }
}

/// More rows than one batch has, each in the place of another.
#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_change_of_the_old_key_over_many_batches_ends_right() {
    let tables = "create table t (id int not null, code text primary key, v text);
        insert into t select i, pg_catalog.md5(i::text), 'v' from generate_series(1, 45000) i";
    for path in PATHS {
        let rig = rig(path, tables, BY_ID, SCHEMA).await;
        is_equal(&rig, "before").await;
        rig.db.sql("update t set id = id % 45000 + 1").await;
        is_equal(&rig, &format!("{path:?}")).await;
    }
}

/// Two rows of Postgres have the number: one of them is a dead letter, and stays the only one.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_really_collides_with_one_that_came_earlier_is_one_dead_letter() {
    for path in PATHS {
        let rig = rig(path, BESIDE, BY_ID, SCHEMA).await;
        is_equal(&rig, "before").await;
        rig.db.sql("insert into t values (1, 'd', 'four')").await;
        for _ in 0..3 {
            crate::limits::drained(&rig).await;
            assert_eq!(rig.db.dead().await.len(), 1, "{path:?}");
            assert_eq!(rig.rows("SELECT count(*), count(DISTINCT id) FROM t").await, ["3|3"], "{path:?}");
        }
        rig.db.sql("update t set id = 4 where code = 'd'; update t set v = v || '!'").await;
        is_equal(&rig, &format!("{path:?}")).await;
    }
}
