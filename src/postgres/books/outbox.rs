//! Events that wait to be delivered, written in the transaction of what they tell of.

use crate::core::error::Result;
use crate::core::event::{Event, MOST_WAITING, Waiting};
use crate::core::queue_name::QueueName;
use crate::postgres::{Client, iso_text};
use serde_json::Value;
use tokio_postgres::types::Type;

/// Adds events, in the transaction at hand if there is one.
pub(crate) async fn add(client: &Client, queue: &QueueName, events: &[Event]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let (kinds, data): (Vec<&str>, Vec<String>) =
        events.iter().map(|event| (event.kind, event.data.to_string())).unzip();
    let sql = "insert into pgflume.events (queue, type, data)
               select $1, e.type, e.data from rows from (pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[])) e(type, data)";
    let parameters =
        [(&queue.as_str() as _, Type::TEXT), (&kinds as _, Type::TEXT_ARRAY), (&data as _, Type::TEXT_ARRAY)];
    client.execute_typed(sql, &parameters).await?;
    Ok(())
}

/// The oldest events of a queue, at most `limit`.
pub(crate) async fn oldest(client: &Client, queue: &QueueName, limit: i64) -> Result<Vec<Waiting>> {
    let sql = format!(
        "select id, {}, type, data, uid::pg_catalog.text from pgflume.events where queue = $1 order by id limit $2",
        iso_text("at")
    );
    let rows = client.query_typed(&sql, &[(&queue.as_str(), Type::TEXT), (&limit, Type::INT8)]).await?;
    let waiting = |row: &tokio_postgres::Row| {
        let data: &str = row.try_get(3)?;
        let data = serde_json::from_str(data).unwrap_or(Value::Null); // we wrote it
        Ok(Waiting { id: row.try_get(0)?, at: row.try_get(1)?, kind: row.try_get(2)?, data, uid: row.try_get(4)? })
    };
    rows.iter().map(waiting).collect()
}

/// This one has arrived.
pub(crate) async fn delivered(client: &Client, id: i64) -> Result<()> {
    client.execute_typed("delete from pgflume.events where id = $1", &[(&id, Type::INT8)]).await?;
    Ok(())
}

/// Forgets the oldest where far too many wait; how many.
pub(crate) async fn prune(client: &Client, queue: &QueueName) -> Result<u64> {
    let sql = "delete from pgflume.events where queue = $1 and id <= (
                   select id from pgflume.events where queue = $1 order by id desc offset $2 limit 1)";
    Ok(client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT), (&MOST_WAITING, Type::INT8)]).await?)
}
