//! All SQL of the dead letters: what could not be understood, read or applied, and waits for somebody to look
//! at it. Takes a client; knows nothing of the replica.

use crate::core::batch::Item;
use crate::core::error::{Error, Result};
use crate::core::message;
use crate::core::message::{MarkedKey, Message};
use crate::core::queue_name::QueueName;
use crate::core::schema::{Schema, Table};
use crate::core::value::Cell;
use crate::postgres::iso_text;
use crate::postgres::queue::Taken;
use crate::postgres::{Client, queue};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// Longer keys are cut in a reason; the letter has them in full.
const SHOWN_KEY_CHARS: usize = 200;

/// Most letters that a step looks at, to see whether it supersedes them.
const SUPERSEDABLE: i64 = 100_000;

/// A letter's message that is larger, as stored, is not fetched: thousands of letters are looked at at once.
const LETTER_BYTES: usize = 8 * 1024 * 1024;

/// Which part refused a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    /// The message cannot be understood.
    Message,
    /// A value does not fit its column.
    Value,
    /// Postgres cannot read the row.
    Source,
    /// The replica does not take the row.
    Target,
}

impl Refusal {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Value => "value",
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

/// A change that waits for somebody to look at it.
#[derive(Debug, Serialize)]
pub struct DeadLetter {
    /// What is wrong, of what, and the remedy; no row values but the key.
    pub reason: String,
    /// Which part refused it.
    pub class: Refusal,
    /// The table, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The marked key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<Option<String>>>,
    /// The message's id in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg_id: Option<i64>,
    /// The keys that the message concerns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<MarkedKey>,
    /// Those of them of which a newer state is applied or waits in a letter of its own.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub superseded: BTreeSet<MarkedKey>,
    /// The whole message, where the key alone is not enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<RawValue>>,
}

impl DeadLetter {
    /// Of one key.
    pub fn of_key(table: &str, key: Vec<Option<String>>, class: Refusal, problem: &str) -> Self {
        let shown: Vec<&str> = key.iter().map(|part| part.as_deref().unwrap_or("null")).collect();
        let mut shown = shown.join(", ");
        if let Some((cut, _)) = shown.char_indices().nth(SHOWN_KEY_CHARS) {
            shown.truncate(cut);
            shown.push_str("...");
        }
        let reason = reason(problem, Some(table), &format!("key ({shown})"), class);
        Self {
            reason,
            class,
            table: Some(table.to_owned()),
            key: Some(key),
            msg_id: None,
            keys: Vec::new(),
            superseded: BTreeSet::new(),
            message: None,
        }
    }

    /// Of a whole message.
    pub fn of_message(
        table: Option<&str>,
        keys: Vec<MarkedKey>,
        message: &Taken,
        class: Refusal,
        problem: &str,
    ) -> Self {
        let reason = reason(problem, table, &format!("message {}", message.msg_id), class);
        let text = message.text.clone().and_then(|text| RawValue::from_string(text).ok());
        let table = table.map(str::to_owned);
        let superseded = BTreeSet::new();
        Self { reason, class, table, key: None, msg_id: Some(message.msg_id), keys, superseded, message: text }
    }
}

fn reason(problem: &str, table: Option<&str>, what: &str, class: Refusal) -> String {
    let class = format!("{class:?}").to_lowercase();
    let table = table.map(|t| format!("table {t:?}, ")).unwrap_or_default();
    format!("{problem} [{table}{what}, class {class}; once fixed: pgflume dead retry]")
}

/// Why a message or a row is not fetched.
pub(crate) fn too_large(most_bytes: i64) -> String {
    format!(
        "larger than {most_bytes} bytes (MAX_ROW_BYTES): make it smaller, or raise the limit, for which the worker needs about three times as much memory"
    )
}

/// Puts dead letters on their queue, in the step's transaction. A key that waits there for the same reason, as far as
/// `known` tells, is not told twice.
pub async fn dead_letter(
    client: &Client,
    queue: &QueueName,
    dead_letters: &[DeadLetter],
    known: &Supersedable,
) -> Result<()> {
    if dead_letters.is_empty() {
        return Ok(());
    }
    let texts = dead_letters
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::retry(format!("a dead letter cannot be written: {e}")))?;
    // Only those of the same key can be the same: looking through all would be a walk for each.
    let like = |(i, letter): (usize, &DeadLetter)| {
        known.of_key(letter).into_iter().map(move |id| (i as i64 + 1, id)).collect::<Vec<_>>()
    };
    let (places, ids): (Vec<i64>, Vec<i64>) = dead_letters.iter().enumerate().flat_map(like).unzip();
    let sql = format!(
        "with known as materialized (
             select k.i, d.message from rows from (pg_catalog.unnest($2::pg_catalog.int8[]), pg_catalog.unnest($3::pg_catalog.int8[])) as k(i, id) join {dead} d on d.msg_id = k.id)
         insert into {dead} (vt, message) select pg_catalog.clock_timestamp(), t::pg_catalog.jsonb
         from (select t, pg_catalog.min(i) as first from pg_catalog.unnest($1::pg_catalog.text[]) with ordinality u(t, i) group by t) u
         where not exists (
             select from known k where k.i = u.first and k.message->>'key' = t::pg_catalog.jsonb->>'key'
                 and k.message->>'reason' = t::pg_catalog.jsonb->>'reason')
         order by first",
        dead = queue.dead_table()
    );
    let parameters = [(&texts as _, Type::TEXT_ARRAY), (&places as _, Type::INT8_ARRAY), (&ids as _, Type::INT8_ARRAY)];
    client.execute_typed(&sql, &parameters).await?;
    Ok(())
}

/// A letter as it waits; members are missing where somebody else put it there.
#[derive(Debug, Clone, Serialize)]
pub struct Waiting {
    /// Its id in the dead-letter queue.
    pub id: i64,
    /// Since when, ISO 8601.
    pub at: String,
    /// See [`DeadLetter`].
    pub reason: Option<String>,
    /// See [`Refusal`].
    pub class: Option<String>,
    /// The table.
    pub table: Option<String>,
    /// The key, as text.
    pub key: Option<Vec<Option<String>>>,
    /// The id that its message had in the queue.
    pub msg_id: Option<i64>,
    /// Some of its keys have a newer state by now.
    pub is_superseded_in_part: bool,
    /// The message as JSON text.
    #[serde(skip)]
    pub message: Option<String>,
}

impl Waiting {
    /// The table and the keys that it concerns.
    pub(crate) fn concerns(&self, schema: &Schema) -> Option<(Arc<Table>, Vec<MarkedKey>)> {
        if let (Some(key), Some(table)) = (&self.key, &self.table) {
            let key: Option<MarkedKey> = key.iter().cloned().collect();
            return Some((schema.get(table)?.clone(), vec![key?]));
        }
        match message::parse(self.message.as_deref()?, schema) {
            Ok(Message::Image(table, _, keys) | Message::Marks(table, keys)) => Some((table, keys)),
            _ => None,
        }
    }
}

/// Which letters.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// These ids; empty: all.
    pub ids: Vec<i64>,
    /// Of this table only.
    pub table: Option<String>,
}

/// Letters after the id `after`, oldest first, at most `limit`.
pub async fn waiting(
    client: &Client,
    queue: &QueueName,
    choice: &Choice,
    after: i64,
    limit: i64,
) -> Result<Vec<Waiting>> {
    let sql = format!(
        "select msg_id, {}, message->>'reason', message->>'class', message->>'table',
                case when pg_catalog.jsonb_typeof(message->'key') = 'array'
                     then array(select k from pg_catalog.jsonb_array_elements_text(message->'key') with ordinality e(k, i) order by i) end,
                message->>'msg_id', message ? 'superseded',
                case when pg_catalog.pg_column_size(message) <= {LETTER_BYTES} then (message->'message')::pg_catalog.text end
         from {} where (pg_catalog.cardinality($1::pg_catalog.int8[]) = 0 or msg_id = any($1)) and ($2::pg_catalog.text is null or message->>'table' = $2)
              and msg_id > $3 order by msg_id limit $4",
        iso_text("enqueued_at"),
        queue.dead_table()
    );
    let parameters = [
        (&choice.ids as _, Type::INT8_ARRAY),
        (&choice.table as _, Type::TEXT),
        (&after as _, Type::INT8),
        (&limit as _, Type::INT8),
    ];
    let waiting = |row: &Row| {
        Ok(Waiting {
            id: row.try_get(0)?,
            at: row.try_get(1)?,
            reason: row.try_get(2)?,
            class: row.try_get(3)?,
            table: row.try_get(4)?,
            key: row.try_get(5)?,
            msg_id: row.try_get::<_, Option<&str>>(6)?.and_then(|id| id.parse().ok()),
            is_superseded_in_part: row.try_get(7)?,
            message: row.try_get(8)?,
        })
    };
    client.query_typed(&sql, &parameters).await?.iter().map(waiting).collect()
}

/// Forgets letters; how many there were.
pub async fn forget(client: &Client, queue: &QueueName, ids: &[i64]) -> Result<u64> {
    if ids.is_empty() {
        return Ok(0);
    }
    let sql = format!("delete from {} where msg_id = any($1)", queue.dead_table());
    Ok(client.execute_typed(&sql, &[(&ids, Type::INT8_ARRAY)]).await?)
}

/// Puts messages on the queue: under the id that each had, where the queue gave it out and it is free, so that newer
/// ones follow it; else behind all others.
pub async fn send_again(client: &Client, queue: &QueueName, messages: &[(Option<i64>, String)]) -> Result<()> {
    let (table, last) = (queue.table(), queue::last_id(client, queue).await?);
    for (id, text) in messages {
        let id = id.filter(|id| *id <= last);
        let again = format!(
            "insert into {table} (msg_id, vt, message) overriding system value
             select $1, pg_catalog.clock_timestamp(), $2::pg_catalog.text::pg_catalog.jsonb where $1 is not null on conflict do nothing"
        );
        if client.execute_typed(&again, &[(&id, Type::INT8), (text, Type::TEXT)]).await? == 0 {
            let anew = format!(
                "insert into {table} (vt, message) values (pg_catalog.clock_timestamp(), $1::pg_catalog.text::pg_catalog.jsonb)"
            );
            client.execute_typed(&anew, &[(text, Type::TEXT)]).await?;
        }
    }
    Ok(())
}

/// Letters by the keys that they concern. A newer state of a key, applied or in a letter of its own, supersedes the
/// older ones. A clone shares the letters, and has its own view of what is superseded.
#[derive(Debug, Clone, Default)]
pub struct Supersedable {
    known: Arc<Known>,
    /// Keys with a newer state since the letters were read, by the letter's place.
    covered: BTreeMap<usize, BTreeSet<MarkedKey>>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    dead_letters: Vec<Tracked>,
    by_key: BTreeMap<String, BTreeMap<MarkedKey, Vec<usize>>>,
}

#[derive(Debug, Clone)]
struct Tracked {
    id: i64,
    msg_id: Option<i64>,
    /// Keys without a newer state.
    open: BTreeSet<MarkedKey>,
    /// Those that had one when the letters were read.
    covered: BTreeSet<MarkedKey>,
}

/// A letter as far as newer states of its keys would supersede it.
#[derive(Debug, Clone)]
pub struct Covering {
    /// Its id.
    pub id: i64,
    /// The id that its message had in the queue.
    pub msg_id: Option<i64>,
    /// The table.
    pub table: String,
    /// The keys that it concerns.
    pub keys: BTreeSet<MarkedKey>,
    /// Those that have a newer state.
    pub covered: BTreeSet<MarkedKey>,
}

/// What became of letters.
#[derive(Debug, Default)]
pub struct Superseded {
    /// All of their keys have a newer state.
    pub wholly: Vec<i64>,
    /// Some of their keys have.
    pub partly: Vec<(i64, BTreeSet<MarkedKey>)>,
}

impl Supersedable {
    /// Reads them, the oldest hundred thousand; their keys only.
    pub async fn read(client: &Client, queue: &QueueName) -> Result<Self> {
        let sql = format!(
            "select msg_id, message->>'msg_id', message->>'table', case when message ? 'keys' then message->>'keys'
                    else pg_catalog.jsonb_build_array(message->'key')::pg_catalog.text end, message->>'superseded'
             from {} where pg_catalog.jsonb_typeof(message->'table') = 'string' and (message ? 'key' or message ? 'keys')
             order by msg_id limit $1",
            queue.dead_table()
        );
        let mut letters = Vec::new();
        for row in client.query_typed(&sql, &[(&SUPERSEDABLE, Type::INT8)]).await? {
            let texts = |i: usize| Ok::<_, Error>(row.try_get::<_, Option<&str>>(i)?.map(str::to_owned));
            let (msg_id, table, keys, covered) = (texts(1)?, texts(2)?, texts(3)?, texts(4)?);
            // Others may have put letters of their own there.
            let Some(keys) = keys.and_then(|text| serde_json::from_str::<BTreeSet<MarkedKey>>(&text).ok()) else {
                continue;
            };
            let covered = covered.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let msg_id = msg_id.and_then(|id| id.parse().ok());
            letters.push(Covering { id: row.try_get(0)?, msg_id, table: table.unwrap_or_default(), keys, covered });
        }
        Ok(Self::of(letters))
    }

    /// These letters.
    pub fn of(letters: impl IntoIterator<Item = Covering>) -> Self {
        let mut known = Known::default();
        letters.into_iter().for_each(|letter| known.add(letter));
        Self { known: Arc::new(known), covered: BTreeMap::new() }
    }

    /// The letters of the very key that `letter` is of.
    pub fn of_key(&self, letter: &DeadLetter) -> Vec<i64> {
        let key: Option<MarkedKey> = letter.key.as_ref().and_then(|key| key.iter().cloned().collect());
        let places = key.and_then(|key| self.known.by_key.get(letter.table.as_deref()?)?.get(&key));
        places.map_or_else(Vec::new, |places| places.iter().map(|&place| self.known.dead_letters[place].id).collect())
    }

    /// Adds a letter that is on its way, under its place among those.
    pub fn watch(&mut self, place: usize, letter: &DeadLetter) {
        let key: Option<MarkedKey> = letter.key.iter().flatten().cloned().collect();
        let keys = letter.keys.iter().cloned().chain(key.filter(|key| !key.is_empty())).collect();
        let table = letter.table.as_deref().unwrap_or_default();
        let (id, msg_id, table) = (place as i64, letter.msg_id, table.to_owned());
        Arc::make_mut(&mut self.known).add(Covering { id, msg_id, table, keys, covered: BTreeSet::new() });
    }

    /// There is a newer state of this key: of the message `newer`, or, without, the row as it is.
    pub fn cover(&mut self, table: &str, key: &MarkedKey, newer: Option<i64>) {
        let Some(places) = self.known.by_key.get(table).and_then(|keys| keys.get(key)) else { return };
        for &place in places {
            let letter = &self.known.dead_letters[place];
            let is_older = newer.is_none_or(|newer| letter.msg_id.is_none_or(|id| id < newer));
            if is_older && letter.open.contains(key) {
                self.covered.entry(place).or_default().insert(key.clone());
            }
        }
    }

    /// The same of a row on its way to the replica.
    pub(crate) fn cover_item(&mut self, item: &Item) {
        if let Some(key) = item.key.iter().map(Cell::to_postgres_text).collect::<Option<MarkedKey>>() {
            self.cover(&item.table.name, &key, item.images.iter().max().copied());
        }
    }

    /// The same letters, of which nothing is covered yet.
    pub(crate) fn uncovered(&self) -> Self {
        Self { known: self.known.clone(), covered: BTreeMap::new() }
    }

    /// What was covered.
    pub fn superseded(&self) -> Superseded {
        let mut result = Superseded::default();
        for (&place, covered) in &self.covered {
            let letter = &self.known.dead_letters[place];
            match covered.len() == letter.open.len() {
                true => result.wholly.push(letter.id),
                false => result.partly.push((letter.id, letter.covered.union(covered).cloned().collect())),
            }
        }
        result
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.dead_letters.is_empty()
    }

    /// The letters on their way without those that are superseded.
    pub(crate) fn without_superseded(&self, dead_letters: Vec<DeadLetter>) -> Vec<DeadLetter> {
        let Superseded { wholly, partly } = self.superseded();
        let wholly: BTreeSet<i64> = wholly.into_iter().collect();
        let mut partly: BTreeMap<i64, BTreeSet<MarkedKey>> = partly.into_iter().collect();
        let kept = dead_letters.into_iter().enumerate().filter(|(i, _)| !wholly.contains(&(*i as i64)));
        let narrow = |(i, mut letter): (usize, DeadLetter)| {
            letter.superseded = partly.remove(&(i as i64)).unwrap_or(letter.superseded);
            letter
        };
        kept.map(narrow).collect()
    }
}

impl Known {
    fn add(&mut self, letter: Covering) {
        let Covering { id, msg_id, table, keys, covered } = letter;
        let by_key = self.by_key.entry(table).or_default();
        for key in &keys {
            by_key.entry(key.clone()).or_default().push(self.dead_letters.len());
        }
        let open = keys.difference(&covered).cloned().collect();
        self.dead_letters.push(Tracked { id, msg_id, open, covered });
    }
}

/// Forgets letters that are superseded, and notes it on those that are in part; how many went.
pub async fn supersede(client: &Client, queue: &QueueName, superseded: &Superseded) -> Result<u64> {
    for (id, keys) in &superseded.partly {
        let keys = serde_json::to_string(keys).map_err(|e| Error::retry(format!("a key cannot be written: {e}")))?;
        // A worker may not update them.
        let sql = format!(
            "with gone as (delete from {dead} where msg_id = $1 returning msg_id, enqueued_at, vt, message)
             insert into {dead} (msg_id, enqueued_at, vt, message) overriding system value
             select msg_id, enqueued_at, vt, message || pg_catalog.jsonb_build_object('superseded', $2::pg_catalog.text::pg_catalog.jsonb) from gone",
            dead = queue.dead_table()
        );
        client.execute_typed(&sql, &[(id, Type::INT8), (&keys, Type::TEXT)]).await?;
    }
    forget(client, queue, &superseded.wholly).await
}

/// A dead letter, as far as it tells a key.
#[derive(Debug)]
pub enum Dead {
    /// A key as it was marked.
    Key(Vec<String>),
    /// A key as the target has it, which refused its row.
    Target(Vec<String>),
    /// A whole message, and the keys that it concerns where it cannot be understood.
    Message(String, Vec<MarkedKey>),
}

/// All dead letters that tell a key of `table`.
pub async fn of_table(client: &Client, queue: &QueueName, table: &str) -> Result<Vec<Dead>> {
    let sql = format!(
        "select message->>'class' = 'target', case when pg_catalog.pg_column_size(message) <= {LETTER_BYTES} then message->>'message' end,
                array(select coalesce(k, '') from pg_catalog.jsonb_array_elements_text(
                    case when pg_catalog.jsonb_typeof(message->'key') = 'array' then message->'key' else '[]' end) k),
                message->>'keys'
         from {} where message->>'table' = $1 and (pg_catalog.jsonb_typeof(message->'key') = 'array' or message ? 'message')",
        queue.dead_table()
    );
    let rows = client.query_typed(&sql, &[(&table, Type::TEXT)]).await?;
    let dead = |row: &tokio_postgres::Row| {
        let (is_target, message): (Option<bool>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        Ok(match (message, is_target) {
            (Some(text), _) => {
                let keys = row.try_get::<_, Option<&str>>(3)?.and_then(|keys| serde_json::from_str(keys).ok());
                Dead::Message(text, keys.unwrap_or_default())
            }
            (None, Some(true)) => Dead::Target(row.try_get(2)?),
            (None, _) => Dead::Key(row.try_get(2)?),
        })
    };
    rows.iter().map(dead).collect()
}
