//! What cannot be undercut: the same reading with nothing done, the same writing with everything ready.

use crate::ground::{Ground, Home, Table, check};
use crate::parts::Sqld;
use futures_util::TryStreamExt;
use pgflume::core::batch::{Item, RowState};
use pgflume::core::queue_name::DEFAULT_QUEUE;
use pgflume::core::value::Cell;
use pgflume::postgres::{PgUrl, catalog, rows};
use pgflume::replica::hrana::Encoding;
use pgflume::replica::target::Target;
use pgflume::replica::{Replica, Work, remote};
use std::sync::Arc;
use std::time::Instant;

/// Messages of one transaction of the reading floor.
const MESSAGES: i64 = 10_000;

/// Rows of one transaction of the writing floors.
const ROWS: usize = 20_000;

/// Seconds to take all messages and to read the rows that they mark, and throw both away.
pub async fn read(ground: &Ground, table: Table) -> f64 {
    let client = &ground.client;
    let take = format!(
        "with first as (select msg_id from pgmq.q_{DEFAULT_QUEUE} order by msg_id limit {MESSAGES})
         delete from pgmq.q_{DEFAULT_QUEUE} q using first where q.msg_id = first.msg_id returning q.message::text"
    );
    let read = format!("select t.* from unnest($1::bigint[]) k(id) join {} t using (id)", table.name());
    let started = Instant::now();
    loop {
        client.batch_execute("begin isolation level repeatable read; set local enable_hashjoin = off; set local enable_mergejoin = off; set local enable_seqscan = off").await.unwrap();
        let messages = client.query(&take, &[]).await.unwrap();
        if messages.is_empty() {
            client.batch_execute("rollback").await.unwrap();
            return started.elapsed().as_secs_f64();
        }
        let keys = messages.iter().flat_map(|message| {
            let message: serde_json::Value = serde_json::from_str(message.get(0)).unwrap();
            let keys =
                message["keys"].as_array().unwrap().iter().map(|key| key[0].as_str().unwrap().parse::<i64>().unwrap());
            keys.collect::<Vec<_>>()
        });
        let keys: Vec<i64> = keys.collect();
        for keys in keys.chunks(MESSAGES as usize) {
            let mut rows = Box::pin(client.query_raw(&read, [&keys]).await.unwrap());
            while rows.try_next().await.unwrap().is_some() {}
        }
        client.batch_execute("commit").await.unwrap();
    }
}

/// All rows of the filled table, as pgflume converts them.
pub async fn rows(ground: &Ground, table: Table) -> Arc<Vec<Item>> {
    let client = &ground.client;
    let schema = table.schema();
    let pinned = PgUrl::parse(&ground.url).unwrap().pinned(pgflume::postgres::Purpose::Demo).await.unwrap();
    let sources =
        catalog::read(&pinned, &schema, ground.worker(table, &Target::File("unused".into())).queue()).await.unwrap();
    let source = &sources.tables[table.name()];
    client.batch_execute("begin; set local timezone = 'UTC'; set local extra_float_digits = 3").await.unwrap();
    let read = client.query(&rows::scan_sql(source), &[]).await.unwrap();
    client.batch_execute("rollback").await.unwrap();
    let columns: pgflume::core::batch::ColumnSet = (0..source.table.columns.len()).collect();
    let mut items: Vec<Item> = read
        .into_iter()
        .map(|row| {
            let cells = rows::decode_scan(source, &row.into()).unwrap().unwrap();
            let state = RowState::Row { columns: columns.clone(), cells: cells.clone(), replace: false };
            Item { table: source.table.clone(), key: vec![cells[0].clone()], state, images: Vec::new() }
        })
        .collect();
    items.sort_by(|a, b| a.key.cmp(&b.key));
    Arc::new(items)
}

/// Seconds to write `items` to a file with prepared statements.
pub async fn write_file(table: Table, items: &[Item], home: &Home) -> f64 {
    let target = home.target();
    let Target::File(path) = &target else { unreachable!() };
    Replica::open(&target).await.unwrap().prepare(&table.schema()).await.unwrap();
    let database = libsql::Builder::new_local(path).build().await.unwrap().connect().unwrap();
    for pragma in ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"] {
        database.query(pragma, ()).await.unwrap().next().await.unwrap();
    }
    let names: Vec<&str> = items[0].table.columns.iter().map(|c| c.name.as_str()).collect();
    let marks: Vec<String> = (1..=names.len()).map(|i| format!("?{i}")).collect();
    let sets: Vec<String> = names[1..].iter().map(|n| format!("{n} = excluded.{n}")).collect();
    let insert = format!(
        "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}",
        table.name(),
        names.join(", "),
        marks.join(", "),
        sets.join(", ")
    );
    let ready: Vec<Vec<libsql::Value>> = items.iter().map(|item| cells(item).iter().map(value).collect()).collect();
    let started = Instant::now();
    let mut rows = ready.into_iter().peekable();
    while rows.peek().is_some() {
        database.execute("BEGIN IMMEDIATE", ()).await.unwrap();
        let insert = database.prepare(&insert).await.unwrap();
        for row in rows.by_ref().take(ROWS) {
            insert.execute(row).await.unwrap();
            insert.reset();
        }
        drop(insert);
        database.execute("COMMIT", ()).await.unwrap();
    }
    let elapsed = started.elapsed().as_secs_f64();
    check(table, &target, items.len() as i64).await;
    elapsed
}

/// Seconds to send `items` to sqld in request bodies that are ready.
pub async fn write_sqld(table: Table, items: &Arc<Vec<Item>>, sqld: &Sqld, target: &Target) -> f64 {
    Replica::open(target).await.unwrap().prepare(&table.schema()).await.unwrap();
    let bodies = (0..items.len()).step_by(ROWS).map(|from| {
        let range = from..items.len().min(from + ROWS);
        remote::body(&Work { items: items.clone(), range, ..Work::default() }, Encoding::Protobuf)
    });
    let bodies: Vec<Vec<u8>> = bodies.collect();
    let http = reqwest::Client::new();
    let started = Instant::now();
    for body in bodies {
        post(&http, sqld, body).await;
    }
    let elapsed = started.elapsed().as_secs_f64();
    check(table, target, items.len() as i64).await;
    elapsed
}

/// Sends one ready request.
pub async fn post(http: &reqwest::Client, sqld: &Sqld, body: Vec<u8>) {
    let request = http.post(format!("{}/v3-protobuf/pipeline", sqld.url())).bearer_auth(sqld.token_rw());
    let answer = request.header("content-type", "application/x-protobuf").body(body).send().await.unwrap();
    let outcome = Encoding::Protobuf.decode(&answer.bytes().await.unwrap()).unwrap().unwrap();
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
}

fn cells(item: &Item) -> &[Cell] {
    if let RowState::Row { cells, .. } = &item.state { cells } else { &[] }
}

fn value(cell: &Cell) -> libsql::Value {
    match cell {
        Cell::Null => libsql::Value::Null,
        Cell::Integer(i) => libsql::Value::Integer(*i),
        Cell::Real(r) => libsql::Value::Real(*r),
        Cell::Text(text) => libsql::Value::Text(text.to_string()),
        Cell::Blob(bytes) => libsql::Value::Blob(bytes.clone()),
        Cell::Lent(_) => unreachable!("the rows are small"),
    }
}
