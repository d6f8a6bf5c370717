//! Tables of 1,500 columns, and 500 tables.

use super::{assert_equal, directory_with, drained, run};
use crate::support::{PATHS, Path, Rig, schema};
use crate::volume::set_up;
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Columns of each of three types: a row of Postgres has 8 kB.
const EACH: usize = 499;

const ROWS: usize = 60;

fn wide_schema() -> String {
    let mut columns = Map::new();
    columns.insert("id".into(), json!("INTEGER"));
    for (prefix, kind) in [("i", "INTEGER"), ("r", "REAL"), ("t", "TEXT")] {
        columns.extend((0..EACH).map(|n| (format!("{prefix}{n}"), json!(kind))));
    }
    json!({"wide": {"primaryKey": "id", "columns": columns, "indexes": ["i0", ["t0", "r498"]]}}).to_string()
}

fn wide_table() -> String {
    let columns = |prefix: &str, kind: &str| (0..EACH).map(|n| format!(", {prefix}{n} {kind}")).collect::<String>();
    format!(
        "create table wide (id int primary key{}{}{})",
        columns("i", "int"),
        columns("r", "float8"),
        columns("t", "text")
    )
}

fn wide_rows(from: usize, to: usize) -> String {
    let ints: String = (0..EACH).map(|n| format!(", k * {n}")).collect();
    let reals: String = (0..EACH).map(|n| format!(", k + {n} / 7.0")).collect();
    let texts: String = (0..EACH).map(|n| format!(", '{}'", n % 10)).collect();
    format!("insert into wide select k{ints}{reals}{texts} from generate_series({from}, {to}) k")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_fifteen_hundred_columns_is_written_deleted_copied_and_compared() {
    for path in PATHS {
        let definition = wide_schema();
        let rig = Rig::new(path, schema(&definition)).await;
        rig.db.sql(&wide_table()).await;
        rig.db.sql(&wide_rows(1, 10)).await;
        set_up(&rig.db.url(), rig.worker.schema()).await;
        drained(&rig).await;
        assert_equal(&rig).await;
        rig.db.sql(&wide_rows(11, ROWS)).await;
        let begun = Instant::now();
        assert_eq!(drained(&rig).await, 0);
        println!("{path:?}: {} rows of 1,498 columns in {:?}", ROWS - 10, begun.elapsed());
        rig.db.sql("update wide set r498 = 1e300, t0 = null where id % 3 = 0; delete from wide where id % 7 = 0").await;
        assert_eq!(drained(&rig).await, 0);
        assert_equal(&rig).await;
        let directory = directory_with(&definition);
        let begun = Instant::now();
        run(&rig, directory.path(), &["verify"]).await.succeeded();
        println!("{path:?}: compared in {:?}", begun.elapsed());
    }
}

const TABLES: usize = 500;

fn many_schema() -> String {
    let tables = (0..TABLES).map(|n| {
        (
            format!("table_{n:03}"),
            json!({"primaryKey": "id", "columns": {"id": "INTEGER", "v": "TEXT"}, "indexes": ["v"]}),
        )
    });
    Value::Object(tables.collect()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_tables_are_set_up_drained_shown_rebuilt_and_compared() {
    let definition = many_schema();
    let is_full = std::env::var_os("LIMITS_FULL").is_some();
    for path in PATHS.into_iter().filter(|path| *path == Path::File || is_full) {
        let rig = Rig::new(path, schema(&definition)).await;
        rig.db.sql("do $$begin for n in 0..499 loop execute format('create table table_%s (id int primary key, v text)', lpad(n::text, 3, '0')); end loop; end$$").await;
        let directory = directory_with(&definition);
        let timed = async |arguments: &[&str]| {
            let done = run(&rig, directory.path(), arguments).await.succeeded();
            println!("{path:?}: {} of {TABLES} tables: {:?}, {} MB", arguments[0], done.took, done.peak_mb);
            done
        };
        timed(&["setup"]).await;
        timed(&["sync"]).await;
        rig.db.sql("do $$begin for n in 0..499 loop execute format('insert into table_%s select i, ''v'' from generate_series(1, 3) i', lpad(n::text, 3, '0')); end loop; end$$").await;
        timed(&["sync"]).await;
        assert_equal(&rig).await;
        let shown = timed(&["status", "--json"]).await.printed();
        assert!(shown.contains("table_499"), "{shown}");
        if path == Path::File {
            timed(&["resync"]).await;
            timed(&["sync"]).await;
        }
        timed(&["verify"]).await;
    }
}
