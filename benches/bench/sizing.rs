//! What to plan for: bytes of the queue for each changed key, with the indexes, bytes of a replica for each of the source,
//! and how many connections to Postgres each way of running holds.

use crate::ground::{Ground, Home, Kind, Table, connect};
use crate::report::{Section, thousands};
use pgflume::core::queue_name::DEFAULT_QUEUE;
use pgflume::core::value::Cell;
use pgflume::replica::Replica;
use std::process::{Child, Command};
use std::time::Duration;

/// Keys: what they are called, their columns, and a row of each number.
const KEYS: [(&str, &str, &str); 3] = [
    ("bigint", "a bigint primary key", "i"),
    ("uuid", "a uuid primary key", "md5(i::text)::uuid"),
    (
        "uuid and a text of 40",
        "a uuid, b text, primary key (a, b)",
        "md5(i::text)::uuid, repeat(md5(i::text), 2)::varchar(40)",
    ),
];

/// Ended with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub async fn run(ground: &Ground) -> Section {
    let rows: i64 = if ground.is_quick { 5_000 } else { 50_000 };
    let (mut lines, mut bars) = (Vec::new(), Vec::new());
    let line = |what: String, figure: String| vec![what, figure];
    for (key, columns, row) in KEYS {
        for (how, sql) in changes(rows) {
            let bytes = queued(ground, key, columns, row, &sql, rows).await;
            lines.push(line(format!("bytes on the queue a changed key: {key}, {how}"), format!("{bytes:.0}")));
            bars.push((format!("{key}, {how}"), bytes));
        }
    }
    for table in [Table::Narrow, Table::Wide] {
        let (source, replica) = sides(ground, table, rows).await;
        let what = format!("bytes of a replica's file for each of {} in Postgres, indexes included", table.name());
        lines.push(line(what, format!("{:.2}", replica / source)));
    }
    for arguments in [&["serve"][..], &["serve", "--follow"], &["sync"]] {
        let (most, names, rest) = connections(ground, arguments, rows).await;
        lines.push(line(
            format!("connections to Postgres: {}", arguments.join(" ")),
            format!("{most} {names}, {rest} at rest"),
        ));
    }
    Section {
        name: "sizing",
        what: format!("{} rows of each kind of key, updated one by one and all at once; the size of the queue is that of its table with its indexes and TOAST. Replicas are files after a first copy. Connections are the most that one process held at once, by what they are for, while it copied a table of so many rows and, but for `serve`, which nobody called, drained a change of each; and what it held at the end of ten seconds.", thousands(rows as f64)),
        head: vec!["", ""],
        rows: lines,
        plot: ("Bytes on the queue a changed key".into(), bars),
    }
    .print()
}

fn changes(rows: i64) -> [(&'static str, String); 2] {
    let each = format!("do $$ begin for n in 1..{rows} loop update sized set v = v + 1 where i = n; end loop; end $$");
    [("one row a statement", each), ("all in one statement", "update sized set v = v + 1".into())]
}

async fn number(ground: &Ground, sql: &str) -> f64 {
    ground.client.query_one(&format!("select ({sql})::float8"), &[]).await.unwrap().get(0)
}

/// Bytes of the queue for each key.
async fn queued(ground: &Ground, key: &str, columns: &str, row: &str, sql: &str, rows: i64) -> f64 {
    ground.sql(&format!("drop table if exists sized cascade;\ncreate table sized ({columns}, i bigint unique, v int not null default 0);\ninsert into sized select {row}, i from generate_series(1, {rows}) i;\nvacuum analyze sized")).await;
    let (names, types) = if key.contains("text") { (r#"["a","b"]"#, r#","b":"TEXT""#) } else { (r#""a""#, "") };
    ground
        .capture(&format!(r#"{{"sized":{{"primaryKey":{names},"columns":{{"a":"TEXT"{types},"v":"INTEGER"}}}}}}"#))
        .await;
    let size = format!("pg_total_relation_size('pgmq.q_{DEFAULT_QUEUE}')");
    let before = number(ground, &size).await;
    ground.client.batch_execute(sql).await.unwrap();
    let bytes = (number(ground, &size).await - before) / rows as f64;
    ground.sql("drop table sized cascade").await;
    bytes
}

/// Bytes of a table and of its replica.
async fn sides(ground: &Ground, table: Table, rows: i64) -> (f64, f64) {
    ground.fill(table, rows).await;
    let definition: serde_json::Value = serde_json::from_str(table.json()).unwrap();
    for column in definition[table.name()]["indexes"].as_array().into_iter().flatten().filter_map(|c| c.as_str()) {
        ground.sql(&format!("create index on {} ({column})", table.name())).await;
    }
    ground.capture(table.json()).await;
    let home = Home::new(Kind::File);
    ground.worker(table, &home.target()).drain(Duration::from_secs(600)).await.unwrap();
    let replica = Replica::open(&home.target()).await.unwrap();
    let pages =
        replica.query("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", vec![]).await.unwrap();
    let Cell::Integer(bytes) = pages[0][0] else { unreachable!() };
    (number(ground, &format!("pg_total_relation_size('{}')", table.name())).await, bytes as f64)
}

/// The most that a process holds at once while it copies a table and drains a change of each row, and what they are for;
/// and how many it holds in the end.
async fn connections(ground: &Ground, arguments: &[&str], rows: i64) -> (i64, String, i64) {
    ground.fill(Table::Narrow, rows).await;
    ground.capture(Table::Narrow.json()).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("schema.json"), Table::Narrow.json()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.args(arguments).current_dir(directory.path()).env("PGMQ_URL", &ground.url).env("LIBSQL_URL", "replica.db");
    command.env("RUST_LOG", "off").env("WEBHOOK_SIGNATURE", "x".repeat(40)).env("PORT", "0");
    let _running = Running(command.spawn().unwrap());
    ground.sql("update items set version = version + 1").await;
    let (watch, until) = (connect(&ground.url).await, std::time::Instant::now() + Duration::from_secs(10));
    let sql = "select count(*), coalesce('(' || string_agg(application_name, ', ' order by 1) || ')', '') from pg_stat_activity where application_name like 'pgflume %'";
    let (mut most, mut rest) = ((0, String::new()), 0);
    while std::time::Instant::now() < until {
        let row = watch.query_one(sql, &[]).await.unwrap();
        rest = row.get(0);
        most = most.max((rest, row.get(1)));
    }
    (most.0, most.1, rest)
}
