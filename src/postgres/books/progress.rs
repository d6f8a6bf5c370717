//! All SQL of `pgflume.progress`, the row beside the queue whose lock is the single flight: how far the replica
//! is, as acknowledged, and what this Postgres is. Takes a client; knows nothing of messages.

use crate::core::error::{Error, Result};
use crate::core::position::{Entry, Fate, Head, Identity, Progress};
use crate::core::queue_name::QueueName;
use crate::core::token::Seen;
use crate::postgres::installing::{SCHEMA, guarded};
use crate::postgres::iso_text;
use crate::postgres::queue::scalar;
use crate::postgres::{Client, Parameters, queue};
use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// The version of `sql/bookkeeping.sql`, which its last statement puts into the comment on the schema.
const BOOKKEEPING: u32 = 7;

/// What the comment on the schema says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bookkeeping {
    /// The version that made it.
    version: u32,
    /// The oldest version that may still use it.
    oldest: u32,
}

impl Bookkeeping {
    /// Reads `pgflume, bookkeeping 7, for 5 and later`.
    fn parse(comment: &str) -> Option<Self> {
        let rest = comment.strip_prefix("pgflume, bookkeeping ")?;
        let (version, oldest) = rest.split_once(", for ").unwrap_or((rest, "0 and later"));
        let oldest = oldest.strip_suffix(" and later")?;
        Some(Self { version: version.parse().ok()?, oldest: oldest.parse().ok()? })
    }
}

/// The step's snapshot, with the progress row locked.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What was acknowledged.
    pub progress: Progress,
    /// What this Postgres is now.
    pub identity: Identity,
    /// What a replica of this queue says that it belongs to: `core::reconcile::Owner`.
    pub owner: String,
    /// This transaction (xid8).
    pub xid: String,
    /// WAL insert position when the snapshot was taken: all that it sees lies before.
    pub lsn: String,
    /// Its time: UTC, `2026-11-29T18:00:00.123Z`.
    pub at: String,
    /// Which transactions it sees; `None` where that cannot be told.
    pub seen: Option<Seen>,
    /// Calls of other processes that found this queue busy.
    pub calls: i64,
    /// Whether tables wait to be rebuilt.
    pub is_rebuilding: bool,
    /// How many dead letters wait, and the id of the last.
    pub dead: Vec<i64>,
    /// Whether others have taken messages off the queue.
    pub has_losses: bool,
    /// The definitions by which the last worker kept the replica.
    pub definition_version: Option<String>,
}

/// What is there beside the queue.
struct There {
    has_queue: bool,
    has_dead: bool,
    books: Option<Bookkeeping>,
}

impl There {
    async fn ask(client: &Client, queue: &QueueName) -> Result<Self> {
        let sql = "select pg_catalog.to_regclass($1) is not null, pg_catalog.to_regclass($2) is not null,
                          pg_catalog.obj_description(pg_catalog.to_regnamespace('pgflume'), 'pg_namespace')";
        let row = client
            .query_typed(sql, &[(&queue.table(), Type::TEXT), (&queue.dead_table(), Type::TEXT)])
            .await?
            .pop()
            .ok_or_else(|| Error::retry("Postgres gave no answer"))?;
        let books = row.try_get::<_, Option<&str>>(2)?.and_then(Bookkeeping::parse);
        Ok(Self { has_queue: row.try_get(0)?, has_dead: row.try_get(1)?, books })
    }

    /// Whether this version keeps its books there.
    fn has_books(&self) -> bool {
        self.books.as_ref().is_some_and(|books| books.oldest <= BOOKKEEPING && books.version >= BOOKKEEPING)
    }
}

/// Whether nothing is missing beside the queue; an error where somebody has made what it relies on.
pub(crate) async fn is_ensured(client: &Client, queue: &QueueName) -> Result<bool> {
    refuse_strangers(client, queue).await?;
    let there = There::ask(client, queue).await?;
    Ok(there.has_queue && there.has_dead && there.has_books() && has_row(client, queue).await?)
}

/// Creates what is missing beside the queue: bookkeeping and the dead-letter queue.
pub async fn ensure(client: &Client, queue: &QueueName) -> Result<()> {
    refuse_strangers(client, queue).await?;
    let there = There::ask(client, queue).await?;
    if there.books.as_ref().is_some_and(|books| books.oldest > BOOKKEEPING) {
        return Err(Error::halt(
            "a newer version of pgflume keeps its books in this database, in a way that this version cannot read: run that version, or a newer one",
        ));
    }
    if !there.has_queue {
        let name = queue.as_str();
        return Err(Error::halt(format!(
            "the queue {name} does not exist: run `pgflume setup`, or select pgmq.create('{name}'), or correct QUEUE_NAME"
        )));
    }
    if !there.has_books() {
        create_books(client).await?;
    }
    if !there.has_dead {
        create(client, &format!("select pgmq.create('{}');", queue.dead())).await?;
    }
    if !has_row(client, queue).await? {
        let sql = "insert into pgflume.progress (queue) values ($1) on conflict do nothing";
        client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?;
    }
    Ok(())
}

async fn create_books(client: &Client) -> Result<()> {
    create(client, include_str!("../../../sql/bookkeeping.sql")).await.map_err(|e| match e.sqlstate() {
        Some("42501") => Error::halt(
            "this version keeps more in Postgres than the last one, and this role may not make it: run `pgflume setup` of this version as the owner",
        ),
        _ => e,
    })
}

/// Whether there is the row whose lock is the single flight.
async fn has_row(client: &Client, queue: &QueueName) -> Result<bool> {
    let sql = "select 1 from pgflume.progress where queue = $1";
    Ok(!client.query_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?.is_empty())
}

/// Tries to create what another one is creating at this very moment.
const CREATIONS: u32 = 5;

/// What `sql/ours.sql` raises: the words are its own.
const STRANGERS: &str = "PF002";

fn of_strangers(error: &tokio_postgres::Error) -> Error {
    let db = error.as_db_error();
    let (words, remedy) = (db.map_or("", |db| db.message()), db.and_then(|db| db.hint()).unwrap_or_default());
    Error::halt(format!("{words}; {remedy}"))
}

/// Creates what is missing. What the installations wait for each other by has to be made first, and whoever makes it a
/// moment later than another finds that it is there.
async fn create(client: &Client, sql: &str) -> Result<()> {
    let mut tries = 1;
    loop {
        match client.batch_execute(&exclusively(sql)).await {
            Err(e) if e.code() == Some(&SqlState::UNIQUE_VIOLATION) && tries < CREATIONS => tries += 1,
            Err(e) if e.code().is_some_and(|code| code.code() == STRANGERS) => return Err(of_strangers(&e)),
            done => return Ok(done?),
        }
    }
}

/// Refuses what could run as the worker and was made by somebody whom it has no reason to trust.
async fn refuse_strangers(client: &Client, queue: &QueueName) -> Result<()> {
    let parameters: Parameters<'_> = &[(&queue.table(), Type::TEXT), (&queue.dead_table(), Type::TEXT)];
    let found = client.query_typed_one(include_str!("../../../sql/strangers.sql"), parameters).await?;
    match found.try_get::<_, Option<String>>(0)? {
        None => Ok(()),
        Some(strangers) => Err(Error::halt(format!(
            "this could run as the worker, and belongs to a role that is neither the worker's, nor the database's owner, nor a superuser: {}; look at what it is, then drop it or hand it over (alter ... owner to ...)",
            strangers.escape_debug()
        ))),
    }
}

/// Two workers that meet a new queue at once must not both create; `if not exists` alone races. Postgres itself gives
/// up: whoever asked may be gone, and what is locked here stops every worker.
fn exclusively(sql: &str) -> String {
    format!(
        "set local lock_timeout = '5s'; set local statement_timeout = '60s'; \
         {SCHEMA}{}",
        guarded(sql)
    )
}

/// Takes the single flight: the snapshot with the progress row locked, or `None` if somebody has it. `source`: which
/// Postgres this is, where the session was told already.
pub async fn lock(client: &Client, queue: &QueueName, source: Option<&str>) -> Result<Option<Snapshot>> {
    match read(client, queue, source, "for update nowait").await {
        Err(e) if e.is_locked() => Ok(None),
        other => other.map(Some),
    }
}

/// The same by a look without the lock: it may be over when it is read. Whoever rewrites a table is not waited for
/// long, so that nobody is left waiting at the server when its caller has given up.
pub async fn look(client: &Client, queue: &QueueName) -> Result<Snapshot> {
    if client.is_open() {
        return read(client, queue, None, "").await; // the transaction has its own limits
    }
    client.begin("", "set local lock_timeout = '2s'; set local statement_timeout = '10s'").await?;
    let snapshot = read(client, queue, None, "").await;
    client.rollback().await?;
    snapshot
}

async fn read(client: &Client, queue: &QueueName, source: Option<&str>, lock: &str) -> Result<Snapshot> {
    let sql = format!(
        "
        select p.epoch, p.seq, p.token, p.next_epoch, p.source_id, p.queue_id,
               coalesce($3, (select (select system_identifier from pg_catalog.pg_control_system())::pg_catalog.text || '/' ||
                   pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8) || '/' ||
                   (select oid::pg_catalog.text from pg_catalog.pg_database where datname = pg_catalog.current_database()))),
               $2::pg_catalog.regclass::pg_catalog.oid,
               pg_catalog.pg_current_xact_id()::pg_catalog.text,
               pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text,
               {},
               coalesce((select w.calls from pgflume.wakeup w where w.queue = p.queue), 0),
               exists (select from pgflume.resyncs r where r.queue = p.queue and r.phase <> 'done'),
               p.address,
               case when exists (select from pgflume.shapes s where s.queue = p.queue) then p.shape end, pg_catalog.array_remove(p.past_epochs, null),
               exists (select from pgflume.losses l where l.queue = p.queue), p.next_refills, pg_catalog.current_database(),
               array[0, coalesce((select pg_catalog.max(msg_id) from {}), 0)],
               pg_catalog.pg_current_snapshot()::pg_catalog.text
        from pgflume.progress p where p.queue = $1 {lock}",
        iso_text("pg_catalog.clock_timestamp()"),
        queue.dead_table()
    );
    let parameters: Parameters<'_> =
        &[(&queue.as_str(), Type::TEXT), (&queue.table(), Type::TEXT), (&source, Type::TEXT)];
    let rows = client.query_typed(&sql, parameters).await?;
    let row = rows.first().ok_or_else(|| Error::retry("the progress row is not there yet; it will be tried again"))?;
    snapshot(queue, row)
}

/// What `row` says, as `read` has asked for it.
fn snapshot(queue: &QueueName, row: &Row) -> Result<Snapshot> {
    let epoch: Option<String> = row.try_get(0)?;
    let head = match epoch {
        Some(epoch) => Some(Head { epoch, seq: row.try_get(1)?, token: row.try_get(2)? }),
        None => None,
    };
    let source: String = row.try_get(6)?;
    let identity = Identity { source, queue: row.try_get(7)? };
    let (system, database) = match identity.parts()[..] {
        [system, _, database] => (system.to_owned(), database.to_owned()),
        _ => return Err(Error::retry("Postgres gave no identity")),
    };
    let paired = (row.try_get::<_, Option<String>>(4)?, row.try_get::<_, Option<u32>>(5)?);
    Ok(Snapshot {
        progress: Progress {
            head,
            next_epoch: row.try_get(3)?,
            paired_with: match paired {
                (Some(source), Some(queue)) => Some(Identity { source, queue }),
                _ => None,
            },
            address: row.try_get(13)?,
            refills: row.try_get(17)?,
            past_epochs: row.try_get(15)?,
        },
        identity,
        xid: row.try_get(8)?,
        lsn: row.try_get(9)?,
        at: row.try_get(10)?,
        calls: row.try_get(11)?,
        is_rebuilding: row.try_get(12)?,
        definition_version: row.try_get(14)?,
        has_losses: row.try_get(16)?,
        owner: format!("{system}-{database}/{}/{}", queue.as_str(), row.try_get::<_, &str>(18)?),
        dead: row.try_get(19)?,
        seen: Seen::parse(row.try_get(20)?).map(Seen::bounded),
    })
}

/// Waits for the single flight, as long as the transaction's `lock_timeout` allows.
pub async fn wait_for_lock(client: &Client, queue: &QueueName) -> Result<()> {
    let sql = "select 1 from pgflume.progress where queue = $1 for update";
    client.query_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?;
    Ok(())
}

/// Leaves a note for the drain that holds the queue.
pub async fn wake(client: &Client, queue: &QueueName) -> Result<()> {
    let sql = "insert into pgflume.wakeup as w (queue, calls) values ($1, 1)
               on conflict (queue) do update set calls = w.calls + 1";
    client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?;
    Ok(())
}

/// The notes left so far.
pub async fn calls(client: &Client, queue: &QueueName) -> Result<i64> {
    let sql = "select coalesce((select calls from pgflume.wakeup where queue = $1), 0)";
    scalar(client, sql, queue.as_str()).await
}

/// Moves the progress to `head`; the step's commit makes it and the taken messages final.
pub async fn advance(
    client: &Client,
    queue: &QueueName,
    head: &Head,
    identity: &Identity,
    caught_up: bool,
) -> Result<()> {
    let sql =
        "update pgflume.progress set epoch = $2, seq = $3, token = $4, source_id = $6, synced_at = pg_catalog.now(),
               caught_up_at = case when $5 then pg_catalog.now() else caught_up_at end where queue = $1";
    let parameters = [
        (&queue.as_str() as _, Type::TEXT),
        (&head.epoch as _, Type::TEXT),
        (&head.seq as _, Type::INT8),
        (&head.token as _, Type::TEXT),
        (&caught_up as _, Type::BOOL),
        (&identity.source as _, Type::TEXT),
    ];
    client.execute_typed(sql, &parameters).await?;
    Ok(())
}

/// Remembers the id of a signed request; `false` if it was used before. Ids older than their
/// signatures can be are forgotten.
pub async fn redeem(client: &Client, id: &str) -> Result<bool> {
    client.execute_typed("delete from pgflume.redeemed where at < pg_catalog.now() - interval '1 hour'", &[]).await?;
    let sql = "insert into pgflume.redeemed (id) values ($1) on conflict do nothing";
    Ok(client.execute_typed(sql, &[(&id, Type::TEXT)]).await? == 1)
}

/// Whether a signed request was used before.
pub async fn is_redeemed(client: &Client, id: &str) -> Result<bool> {
    scalar(client, "select exists (select from pgflume.redeemed where id = $1)", id).await
}

/// Announces an epoch, before the replica at `address` learns of it. `refills`: its tables are filled from Postgres.
pub async fn announce(client: &Client, queue: &QueueName, epoch: &str, address: &str, refills: bool) -> Result<()> {
    let sql = "update pgflume.progress set next_epoch = $2, address = $3, next_refills = $4 where queue = $1";
    let parameters = [
        (&queue.as_str() as _, Type::TEXT),
        (&epoch as _, Type::TEXT),
        (&address as _, Type::TEXT),
        (&refills as _, Type::BOOL),
    ];
    client.execute_typed(sql, &parameters).await?;
    Ok(())
}

/// Remembers where the replica is.
pub async fn move_to(client: &Client, queue: &QueueName, address: &str) -> Result<()> {
    let sql = "update pgflume.progress set address = $2 where queue = $1";
    client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT), (&address, Type::TEXT)]).await?;
    Ok(())
}

/// Remembers what was noticed about the two sides, for `status`.
pub async fn note_healing(client: &Client, queue: &QueueName, divergence: &str) -> Result<()> {
    let sql = "update pgflume.progress set healed_at = pg_catalog.now(), healed_from = $2 where queue = $1";
    client.execute_typed(sql, &[(&queue.as_str(), Type::TEXT), (&divergence, Type::TEXT)]).await?;
    Ok(())
}

/// Pairs the queue with the replica at `head` and `address`.
pub async fn pair(client: &Client, queue: &QueueName, head: &Head, identity: &Identity, address: &str) -> Result<()> {
    let sql = "update pgflume.progress set epoch = $2, seq = $3, token = $4, next_epoch = null,
               past_epochs = (pg_catalog.array_remove(past_epochs, epoch) || epoch)[greatest(1, pg_catalog.cardinality(past_epochs) - 98):],
               source_id = $5, queue_id = $6, address = $7, caught_up_at = null where queue = $1";
    let parameters = [
        (&queue.as_str() as _, Type::TEXT),
        (&head.epoch as _, Type::TEXT),
        (&head.seq as _, Type::INT8),
        (&head.token as _, Type::TEXT),
        (&identity.source as _, Type::TEXT),
        (&identity.queue as _, Type::OID),
        (&address as _, Type::TEXT),
    ];
    client.execute_typed(sql, &parameters).await?;
    client.execute_typed("delete from pgflume.kept where queue = $1", &[(&queue.as_str(), Type::TEXT)]).await?;
    forget_compared(client, queue).await
}

/// What was compared is not what is in the replica now.
pub async fn forget_compared(client: &Client, queue: &QueueName) -> Result<()> {
    client.execute_typed("delete from pgflume.verified where queue = $1", &[(&queue.as_str(), Type::TEXT)]).await?;
    Ok(())
}

/// Forgets what others took off the queue; what it was: how, by whom, how often.
pub async fn take_losses(client: &Client, queue: &QueueName) -> Result<Vec<(String, String, i64)>> {
    let sql = "with gone as (delete from pgflume.losses where queue = $1 returning by, who)
               select by, who, pg_catalog.count(*) from gone group by 1, 2 order by 1, 2";
    let rows = client.query_typed(sql, &[(&queue.as_str(), Type::TEXT)]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

/// Commits the name of a step, and so flushes all that its snapshot saw. `other` is not the step's connection.
pub async fn name_step(other: &Client, queue: &QueueName, name: &str) -> Result<()> {
    other.begin("", "set local synchronous_commit = on").await?;
    let insert = "insert into pgflume.steps (queue, token) values ($1, $2)";
    other.execute_typed(insert, &[(&queue.as_str(), Type::TEXT), (&name, Type::TEXT)]).await?;
    let old = "delete from pgflume.steps where queue = $1 and at < pg_catalog.now() - interval '1 day'";
    other.execute_typed(old, &[(&queue.as_str(), Type::TEXT)]).await?;
    other.commit().await?;
    Ok(())
}

async fn knows_step(client: &Client, queue: &QueueName, name: &str) -> Result<bool> {
    let sql = "select 1 from pgflume.steps where queue = $1 and token = $2";
    Ok(!client.query_typed(sql, &[(&queue.as_str(), Type::TEXT), (&name, Type::TEXT)]).await?.is_empty())
}

/// What Postgres says of each of `entries`, within the step.
pub async fn fates(client: &Client, queue: &QueueName, entries: &[Entry]) -> Result<Vec<Fate>> {
    let mut fates: Vec<Fate> = Vec::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        let provenance = &entry.provenance;
        // Batches of one group have the same.
        fates.push(if i > 0 && *provenance == entries[i - 1].provenance {
            fates[i - 1]
        } else if provenance.is_empty() {
            if knows_step(client, queue, &provenance.digest).await? { Fate::Known } else { Fate::Lost }
        } else if queue::has(client, queue, provenance).await? {
            Fate::Queued
        } else {
            Fate::Lost
        });
    }
    Ok(fates)
}

/// What was last acknowledged, for `status`: (epoch, seq, synced_at, caught_up_at).
pub async fn last_sync(client: &Client, queue: &QueueName) -> Result<LastSync> {
    let sql = format!(
        "select epoch, seq, {}, {}, {}, healed_from from pgflume.progress where queue = $1",
        iso_text("synced_at"),
        iso_text("caught_up_at"),
        iso_text("healed_at")
    );
    match client.query_typed(&sql, &[(&queue.as_str(), Type::TEXT)]).await?.first() {
        Some(row) => Ok(LastSync {
            epoch: row.try_get(0)?,
            seq: row.try_get(1)?,
            synced_at: row.try_get(2)?,
            caught_up_at: row.try_get(3)?,
            healed_at: row.try_get(4)?,
            healed_from: row.try_get(5)?,
        }),
        None => Ok(LastSync::default()),
    }
}

/// The last acknowledged batch.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LastSync {
    /// The pairing.
    pub epoch: Option<String>,
    /// Batches acknowledged in it.
    pub seq: i64,
    /// When a batch was last acknowledged.
    pub synced_at: Option<String>,
    /// When a batch last emptied the queue.
    pub caught_up_at: Option<String>,
    /// When the two sides were last found to have diverged, and a resync began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healed_at: Option<String>,
    /// What was noticed then: `behind`, `other_replica` or `other_source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healed_from: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_on_the_schema_says_who_may_use_it() {
        let read = |text| Bookkeeping::parse(text).map(|b| (b.version, b.oldest));
        assert_eq!(read("pgflume, bookkeeping 5"), Some((5, 0)));
        assert_eq!(read("pgflume, bookkeeping 12, for 9 and later"), Some((12, 9)));
        for other in ["", "pgflume", "pgflume, bookkeeping x", "pgflume, bookkeeping 5, for", "my own comment"] {
            assert_eq!(read(other), None, "{other}");
        }
        let sql = include_str!("../../../sql/bookkeeping.sql");
        assert!(sql.contains(&format!("is 'pgflume, bookkeeping {BOOKKEEPING}, for 5 and later'")));
    }
}
