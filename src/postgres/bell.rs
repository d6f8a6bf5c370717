//! How a follower that sleeps is told. A NOTIFY in each commit would make writers wait for each other, so whoever puts
//! something on the queue (the trigger of `sql/bell.sql`) rings only while the follower sleeps, which he sees by a lock:
//! the follower takes it alone before it sleeps, a writer shared until his transaction can be seen. So no ring is lost:
//! a writer who found it awake keeps it awake, since it does not get the lock until he has ended; then it looks, and
//! sees what he wrote.
//!
//! A writer who does not end would have it look for as long. So behind one, it waits for the lock on a second connection:
//! where somebody waits for it alone, nobody gets it shared any more, and whoever comes rings; when he ends, the wait does.
//! Behind two, the end of the first would not be noticed: then it looks.

use super::Client;
use super::queue;
use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::Type;

/// The first half of the lock's key: "pgfl".
pub(crate) const CLASS: i32 = 0x7067_666c;

/// The oldest version that tells of what any transaction notified, whoever ran it.
const OLDEST: i32 = 150_000;

/// The second half: a queue's.
pub(crate) fn key(queue: &QueueName) -> i32 {
    let digest = Sha256::digest(queue.as_str());
    i32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// What is listened to.
pub(crate) fn channel(queue: &QueueName) -> String {
    format!("pgflume_{}", queue.as_str())
}

/// Postgres ends a session that has slept if nothing is heard of it for so long: the follower was stopped, or its
/// connection is dead, and every writer would ring for nothing. Longer than between two whole steps, or two looks.
const SILENCE: &str = "30s";

/// The longest wait behind a writer, where `deadlock_timeout` is longer: all who write ring meanwhile, though the follower
/// may be gone. Less than the patience of its connection.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Time for the second connection to begin to wait.
const QUEUEING: Duration = Duration::from_millis(200);

/// How a follower of a queue hears of what comes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Wakeup {
    /// Why nobody rings, so that it looks; `None`: it is told, if its connection is no transaction pooler's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looks_because: Option<String>,
    /// One sleeps now.
    pub is_asleep: bool,
    /// Seconds since the oldest transaction began that keeps it awake, or that it sleeps behind: it has put something on the
    /// queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_awake_seconds: Option<f64>,
}

/// Asks for it.
pub(crate) async fn status(client: &Client, queue: &QueueName) -> Result<Wakeup> {
    let (table, key) = (queue.table(), key(queue));
    let parameters = [(&table as _, Type::TEXT), (&CLASS as _, Type::INT4), (&key as _, Type::INT4)];
    let row = client.query_typed_one(include_str!("../../sql/bell_status.sql"), &parameters).await?;
    let (is_old, prepares, has_bell, may_ring) = (
        row.try_get::<_, i32>(0)? < OLDEST,
        row.try_get::<_, bool>(1)?,
        row.try_get::<_, bool>(2)?,
        row.try_get::<_, bool>(3)?,
    );
    let because = match () {
        () if is_old => Some("this version of Postgres does not tell of every notification"),
        () if prepares => Some("max_prepared_transactions is not 0: a transaction that notifies cannot be prepared"),
        () if !has_bell => Some("the queue has no bell: run `pgflume setup`"),
        () if !may_ring => Some("pgflume_capture may not call pg_notify or pg_try_advisory_xact_lock_shared"),
        () => None,
    };
    let (is_asleep, kept_awake_seconds) = (row.try_get(4)?, row.try_get(5)?);
    Ok(Wakeup { looks_because: because.map(str::to_owned), is_asleep, kept_awake_seconds })
}

/// Listens, unless nobody could ring; whether it does.
pub(crate) async fn listen(client: &Client, queue: &QueueName) -> Result<bool> {
    if status(client, queue).await?.looks_because.is_some() {
        return Ok(false);
    }
    client.batch_execute(&format!("listen \"{}\"", channel(queue))).await?;
    Ok(true)
}

/// Whether the session of a transaction now is the one that listens.
pub(crate) async fn is_listening(client: &Client, queue: &QueueName) -> Result<bool> {
    let sql = "select exists (select from pg_catalog.pg_listening_channels() c where c operator(pg_catalog.=) $1)";
    Ok(client.query_typed_one(sql, &[(&channel(queue), Type::TEXT)]).await?.try_get(0)?)
}

/// Rings by hand.
pub(crate) async fn ring(client: &Client, queue: &QueueName, word: &str) -> Result<()> {
    let channel = channel(queue);
    let parameters = [(&channel as _, Type::TEXT), (&word as _, Type::TEXT)];
    client.query_typed("select pg_catalog.pg_notify($1, $2)", &parameters).await?;
    Ok(())
}

/// What came of falling asleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doze {
    /// Whoever puts something on the queue from now on rings.
    Asleep,
    /// Something is there.
    Found,
    /// Nothing can be seen; but a writer is at work, another worker sleeps, or nobody could ring.
    Refused,
}

/// Falls asleep: takes the lock without waiting, and then looks once more.
pub(crate) async fn doze(client: &Client, queue: &QueueName) -> Result<Doze> {
    // Whoever has rung until now has committed: the look sees it.
    client.hush();
    let (key, may_ring) = (key(queue), may_ring(queue));
    let lock = format!(
        "select pg_catalog.set_config('idle_session_timeout', '{SILENCE}', false)
         from (select pg_catalog.pg_try_advisory_lock({CLASS}, {key}) as is_alone where {may_ring} offset 0) l where l.is_alone"
    );
    // Both are sent at once, and are transactions of their own: the look has a later snapshot.
    let (locked, found) = futures_util::join!(client.simple_query(&lock), queue::peek(client, queue));
    let is_alone = locked?.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_)));
    if is_alone && !matches!(found, Ok(false)) {
        rouse(client, queue);
    }
    Ok(match (found?, is_alone) {
        (true, _) => Doze::Found,
        (false, true) => Doze::Asleep,
        (false, false) => Doze::Refused,
    })
}

/// Wakes up: gives the lock back. Nobody waits for the answer, what comes next is behind it.
pub(crate) fn rouse(client: &Client, queue: &QueueName) {
    let key = key(queue);
    client.send(&format!("select pg_catalog.pg_advisory_unlock({CLASS}, {key})"));
}

/// Waits for the lock behind a writer; whether it came. It is given back at once. Never as long as `deadlock_timeout`: who
/// closes a circle then is ended by Postgres, and that may be a user's migration; and its log tells of longer waits.
pub(crate) async fn wait_behind(client: &Client, queue: &QueueName) -> Result<bool> {
    let (key, longest) = (key(queue), LONGEST_WAIT.as_millis());
    // Caught, so that no error is logged. Who has it gets it once more.
    let sql = format!(
        "do $wait$ begin
             perform pg_catalog.set_config('lock_timeout', least(750 * extract(epoch from
                 pg_catalog.current_setting('deadlock_timeout')::pg_catalog.interval), {longest})::pg_catalog.int4::pg_catalog.text, true);
             perform pg_catalog.pg_advisory_xact_lock({CLASS}, {key});
         exception when lock_not_available or query_canceled then null;
         end $wait$;
         select from (select pg_catalog.pg_try_advisory_xact_lock({CLASS}, {key}) as has_it offset 0) l where l.has_it"
    );
    let answer = client.simple_query(&sql).await?;
    Ok(answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))))
}

/// What others know this connection by while it waits; `None` where nobody would ring. For all waits until the next step:
/// one who sleeps alone does not ask again, either.
pub(crate) async fn waiter(client: &Client, queue: &QueueName) -> Result<Option<i32>> {
    let sql = format!("select pg_catalog.pg_backend_pid() where {}", may_ring(queue));
    Ok(client.query_typed(&sql, &[]).await?.pop().map(|row| row.try_get(0)).transpose()?)
}

/// Falls asleep, once the connection `waiter` waits behind one writer and nobody else: looks once more.
pub(crate) async fn doze_behind(client: &Client, queue: &QueueName, waiter: i32) -> Result<Doze> {
    client.hush();
    let begun = Instant::now();
    let is_behind_one = loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let ahead = "select pg_catalog.cardinality(pg_catalog.pg_blocking_pids($1))";
        match client.query_typed_one(ahead, &[(&waiter as _, Type::INT4)]).await?.try_get::<_, i32>(0)? {
            0 if begun.elapsed() < QUEUEING => {}
            ahead => break ahead == 1,
        }
    };
    Ok(match queue::peek(client, queue).await? {
        true => Doze::Found,
        false if is_behind_one => Doze::Asleep,
        false => Doze::Refused,
    })
}

/// Ends the wait of `waiter`. Nobody waits for the answer.
pub(crate) fn call_off(client: &Client, waiter: i32) {
    client.send(&format!(
        "select pg_catalog.pg_cancel_backend(l.pid) from pg_catalog.pg_locks l where l.pid operator(pg_catalog.=) {waiter} and l.locktype operator(pg_catalog.=) 'advisory' and not l.granted"
    ));
}

/// Whether whoever puts something on the queue would ring, as an expression.
fn may_ring(queue: &QueueName) -> String {
    format!(
        "pg_catalog.current_setting('max_prepared_transactions') = '0' and exists (
             select from pg_catalog.pg_trigger g join pg_catalog.pg_proc p on p.oid = g.tgfoid
             join pg_catalog.pg_namespace n on n.oid = p.pronamespace
             where g.tgrelid = pg_catalog.to_regclass('{}') and g.tgname = 'pgflume_bell' and g.tgenabled = 'A'
                 and n.nspname = 'pgflume' and p.proname = 'ring'
                 and pg_catalog.has_function_privilege(p.proowner, 3036::pg_catalog.oid, 'execute')
                 and pg_catalog.has_function_privilege(p.proowner, 3096::pg_catalog.oid, 'execute'))",
        queue.table()
    )
}
