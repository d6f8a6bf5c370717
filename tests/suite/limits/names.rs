//! Names as long and as odd as Postgres takes them, and names that SQLite could not tell apart.

use super::{directory_with, drained, run};
use crate::support::{PATHS, Path, Rig, schema};
use crate::volume::set_up;
use pgflume::core::schema::{Schema, quote};
use serde_json::{Map, Value, json};

fn long(last: char) -> String {
    format!("{}{last}", "n".repeat(62))
}

/// Schema and table of each source.
fn sources() -> Vec<(String, String)> {
    let accents = format!("{}x", "é".repeat(31));
    let odd = [
        "select",
        "order",
        "table",
        "group",
        "a b",
        "a\"b",
        "a'b",
        "a\\b",
        "a.b",
        "$1",
        "$$",
        "?1",
        "{{queue}}",
        "{{statements}}",
        "%s",
        "é",
        "日本語",
        "😀",
        "a\nb",
        "--",
        "1a",
        "_",
        "new_rows",
        "t",
        "k",
        "u",
        "p",
        "value",
        "key",
        "excluded",
        "rowid",
    ];
    let mut all: Vec<(String, String)> = odd.iter().map(|name| ("public".to_owned(), (*name).to_owned())).collect();
    all.extend([long('a'), long('b'), accents].map(|name| ("public".to_owned(), name)));
    // The longest schema with the longest tables, and two that read alike with a dot between.
    all.extend([long('a'), long('b')].map(|name| (long('s'), name)));
    all.extend([("x".to_owned(), "y.z".to_owned()), ("x.y".to_owned(), "z".to_owned())]);
    all
}

/// Columns beside the key.
fn columns() -> Vec<String> {
    let odd = [
        "select",
        "a b",
        "a\"b",
        "a'b",
        "a\\b",
        "a.b",
        "$1",
        "?1",
        "{{table}}",
        "é",
        "日本語",
        "value",
        "key",
        "rowid",
        "oid",
        "ctid_",
        "new",
        "old",
        "o",
        "n",
        "t",
        "c0",
        "k1",
        "_pgflume_c0",
        "excluded",
    ];
    odd.map(str::to_owned).into_iter().chain([long('a'), long('b')]).collect()
}

fn definitions() -> String {
    let mut columns_of: Map<String, Value> = Map::new();
    columns_of.insert("the key".into(), json!("INTEGER"));
    columns_of.extend(columns().into_iter().map(|name| (name, json!("TEXT"))));
    let tables = sources().into_iter().enumerate().map(|(n, (in_schema, table))| {
        // Where two sources have one name, the second is called otherwise.
        let name = if in_schema == "public" { table.clone() } else { format!("other {n}") };
        let source = format!("{}.{}", quote(&in_schema), quote(&table));
        (name, json!({"primaryKey": "the key", "columns": columns_of, "indexes": ["value", ["a.b", "select"]], "source": source}))
    });
    Value::Object(tables.collect()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_every_kind_and_length_are_captured_and_replicated() {
    for path in PATHS {
        let definitions = definitions();
        let rig = Rig::new(path, schema(&definitions)).await;
        let list: String = columns().iter().map(|name| format!(", {} text", quote(name))).collect();
        for (in_schema, table) in sources() {
            rig.db
                .sql(&format!(
                    "create schema if not exists {0}; create table {0}.{1} (\"the key\" int primary key{list})",
                    quote(&in_schema),
                    quote(&table)
                ))
                .await;
        }
        set_up(&rig.db.url(), rig.worker.schema()).await;
        let functions = "select count(*) from pg_proc where pronamespace = 'pgflume'::regnamespace and proname like 'replicate_data_libsql.%'";
        assert_eq!(rig.db.one(functions).await, (sources().len() * 4).to_string(), "each has functions of its own");
        drained(&rig).await;
        for (in_schema, table) in sources() {
            let name = format!("{}.{}", quote(&in_schema), quote(&table));
            rig.db
                .sql(&format!("insert into {name} (\"the key\", \"value\") values (1, 'v'), (2, 'v'), (3, 'v')"))
                .await;
            let update =
                |column: String| format!("update {name} set {} = 'changed' where \"the key\" = 2;", quote(&column));
            rig.db.sql(&columns().into_iter().map(update).collect::<String>()).await;
            rig.db.sql(&format!("delete from {name} where \"the key\" = 3")).await;
        }
        assert_eq!(drained(&rig).await, 0);
        let directory = directory_with(&definitions);
        run(&rig, directory.path(), &["verify"]).await.succeeded();
        let count =
            rig.rows(&format!("SELECT count(*), max({0}), max({1}) FROM {1}", quote(&long('b')), quote("a\"b"))).await;
        assert_eq!(count, ["2|changed|changed"]);
        rig.db.sql(&format!("truncate {}", quote(&long('a')))).await;
        run(&rig, directory.path(), &["verify"]).await.succeeded();
        assert_eq!(rig.rows(&format!("SELECT count(*) FROM {}", quote(&long('a')))).await, ["0"]);
        if path == Path::File {
            run(&rig, directory.path(), &["resync"]).await.succeeded();
            assert_eq!(drained(&rig).await, 0);
            run(&rig, directory.path(), &["setup"]).await.succeeded();
            run(&rig, directory.path(), &["teardown", "--yes"]).await.succeeded();
            let left = "select count(*) from pg_trigger where tgname like 'pgflume%'";
            assert_eq!(rig.db.one(left).await, "0");
        }
    }
}

#[test]
fn names_that_differ_in_case_only_are_refused_with_their_path() {
    let table = r#"{"primaryKey":"id","columns":{"id":"TEXT"}}"#;
    let cases = [
        (format!(r#"{{"Apps":{table},"apps":{table}}}"#), "$.apps"),
        (format!(r#"{{"É":{table},"é":{table}}}"#), "$.é"),
        (
            r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT","Name":"TEXT","name":"TEXT"}}}"#.to_owned(),
            "$.t.columns.name",
        ),
    ];
    for (text, path) in cases {
        let error = Schema::parse(&text).unwrap_err();
        assert!(error.path == path && error.problem.contains("SQLite ignores case"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_and_sync_refuse_names_that_differ_in_case_only_and_init_tells_them_apart() {
    let twins =
        r#"{"Apps":{"primaryKey":"id","columns":{"id":"TEXT"}},"apps":{"primaryKey":"id","columns":{"id":"TEXT"}}}"#;
    let rig = Rig::new(Path::File, schema(super::keys::TABLES)).await;
    rig.db
        .sql("create table \"Apps\" (id int primary key, v text, \"V\" text); create table apps (id int primary key)")
        .await;
    let directory = directory_with(twins);
    for command in ["setup", "sync"] {
        let refused = run(&rig, directory.path(), &[command]).await;
        assert_eq!(refused.output.status.code(), Some(2), "{}", refused.log());
        assert!(
            refused.log().contains("$.apps is there already as \"Apps\"; SQLite ignores case"),
            "{}",
            refused.log()
        );
    }
    let empty = tempfile::tempdir().unwrap();
    let made = run(&rig, empty.path(), &["init"]).await.succeeded();
    let said = format!("{}{}", made.printed(), made.log());
    let written = Schema::parse(&std::fs::read_to_string(empty.path().join("schema.json")).unwrap()).unwrap();
    let columns: Vec<usize> = written.tables().map(|t| t.columns.len()).collect();
    assert_eq!((written.tables().count(), columns.iter().sum::<usize>()), (2, 3), "one column of two is left out");
    assert!(said.contains("\"V\""), "and that is said: {said}");
}
