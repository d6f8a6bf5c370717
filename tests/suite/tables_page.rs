//! `docs/tables.md` names whatever pgflume makes on either side, and no more.

use crate::pulls;
use crate::store::show;
use crate::support::{Path, Rig, schema};
use crate::volume::set_up;
use pgflume::replica::Rows;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../docs/tables.md");
const ORDERS: &str = r#"{"orders":{"primaryKey":"id","columns":{"id":"INTEGER"},"evolve":true}}"#;
const SHOP: &str = "create table orders (id int primary key); insert into orders values (1)";

fn texts(rows: &Rows) -> BTreeSet<String> {
    rows.iter().map(|row| show(&row[0])).collect()
}

/// The cells of the page's table whose first column has this head.
fn rows(head: &str) -> Vec<Vec<&'static str>> {
    let rows = PAGE.lines().skip_while(|line| !line.starts_with(&format!("| {head} |"))).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<&str>> = rows.map(|row| row.trim_matches('|').split(" | ").collect()).collect();
    assert!(!rows.is_empty(), "{head}");
    rows
}

fn codes(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

fn named(head: &str) -> BTreeSet<String> {
    rows(head).into_iter().flat_map(|row| codes(row[0])).collect()
}

/// One replica that a queue fills, and that feeds clients, who may write; one that a sync pulls.
async fn replicas() -> (Rig, pulls::Rig) {
    let fed = ORDERS.replacen(
        r#""primaryKey""#,
        r#""feed":{"public":true},"writable":{"columns":[],"ops":["delete"],"unchecked":true},"primaryKey""#,
        1,
    );
    let queued = Rig::new(Path::File, schema(&fed)).await;
    queued.db.sql(SHOP).await;
    set_up(&queued.db.url(), queued.worker.schema()).await;
    queued.drain().await;
    let pulled = pulls::Rig::new(Path::File, SHOP, ORDERS).await;
    pulled.pull().telling().pass().await.unwrap();
    drop(pulled.pull().add_job(None, &serde_json::Value::Null).await.unwrap());
    (queued, pulled)
}

/// All tables and views of bookkeeping in a replica.
pub async fn bookkeeping() -> BTreeSet<String> {
    let (queued, pulled) = replicas().await;
    let sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name GLOB '_pgflume_*'";
    let mut all = texts(&queued.replica(sql).await);
    all.extend(texts(&pulled.replica(sql).await));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_of_the_replicas_bookkeeping_is_on_the_page() {
    assert_eq!(named("table or view"), bookkeeping().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_columns_that_readers_may_rely_on_are_there() {
    let (queued, pulled) = replicas().await;
    for row in rows("table or view") {
        let table = codes(row[0]).next().unwrap();
        let sql = format!("SELECT name FROM pragma_table_info('{table}')");
        let mut columns = texts(&queued.replica(&sql).await);
        columns.extend(texts(&pulled.replica(&sql).await));
        let listed: BTreeSet<String> = codes(row[2]).collect();
        assert!(listed.is_subset(&columns), "{table}: {listed:?} of {columns:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_and_function_in_postgres_is_on_the_page() {
    let (queued, _) = replicas().await;
    let of = async |sql: &str| queued.db.all(sql).await.into_iter().collect::<BTreeSet<_>>();
    let relations =
        "select relname from pg_class where relnamespace = 'pgflume'::regnamespace and relkind not in ('i', 'S', 't')";
    assert_eq!(named("table"), of(relations).await);
    // Those of the captured tables have dots in their names.
    let functions =
        "select proname from pg_proc where pronamespace = 'pgflume'::regnamespace and proname not like '%.%'";
    assert_eq!(named("function"), of(functions).await);
    let triggers = "select tgname from pg_trigger where tgrelid = 'pgmq.q_replicate_data_libsql'::regclass
        union all select evtname from pg_event_trigger union all select rolname from pg_roles where rolname in ('pgflume_worker', 'pgflume_capture', 'pgflume_push')";
    for name in of(triggers).await {
        assert!(PAGE.contains(&format!("`{name}`")), "{name}");
    }
}
