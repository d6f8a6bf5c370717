//! A replica whose tables somebody else made, on a store in memory.

use super::memory::Memory;
use super::*;
use crate::core::batch::RowState;
use crate::core::chance::Chance;
use crate::core::error::ErrorKind;
use std::sync::Arc;

/// The key is `id`, whatever the replica's tables declare.
const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT","n":"INTEGER","v":"TEXT"}},
    "c":{"primaryKey":["x","y"],"columns":{"x":"TEXT","y":"TEXT","v":"TEXT"}}}"#;

/// A replica in which these statements were run, and its inventory.
async fn made_by(statements: &[&str]) -> (Replica, Inventory, Schema) {
    let store = Memory::new().unwrap();
    let before = statements.iter().map(|sql| (*sql).to_owned().into()).collect();
    store.write(Work { before, ..Work::default() }).await.unwrap();
    let replica = Replica::on(Box::new(store));
    let schema = Schema::parse(TABLES).unwrap();
    let there = replica.prepare(&schema).await.unwrap();
    (replica, there, schema)
}

async fn numbers(replica: &Replica, sql: &str) -> Vec<i64> {
    let number = |row: Vec<Cell>| if let [Cell::Integer(n)] = row[..] { n } else { panic!("{row:?}") };
    replica.query(sql, Vec::new()).await.unwrap().into_iter().map(number).collect()
}

fn text(text: &str) -> Cell {
    Cell::Text(text.into())
}

#[tokio::test]
async fn of_rows_that_share_their_key_the_youngest_stays_and_those_without_one_go() {
    let (replica, there, schema) = made_by(&[
        "CREATE TABLE t (id TEXT, n INTEGER PRIMARY KEY, v TEXT)",
        "INSERT INTO t VALUES ('a', 1, ''), ('b', 2, ''), ('a', 3, ''), (NULL, 4, ''), ('a', 5, ''), (NULL, 6, '')",
    ])
    .await;
    let table = schema.get("t").unwrap();
    assert_eq!(there.keyless(&schema).map(|table| table.name.as_str()).collect::<Vec<_>>(), ["t"]);
    assert_eq!(replica.count_surplus(table).await.unwrap(), 4);
    assert_eq!(replica.remove_keyless(table).await.unwrap(), 2);
    assert_eq!(replica.remove_keyless(table).await.unwrap(), 0);
    assert_eq!(replica.count_surplus(table).await.unwrap(), 2);
    replica.make_key(&there, table).await.unwrap();
    assert_eq!(numbers(&replica, "SELECT n FROM t ORDER BY n").await, [2, 5]);
    let there = replica.inventory().await.unwrap();
    assert!(there.keyless(&schema).next().is_none() && !there.has_stale_key_index(table));
    replica.drop_key(table).await.unwrap();
    assert!(replica.inventory().await.unwrap().keyless(&schema).next().is_some());
}

#[tokio::test]
async fn a_key_that_takes_a_for_capital_a_is_no_key_of_ours() {
    let (_, there, schema) = made_by(&[
        "CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY, n INTEGER, v TEXT)",
        "CREATE TABLE c (x TEXT, y TEXT, v TEXT, PRIMARY KEY (y, x))",
    ])
    .await;
    assert_eq!(there.keyless(&schema).map(|table| table.name.as_str()).collect::<Vec<_>>(), ["t"]);
    let mixed = ["CREATE TABLE c (x TEXT, y TEXT COLLATE NOCASE, v TEXT, PRIMARY KEY (x, y))"];
    let store = Memory::new().unwrap();
    store.write(Work { before: vec![mixed[0].to_owned().into()], ..Work::default() }).await.unwrap();
    let error = Replica::on(Box::new(store)).prepare(&schema).await.unwrap_err();
    assert!(error.to_string().contains("\"c\""), "keys of two columns are looked up as those compare: {error}");
}

#[tokio::test]
async fn a_table_with_a_key_of_its_own_tells_who_holds_its_values() {
    let (replica, _, schema) = made_by(&[
        "CREATE TABLE t (id TEXT UNIQUE, n INTEGER NOT NULL, v TEXT NOT NULL, PRIMARY KEY (n, v)) WITHOUT ROWID",
        "INSERT INTO t VALUES ('a', 1, 'x'), ('b', 1, 'y'), ('c', 2, 'x'), ('d', 2500, 'x')",
    ])
    .await;
    let table = schema.get("t").unwrap();
    let rival = replica.rival(table).unwrap();
    assert_eq!(rival[..], [1, 2]);
    let value = |n: i64, v: &str| vec![Cell::Integer(n), text(v)];
    let asked = [value(1, "y"), value(2, "x"), value(2, "y")];
    let mut held = replica.holders(table, &rival, asked.iter()).await.unwrap();
    held.sort_by_key(|(key, _)| format!("{key:?}"));
    assert_eq!(held, [(vec![text("b")], value(1, "y")), (vec![text("c")], value(2, "x"))]);
    assert!(replica.rival(schema.get("c").unwrap()).is_none(), "its key is the one of schema.json");
    // More than one question.
    let many: Vec<Vec<Cell>> = (0..3_000).map(|n| value(n, "x")).collect();
    assert_eq!(replica.holders(table, &rival, many.iter()).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_column_that_numbers_the_rows_takes_no_null() {
    let (replica, _, schema) = made_by(&["CREATE TABLE t (id TEXT UNIQUE, n INTEGER PRIMARY KEY, v TEXT)"]).await;
    let chance = Chance::seeded(1);
    let head = Head::start("e".into(), chance.token());
    replica.reset(None, &head, (Feeds::Queue("q"), "us"), None).await.unwrap();
    let apply = async |table: &str, n: Cell| {
        let table = schema.get(table).unwrap().clone();
        let cells = vec![text("a"), n, Cell::Null];
        let key = table.key.iter().map(|&i| cells[i].clone()).collect();
        let state = RowState::Row { columns: Arc::from([0, 1, 2]), cells, replace: false };
        let items = Arc::new(vec![Item { table, key, state, images: Vec::new() }]);
        let entry = Entry {
            head: head.next(chance.token()),
            parent: head.token.clone(),
            xid: String::new(),
            lsn: String::new(),
            images: Vec::new(),
            provenance: Arc::default(),
        };
        let work = Work { range: 0..1, items, ..Work::default() };
        replica.apply(&head, &entry, 0, Feeds::Queue("q"), &Freshness::default(), work).await
    };
    let error = apply("t", Cell::Null).await.unwrap_err();
    assert!(error.kind() == &ErrorKind::Row && error.to_string().contains("\"n\""), "{error}");
    apply("t", Cell::Integer(7)).await.unwrap();
    assert_eq!(numbers(&replica, "SELECT n FROM t").await, [7]);
}

#[tokio::test]
async fn what_is_missing_is_made_once_and_what_differs_is_refused() {
    let (replica, there, schema) = made_by(&[]).await;
    assert!(there.tables.is_empty() && !there.has_any_bookkeeping());
    let there = replica.inventory().await.unwrap();
    assert!(there.has_bookkeeping() && replica.lacks(&there, &schema).unwrap().is_empty());
    assert_eq!(numbers(&replica, "SELECT count(*) FROM t UNION ALL SELECT count(*) FROM c").await, [0, 0]);
    let other = Schema::parse(r#"{"t":{"primaryKey":"v","columns":{"v":"BLOB"}}}"#).unwrap();
    let error = replica.prepare(&other).await.unwrap_err();
    assert!(error.to_string().contains("\"t\""), "{error}");
    replica.forget().await.unwrap();
    assert!(!replica.inventory().await.unwrap().has_any_bookkeeping());
}

/// Runs what is planned, and gives what happened in words.
async fn altered(replica: &Replica, schema: &Schema, retired: &change::Retired) -> Vec<change::Change> {
    let head = Head::start("e".into(), "t".into());
    let from = replica.head().await.unwrap();
    replica.reset(from.as_ref(), &head, (Feeds::Queue("q"), "us"), None).await.unwrap();
    let changes = change::plan(&replica.inventory().await.unwrap(), schema, retired);
    let statements = changes.iter().flat_map(|change| change.statements.clone()).collect();
    replica.alter(&head, statements).await.unwrap();
    changes
}

fn told(changes: &[change::Change]) -> Vec<(&str, bool, bool)> {
    changes.iter().map(|change| (change.what.as_str(), change.is_drop, change.needs_copy)).collect()
}

#[tokio::test]
async fn tables_become_those_of_the_schema_and_keep_what_others_made() {
    let (replica, ..) = made_by(&[
        "CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER, v TEXT, gone TEXT, theirs TEXT)",
        "CREATE TABLE old (id TEXT)",
        "CREATE INDEX mine ON t (theirs)",
        "CREATE INDEX idx_t_gone ON t (n, v)",
        "INSERT INTO t VALUES ('a', 1, 'x', 'y', 'z')",
    ])
    .await;
    let tables = r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT","n":"INTEGER","v":"TEXT","new":"TEXT"},"indexes":[["n"]]},
        "c":{"primaryKey":["x","y"],"columns":{"x":"TEXT","y":"TEXT","v":"TEXT"}}}"#;
    let schema = Schema::parse(tables).unwrap();
    let retired = change::Retired {
        tables: BTreeSet::from(["old".to_owned(), "never".to_owned()]),
        columns: BTreeMap::from([("t".to_owned(), BTreeSet::from(["gone".to_owned(), "v".to_owned()]))]),
    };
    let changes = altered(&replica, &schema, &retired).await;
    let expected = [
        ("drop the index \"idx_t_gone\"", false, false),
        ("drop the column \"gone\"", true, false),
        ("add the column \"new\"", false, true),
        ("add the index \"idx_t_n\"", false, false),
        ("drop the table", true, false),
    ];
    assert_eq!(told(&changes), expected);
    let rows = replica.query("SELECT id, n, v, new, theirs FROM t", Vec::new()).await.unwrap();
    assert_eq!(rows, [vec![text("a"), Cell::Integer(1), text("x"), Cell::Null, text("z")]]);
    let there = replica.inventory().await.unwrap();
    assert!(there.indexes.contains_key("mine") && there.indexes.contains_key("idx_t_n"));
    assert!(!there.tables.contains_key("old") && there.column("t", "gone").is_none());
    assert!(altered(&replica, &schema, &retired).await.is_empty(), "once is enough");
}

#[tokio::test]
async fn a_table_of_another_type_or_key_is_made_anew_with_its_rows() {
    let (replica, ..) = made_by(&[
        "CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER, v TEXT, theirs TEXT)",
        "CREATE TRIGGER their_trigger AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE INDEX their_index ON t (v)",
        "INSERT INTO t VALUES ('a', 1, 'x', 'z'), ('b', 2, 'y', NULL), ('c', NULL, 'x', NULL), ('d', 3, NULL, NULL)",
    ])
    .await;
    let schema = |json: &str| Schema::parse(json).unwrap();
    let typed = schema(r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT","n":"TEXT","v":"TEXT"}}}"#);
    let changes = altered(&replica, &typed, &change::Retired::default()).await;
    assert_eq!(told(&changes), [("rebuild the table: \"n\" is declared INTEGER", false, true)]);
    assert_eq!(replica.query("SELECT theirs FROM t WHERE id = 'a'", Vec::new()).await.unwrap(), [[text("z")]]);
    let there = replica.inventory().await.unwrap();
    assert!(there.triggers.contains_key("their_trigger") && there.indexes.contains_key("their_index"));
    assert!(there.column("t", "theirs").is_some() && there.column("t", "n").unwrap().declared == "TEXT");
    // Another key: rows without one have no place, and two with the same one have one.
    let keyed = schema(r#"{"t":{"primaryKey":"v","columns":{"id":"TEXT","v":"TEXT"}}}"#);
    let retired = change::Retired {
        tables: BTreeSet::new(),
        columns: BTreeMap::from([("t".to_owned(), BTreeSet::from(["n".to_owned()]))]),
    };
    let changes = altered(&replica, &keyed, &retired).await;
    let what = "rebuild the table: another primary key, \"n\" is dropped";
    assert_eq!(told(&changes), [(what, true, true)]);
    let rows = replica.query("SELECT v, id, theirs FROM t ORDER BY v", Vec::new()).await.unwrap();
    assert_eq!(rows, [vec![text("x"), text("a"), text("z")], vec![text("y"), text("b"), Cell::Null]]);
}

#[tokio::test]
async fn a_worker_adds_by_itself_what_is_missing_and_no_more() {
    let (replica, ..) = made_by(&["CREATE TABLE t (id TEXT PRIMARY KEY, n BLOB)"]).await;
    let there = replica.inventory().await.unwrap();
    let additions = |json: &str| change::additions(&there, &Schema::parse(json).unwrap());
    let missing =
        additions(r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT","n":"BLOB","x":"TEXT"},"indexes":[["x"]]}}"#);
    assert_eq!(told(&missing), [("add the column \"x\"", false, true), ("add the index \"idx_t_x\"", false, false)]);
    assert!(additions(r#"{"t":{"primaryKey":"id","columns":{"id":"TEXT","n":"DECIMAL"}}}"#).is_empty(), "another type");
    assert!(additions(r#"{"new":{"primaryKey":"id","columns":{"id":"TEXT"}}}"#).is_empty(), "a whole table");
}
