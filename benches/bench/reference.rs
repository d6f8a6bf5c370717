//! The reference algorithm, of Capgo's worker: 998 messages read with a visibility timeout, one INSERT OR REPLACE a
//! row in one batch, archived, counted.

use crate::ground::{Ground, Table, check};
use crate::parts::Sqld;
use pgflume::core::queue_name::DEFAULT_QUEUE;
use pgflume::core::secret::Secret;
use pgflume::core::value::Cell;
use pgflume::replica::Replica;
use pgflume::replica::hrana::{BatchStep, Encoding, When};
use pgflume::replica::target::Target;
use std::time::Instant;

/// What it reads at once.
const MESSAGES: i64 = 998;

/// It is slow, and as fast at the end of a queue as at its beginning: this share of the messages is enough.
const SHARE: f64 = 0.25;

/// Messages a second that it drains to `sqld` of a queue of `queued` images.
pub async fn rate(ground: &Ground, table: Table, sqld: &Sqld, queued: i64) -> f64 {
    let target = Target::Remote { url: sqld.url(), token: Some(Secret::new(sqld.token_rw())) };
    let schema = table.schema();
    Replica::open(&target).await.unwrap().prepare(&schema).await.unwrap();
    let columns: Vec<&str> = schema.get(table.name()).unwrap().columns.iter().map(|c| c.name.as_str()).collect();
    let marks: Vec<_> = (1..=columns.len()).map(|i| format!("?{i}")).collect();
    let insert =
        format!("INSERT OR REPLACE INTO {} ({}) VALUES ({})", table.name(), columns.join(", "), marks.join(", "));
    let http = reqwest::Client::new();
    let client = &ground.client;
    let wanted = (queued as f64 * SHARE) as i64;
    let mut drained = 0;
    let started = Instant::now();
    while drained < wanted {
        let read = format!("select msg_id, message::text from pgmq.read('{DEFAULT_QUEUE}', 30, {MESSAGES})");
        let messages = client.query(&read, &[]).await.unwrap();
        let plain = |when, sql: &str| BatchStep { when, sql: sql.to_owned(), args: vec![], want_rows: false };
        let mut steps = vec![plain(When::Always, "BEGIN")];
        for row in &messages {
            let message: serde_json::Value = serde_json::from_str(row.get(1)).unwrap();
            let args = columns.iter().map(|c| cell(&message["record"][c])).collect();
            let when = When::Ok(steps.len() as u32 - 1);
            steps.push(BatchStep { when, sql: insert.clone(), args, want_rows: false });
        }
        let last = steps.len() as u32 - 1;
        steps.push(plain(When::Ok(last), "COMMIT"));
        crate::floors::post(&http, sqld, Encoding::Protobuf.encode(steps)).await;
        let ids: Vec<i64> = messages.iter().map(|row| row.get(0)).collect();
        let archive = format!("select pgmq.archive('{DEFAULT_QUEUE}', id) from unnest($1::bigint[]) id");
        client.execute(&archive, &[&ids]).await.unwrap();
        drained += messages.len() as i64;
        client.query_one(&format!("select count(*) from pgmq.q_{DEFAULT_QUEUE}"), &[]).await.unwrap();
    }
    let elapsed = started.elapsed().as_secs_f64();
    check(table, &target, drained).await;
    drained as f64 / elapsed
}

fn cell(value: &serde_json::Value) -> Cell {
    match value {
        serde_json::Value::Null => Cell::Null,
        serde_json::Value::Bool(b) => Cell::Integer(i64::from(*b)),
        serde_json::Value::Number(n) => n.as_i64().map_or_else(|| Cell::Real(n.as_f64().unwrap()), Cell::Integer),
        serde_json::Value::String(text) => Cell::Text(text.clone()),
        other => Cell::Text(other.to_string()),
    }
}
