//! SQL of the queue's messages: take, acknowledge, mark, depth. Those that come back are put there by `books`. Takes a client inside (or outside) a step's
//! transaction; knows nothing of the replica.

use crate::core::error::{Error, Result};
use crate::core::message::MarkedKey;
use crate::core::position::{Lsn, Provenance};
use crate::core::queue_name::QueueName;
use crate::postgres::Client;
use futures_util::TryStreamExt;
use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;
use std::time::SystemTime;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

/// Most messages taken at once: enough that fixed costs vanish.
pub(crate) const TAKE_MESSAGES: i64 = 10_000;

/// Messages of the first take. Messages may be large, and each is looked at before the bytes are cut,
/// so the number grows only while they are small.
pub(crate) const FIRST_TAKE_MESSAGES: i64 = 1_000;

/// Bytes of messages of one step, as stored.
pub const TAKE_BYTES: i64 = 4 * 1024 * 1024;

/// Keys of one message, as the capture triggers make them.
const MARKED_KEYS: usize = 500;

/// Most messages that are counted where about how many is enough: some milliseconds.
const COUNTED: i64 = 10_000;

/// What begins a look at a queue outside of a step. Postgres itself has to give up: a connection that is dropped
/// while it waits for a lock goes on waiting, and who asks again and again piles them up. Without a `begin`, an
/// error leaves no transaction behind.
const BOUNDED: &str = "set local lock_timeout = '1s'; set local statement_timeout = '1500ms'; ";

/// True, and tells the queue's guard that this transaction takes for the worker. Nothing that somebody has set for a
/// database, a role or a session says so.
const OURS: &str = "(select pg_catalog.set_config('pgflume.takes', pg_catalog.pg_current_xact_id()::pg_catalog.text, true)) is not null";

/// True within the transaction that was begun, and in no other: a take may be sent before its beginning was answered.
const BEGUN: &str = "(select pg_catalog.current_setting('pgflume.begun', true)) operator(pg_catalog.=) $8";

/// A message larger than this when stored, or compressed, has its size taken unpacked.
const COMPRESSED_BYTES: i64 = 2000;

/// One message.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its id.
    pub msg_id: i64,
    /// Its JSON; `None` for SQL NULL.
    pub text: Option<String>,
    /// It held what is no UTF-8, which the text has replaced.
    pub is_damaged: bool,
    /// How long it was on the queue when it was taken, in seconds; 0 where nobody asks.
    pub age_seconds: f64,
}

impl Taken {
    fn of(msg_id: i64, bytes: Option<&[u8]>) -> Self {
        let text = bytes.map(String::from_utf8_lossy);
        let is_damaged = matches!(&text, Some(Cow::Owned(_)));
        Self { msg_id, text: text.map(Cow::into_owned), is_damaged, age_seconds: 0.0 }
    }
}

/// The message as bytes: in a SQL_ASCII database a text need not be one of any encoding.
const BYTES: &str = "pg_catalog.convert_to(message, case pg_catalog.current_setting('server_encoding')
                         when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end::pg_catalog.name)";

/// Messages that wait for a table.
#[derive(Debug, Default)]
pub struct Paused<'a> {
    /// Tables whose marks stay.
    pub marks: Vec<&'a str>,
    /// Those of them whose images stay too, because they count as marks.
    pub images: Vec<&'a str>,
}

/// Keeps others from truncating the queue until the step ends: it would look empty at a snapshot that is older than
/// that. To be called before the snapshot. At once, or an error (55P03): the step holds its tables.
pub async fn hold(client: &Client, queue: &QueueName) -> Result<()> {
    let sql = format!("lock table {} in row exclusive mode nowait", queue.table());
    client.batch_execute(&sql).await.map_err(Error::from)
}

/// Waits until [`hold`] can have its lock, for so long and outside of any transaction.
pub async fn wait_for(client: &Client, queue: &QueueName, wait: Duration) -> Result<()> {
    let (table, ms) = (queue.table(), wait.as_millis().max(1));
    let sql = format!("set local lock_timeout = {ms}; lock table {table} in row exclusive mode");
    client.batch_execute(&sql).await.map_err(Error::from)
}

/// What to take.
#[derive(Debug, Clone, Copy)]
pub struct Take<'a> {
    /// Up to this id the step has taken all that it wants: its index entries need not be walked again.
    pub after: i64,
    /// What stays.
    pub paused: &'a Paused<'a>,
    /// Most messages.
    pub limit: i64,
    /// Whether they stay in `pgflume.kept`.
    pub keeps: bool,
    /// Whether texts come as bytes: one of them is no UTF-8.
    pub as_bytes: bool,
    /// Bytes beyond which a message is not fetched.
    pub most_bytes: i64,
}

/// What was taken.
#[derive(Debug, Default)]
pub struct TakenMessages {
    /// The messages, in any order.
    pub messages: Vec<Taken>,
    /// Whether more could be taken at this snapshot.
    pub has_more: bool,
    /// Up to where WAL is on disk: its beginning where standbys have to have it, too, as only a commit tells.
    pub flushed_to: Lsn,
    /// Messages that are too large, and came without their text.
    pub large: Vec<i64>,
}

/// Takes the oldest messages by deleting them, whatever their visibility timeout, at most [`TAKE_BYTES`]. `read` is
/// called with each while Postgres is at the next.
pub async fn take(
    client: &Client,
    queue: &QueueName,
    take: Take<'_>,
    mut read: impl FnMut(&Taken) + Send,
) -> Result<TakenMessages> {
    if !client.is_open() {
        return Err(Error::halt("a defect of pgflume: messages are taken within a step only; nothing was taken"));
    }
    let paused = take.paused;
    let sql = take_sql(queue, &take);
    let parameters = [
        (&take.limit as _, Type::INT8),
        (&TAKE_BYTES as _, Type::INT8),
        (&paused.marks as _, Type::TEXT_ARRAY),
        (&paused.images as _, Type::TEXT_ARRAY),
        (&queue.as_str() as _, Type::TEXT),
        (&take.after as _, Type::INT8),
        (&take.most_bytes as _, Type::INT8),
        (&client.begun() as _, Type::TEXT),
    ];
    let parameters: [(&(dyn ToSql + Sync), Type); 8] = parameters;
    let mut rows = std::pin::pin!(client.query_typed_raw(&sql, &parameters).await?);
    let mut taking = TakenMessages::default();
    while let Some(row) = rows.try_next().await? {
        let mut message = match take.as_bytes {
            true => Taken::of(row.try_get(0)?, row.try_get(1)?),
            false => Taken { msg_id: row.try_get(0)?, text: row.try_get(1)?, is_damaged: false, age_seconds: 0.0 },
        };
        let (queued, now): (Option<SystemTime>, SystemTime) = (row.try_get(5)?, row.try_get(6)?);
        let age = queued.and_then(|queued| now.duration_since(queued).ok());
        message.age_seconds = age.unwrap_or_default().as_secs_f64();
        if taking.messages.is_empty() {
            taking.large = row.try_get::<_, Option<_>>(4)?.unwrap_or_default();
        }
        read(&message);
        taking.messages.push(message);
        taking.has_more = row.try_get(2)?;
        taking.flushed_to = row.try_get::<_, Option<&str>>(3)?.and_then(Lsn::parse).unwrap_or_default();
    }
    Ok(taking)
}

/// Its parameters: limit, bytes, paused tables of marks and of images, queue, the last id taken so far, bytes of one,
/// what the transaction was begun with.
fn take_sql(queue: &QueueName, take: &Take<'_>) -> String {
    let table = queue.table();
    let filter = if take.paused.marks.is_empty() {
        "coalesce($3, $4::pg_catalog.text[]) is not null"
    } else {
        "not (message ? 'v' and message->>'table' = any($3) or message->>'table' = any($4)) is true"
    };
    // A range of ids is deleted in half the time of a list. Sums over each message are only looked at where all
    // are too many bytes.
    format!(
        "with first as materialized (
             select msg_id, case when pg_catalog.pg_column_size(message) > {COMPRESSED_BYTES} or pg_catalog.pg_column_compression(message) is not null
                                 then pg_catalog.octet_length(message::pg_catalog.text) else coalesce(pg_catalog.pg_column_size(message), 0) end as size
             from {table} where msg_id > $6 and {filter} order by msg_id limit $1),
         last as materialized (
             select case when pg_catalog.sum(size) < $2 then pg_catalog.max(msg_id) else (
                 select pg_catalog.max(msg_id) from (select msg_id, pg_catalog.sum(size) over (order by msg_id) - size as before from first) f
                 where before < $2) end as msg_id from first),
         large as materialized (select pg_catalog.array_agg(msg_id) as ids from first where size > $7),
         gone as (delete from {table} where {OURS} and {BEGUN} and msg_id > $6 and msg_id <= (select msg_id from last) and {filter}
                  returning msg_id, case when (select ids from large) is not null
                                           and msg_id = any((select ids from large)::pg_catalog.int8[])
                                         then null else message::pg_catalog.text end as message, enqueued_at)
         {},
         exists (select from {table} where msg_id > (select msg_id from last) and {filter}),
         (select pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text
             where pg_catalog.current_setting('synchronous_standby_names') = ''),
         (select ids from large), enqueued_at, (select pg_catalog.clock_timestamp())
         from gone where $5::pg_catalog.text is not null",
        given(take.keeps, "$5", take.as_bytes)
    )
}

/// Begins to give the messages in `gone`, and keeps them with the position of the replica at which they are taken.
fn given(keeps: bool, queue: &str, as_bytes: bool) -> String {
    let kept = format!(
        ", kept as (insert into pgflume.kept (queue, epoch, after_seq, after_token, msg_ids, messages)
                    select p.queue, p.epoch, p.seq, p.token, pg_catalog.array_agg(msg_id), pg_catalog.array_agg(message)
                    from gone, pgflume.progress p where p.queue = {queue} group by p.queue)"
    );
    let message = if as_bytes { BYTES } else { "message" };
    format!("{} select msg_id, {message}", if keeps { kept } else { String::new() })
}

fn taken(rows: &[Row]) -> Result<Vec<Taken>> {
    let taken = rows.iter().map(|row| Ok(Taken::of(row.try_get(0)?, row.try_get(1)?)));
    let mut taken = taken.collect::<Result<Vec<_>>>()?;
    taken.sort_unstable_by_key(|message| message.msg_id); // RETURNING has no order
    Ok(taken)
}

/// What the replica's ledger keeps of messages, which are sorted.
pub fn provenance<'a>(messages: impl Iterator<Item = &'a Taken>) -> Provenance {
    Provenance::of(messages.map(|m| (m.msg_id, m.text.as_deref())))
}

/// Whether all messages of `provenance` are queued, as they were when it was made.
pub async fn has(client: &Client, queue: &QueueName, provenance: &Provenance) -> Result<bool> {
    let sql = format!(
        "select msg_id, {BYTES} from (select msg_id, message::pg_catalog.text as message from {} where msg_id = any($1)) q",
        queue.table()
    );
    let rows = client.query_typed(&sql, &[(&provenance.messages, Type::INT8_ARRAY)]).await?;
    Ok(self::provenance(taken(&rows)?.iter()) == *provenance)
}

/// Makes dead letters of messages that are too large to be fetched, as they are on the server; how many.
pub async fn dead_letter_large(client: &Client, queue: &QueueName, ids: &[i64], reason: &str) -> Result<u64> {
    let letter = "pg_catalog.jsonb_build_object('reason', $2::pg_catalog.text, 'class', 'message', 'msg_id', msg_id, 'message', message)
                  || case when pg_catalog.jsonb_typeof(message->'table') = 'string' then pg_catalog.jsonb_build_object('table', message->'table') else '{}' end";
    // With a reason around it, the largest jsonb that there is would be too large.
    for letter in [letter, "message"] {
        client.batch_execute("savepoint pgflume_large").await?;
        let sql = format!(
            "with gone as (delete from {} where {OURS} and msg_id = any($1) returning msg_id, message)
             insert into {} (vt, message) select pg_catalog.clock_timestamp(), {letter} from gone where $2::pg_catalog.text is not null",
            queue.table(),
            queue.dead_table()
        );
        let done = client.execute_typed(&sql, &[(&ids, Type::INT8_ARRAY), (&reason, Type::TEXT)]).await;
        let undo = if done.is_err() { "rollback to savepoint pgflume_large; " } else { "" };
        client.batch_execute(&format!("{undo}release savepoint pgflume_large")).await?;
        match done {
            Err(e) if e.code() == Some(&SqlState::PROGRAM_LIMIT_EXCEEDED) && letter != "message" => {}
            done => return Ok(done?),
        }
    }
    Ok(0)
}

/// Marks keys of a table, in messages of at most `MARKED_KEYS` keys; how many messages.
pub async fn mark(client: &Client, queue: &QueueName, table: &str, keys: &[MarkedKey]) -> Result<i64> {
    let messages: Vec<String> = keys
        .chunks(MARKED_KEYS)
        .map(|keys| serde_json::json!({"v": 1, "table": table, "keys": keys}).to_string())
        .collect();
    let sql = format!(
        "insert into {} (vt, message) select pg_catalog.clock_timestamp(), m::pg_catalog.jsonb from pg_catalog.unnest($1::pg_catalog.text[]) m",
        queue.table()
    );
    client.execute_typed(&sql, &[(&messages, Type::TEXT_ARRAY)]).await?;
    Ok(messages.len() as i64)
}

/// Takes messages whose images the replica already has.
pub async fn acknowledge(client: &Client, queue: &QueueName, ids: &[i64], keeps: bool) -> Result<Vec<Taken>> {
    let sql = format!(
        "with gone as (delete from {} where {OURS} and msg_id = any($1) returning msg_id, message::pg_catalog.text as message) {}
         from gone where $2::pg_catalog.text is not null",
        queue.table(),
        given(keeps, "$2", true)
    );
    taken(&client.query_typed(&sql, &[(&ids, Type::INT8_ARRAY), (&queue.as_str(), Type::TEXT)]).await?)
}

/// The last id that the queue gave out.
pub async fn last_id(client: &Client, queue: &QueueName) -> Result<i64> {
    let sequence: String =
        scalar(client, "select pg_catalog.pg_get_serial_sequence($1, 'msg_id')", &queue.table()).await?;
    scalar(client, &format!("select last_value from {sequence} where $1::pg_catalog.text is not null"), queue.as_str())
        .await
}

/// Whether any message is on the queue. By the index, which forgets what is gone; the table still has it.
pub async fn has_any(client: &Client, queue: &QueueName) -> Result<bool> {
    let sql =
        format!("select msg_id from {} where $1::pg_catalog.text is not null order by msg_id limit 1", queue.table());
    Ok(!client.query_typed(&sql, &[(&queue.as_str(), Type::TEXT)]).await?.is_empty())
}

/// The same outside of any transaction. A look that takes too long passes over what is gone: a step may find out.
pub async fn peek(client: &Client, queue: &QueueName) -> Result<bool> {
    let sql = format!("select msg_id from {} order by msg_id limit 1", queue.table());
    match look::<i64>(client, &sql).await {
        Err(e) if e.code() == Some(&SqlState::QUERY_CANCELED) => Ok(true),
        first => Ok(first?.is_some()),
    }
}

/// Messages on the queue, hidden ones included; an estimate where it cannot be counted now. Outside of any
/// transaction.
pub async fn depth(client: &Client, queue: &QueueName) -> Result<i64> {
    match counted(client, queue).await? {
        Some(messages) => Ok(messages),
        // An empty one is soon counted, and callers go on until it is.
        None => Ok(estimated(client, &queue.table()).await?.max(1)),
    }
}

/// Messages on the queue, hidden ones included, and whether they were counted: few are, many are told from the
/// statistics that Postgres keeps anyway (`live_tuples`) and from the ids that the queue spans, because who looks every
/// few seconds must not read a long queue each time. Outside of any transaction.
pub async fn depth_about(client: &Client, queue: &QueueName, live_tuples: i64) -> Result<(i64, bool)> {
    if live_tuples > COUNTED {
        let sql = format!(
            "select coalesce((select msg_id from {0} order by msg_id desc limit 1) - (select msg_id from {0} order by msg_id limit 1) + 1, 0)",
            queue.table()
        );
        let about = patiently(look::<i64>(client, &sql).await)?.map_or(live_tuples, |span| span.min(live_tuples));
        if about > COUNTED {
            return Ok((about, false));
        }
    }
    Ok((depth(client, queue).await?, true))
}

/// Messages on the queue, hidden ones included; `None` where it is locked, or counting would take too long. Outside
/// of any transaction.
pub async fn counted(client: &Client, queue: &QueueName) -> Result<Option<i64>> {
    patiently(count(client, &queue.table()).await)
}

/// Dead letters; an estimate where they cannot be counted now. Outside of any transaction.
pub async fn dead_depth(client: &Client, queue: &QueueName) -> Result<i64> {
    match patiently(count(client, &queue.dead_table()).await)? {
        Some(dead_letters) => Ok(dead_letters),
        None => estimated(client, &queue.dead_table()).await,
    }
}

/// Age of the oldest message, in seconds; `None` if the queue is empty, or it cannot be found now. Outside of any
/// transaction.
pub async fn oldest_seconds(client: &Client, queue: &QueueName) -> Result<Option<f64>> {
    let age = "extract(epoch from pg_catalog.clock_timestamp() - enqueued_at)::pg_catalog.float8";
    patiently(look(client, &format!("select {age} from {} order by msg_id limit 1", queue.table())).await)
}

async fn count(client: &Client, table: &str) -> Looked<i64> {
    look(client, &format!("select pg_catalog.count(*) from {table}")).await
}

/// As Postgres last believed, without a look at the table.
async fn estimated(client: &Client, table: &str) -> Result<i64> {
    let sql = format!(
        "select greatest(reltuples, 0)::pg_catalog.int8 from pg_catalog.pg_class where oid = '{table}'::pg_catalog.regclass"
    );
    look(client, &sql).await?.ok_or_else(|| Error::retry("Postgres gave no answer"))
}

/// What a look found; nothing where it had to give up.
fn patiently<T>(looked: Looked<T>) -> Result<Option<T>> {
    match looked {
        Err(e) if matches!(e.code(), Some(&SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE)) => Ok(None),
        looked => Ok(looked?),
    }
}

/// The first value that a query gives, if any.
type Looked<T> = std::result::Result<Option<T>, tokio_postgres::Error>;

/// The first value of a query, if it gives one: waits for nobody's lock for long.
async fn look<T: FromStr>(client: &Client, sql: &str) -> Looked<T> {
    let messages = client.simple_query(&format!("{BOUNDED}{sql}")).await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    }))
}

/// The one value of a query with one parameter.
pub(crate) async fn scalar<T>(client: &Client, sql: &str, parameter: &str) -> Result<T>
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    let rows = client.query_typed(sql, &[(&parameter, Type::TEXT)]).await?;
    let row = rows.first().ok_or_else(|| Error::retry("Postgres gave no answer"))?;
    Ok(row.try_get(0)?)
}
