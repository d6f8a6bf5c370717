//! All SQL of the dead letters: what could not be understood, read or applied, and waits for somebody to look
//! at it. Takes a client; knows nothing of the replica.

use crate::config::QueueName;
use crate::error::{Error, Result};
use crate::queue::scalar;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// A change that waits for somebody to look at it.
#[derive(Debug, Serialize)]
pub struct DeadLetter {
    /// What is wrong, with the mend; no row values.
    pub reason: String,
    /// `message`, `value`, `source` or `target`: which part refused it.
    pub class: &'static str,
    /// The table, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The marked key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<Option<String>>>,
    /// The message's id in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg_id: Option<i64>,
    /// The whole message, where the key alone is not enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<RawValue>>,
}

/// Puts dead letters on their queue, in the step's transaction. A key that waits there for the same reason
/// is not told twice.
pub async fn bury(client: &Client, queue: &QueueName, letters: &[DeadLetter]) -> Result<()> {
    if letters.is_empty() {
        return Ok(());
    }
    let texts = letters
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::retry(format!("a dead letter cannot be written: {e}")))?;
    let sql = format!(
        "insert into {dead} (vt, message) select clock_timestamp(), t::jsonb
         from (select t, min(i) as first from unnest($1::text[]) with ordinality u(t, i) group by t) u
         where not t::jsonb ? 'key' or (t::jsonb->>'table', t::jsonb->>'key', t::jsonb->>'reason') not in (
             select message->>'table', message->>'key', message->>'reason' from {dead}
             where message ? 'key' and message ? 'table' and message ? 'reason')
         order by first",
        dead = queue.dead_table()
    );
    client.execute_typed(&sql, &[(&texts, Type::TEXT_ARRAY)]).await?;
    Ok(())
}

/// A dead letter, as far as it tells a key.
#[derive(Debug)]
pub enum Dead {
    /// A key as it was marked.
    Key(Vec<String>),
    /// A key as the target has it, which refused its row.
    Target(Vec<String>),
    /// A whole message.
    Message(String),
}

/// All dead letters that tell a key of `table`.
pub async fn of_table(client: &Client, queue: &QueueName, table: &str) -> Result<Vec<Dead>> {
    let sql = format!(
        "select message->>'class' = 'target', message->>'message',
                array(select coalesce(k, '') from jsonb_array_elements_text(
                    case when jsonb_typeof(message->'key') = 'array' then message->'key' else '[]' end) k)
         from {} where message->>'table' = $1 and (jsonb_typeof(message->'key') = 'array' or message ? 'message')",
        queue.dead_table()
    );
    let rows = client.query_typed(&sql, &[(&table, Type::TEXT)]).await?;
    let dead = |row: &tokio_postgres::Row| {
        let (is_target, message): (Option<bool>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        Ok(match (message, is_target) {
            (Some(text), _) => Dead::Message(text),
            (None, Some(true)) => Dead::Target(row.try_get(2)?),
            (None, _) => Dead::Key(row.try_get(2)?),
        })
    };
    rows.iter().map(dead).collect()
}

/// Dead letters.
pub async fn depth(client: &Client, queue: &QueueName) -> Result<i64> {
    let sql = format!("select count(*) from {} where $1::text is not null", queue.dead_table());
    scalar(client, &sql, queue.as_str()).await
}
