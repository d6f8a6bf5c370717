//! What the tables hold, and typed access to them within a session's transaction.

use super::engine::{Failure, Key, Session, Wait};
use pgflume::core::schema::{Column, ColumnType, Table};
use pgflume::core::value::Cell;
use pgflume::postgres::books::rebuilds::Rebuild;
use pgflume::postgres::drift::definition_version::Recorded;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

pub const QUEUE: &str = "queue";
pub const DEAD: &str = "dead";
pub const PROGRESS: &str = "progress";
pub const RESYNCS: &str = "resyncs";
pub const KEPT: &str = "kept";
pub const WAKEUP: &str = "wakeup";
pub const STEPS: &str = "steps";
pub const LOSSES: &str = "losses";
pub const VERIFIED: &str = "verified";
pub const REDEEMED: &str = "redeemed";
pub const DEFINITIONS: &str = "definitions";
pub const CATALOG: &str = "catalog";

/// The relation of a replicated table's rows.
pub fn rows_of(table: &str) -> String {
    format!("rows/{table}")
}

/// The key of what there is one of.
pub fn only() -> Key {
    vec![String::new()]
}

/// A key that sorts as the number does.
pub fn numbered(id: i64) -> Key {
    vec![format!("{:016x}", id as u64 ^ (1 << 63))]
}

/// The number of such a key.
pub fn number(key: &Key) -> i64 {
    u64::from_str_radix(&key[0], 16).map_or(0, |bits| (bits ^ (1 << 63)) as i64)
}

/// The key of a name.
pub fn named(name: &str) -> Key {
    vec![name.to_owned()]
}

/// What becomes of who reads a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// Nothing special.
    #[default]
    Fits,
    /// A value does not fit its column.
    Unfit,
    /// The statement fails at it.
    Unreadable,
    /// The statement takes longer than it may.
    Slow,
}

/// A row of a replicated table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The values of all columns, those first that `schema.json` names.
    pub cells: Vec<Cell>,
    pub reading: Reading,
}

impl Row {
    /// One that fits.
    pub fn new(cells: Vec<Cell>) -> Self {
        Self { cells, reading: Reading::Fits }
    }

    /// The texts of its key, as marks have them.
    pub fn key(&self, table: &Table) -> Vec<String> {
        let text = |&i: &usize| self.cells.get(i).and_then(Cell::to_postgres_text).unwrap_or_default();
        table.key.iter().map(text).collect()
    }
}

/// A key that sorts as the table's index does; `None` where a text is not of its column's type.
pub fn encoded(table: &Table, key: &[String]) -> Option<Key> {
    table.key.iter().zip(key).map(|(&i, text)| encode(table.columns[i].kind, text)).collect()
}

fn encode(kind: ColumnType, text: &str) -> Option<String> {
    match kind {
        ColumnType::Integer => text.trim().parse::<i64>().ok().map(|i| numbered(i).swap_remove(0)),
        _ => Some(text.to_owned()),
    }
}

/// The texts of an encoded key.
pub fn decoded(table: &Table, key: &Key) -> Vec<String> {
    let text = |(&i, part): (&usize, &String)| match table.columns[i].kind {
        ColumnType::Integer => number(&vec![part.clone()]).to_string(),
        _ => part.clone(),
    };
    table.key.iter().zip(key).map(text).collect()
}

/// A message on the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `None` for SQL NULL.
    pub text: Option<String>,
    /// What it says its table is.
    pub table: Option<String>,
    /// Whether it has a version, as marks have.
    pub has_version: bool,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default, deserialize_with = "there")]
    v: Option<&'a RawValue>,
    #[serde(borrow)]
    table: Option<&'a RawValue>,
}

/// A member that is there, be it null.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl Message {
    pub fn new(text: Option<String>) -> Self {
        let head = text.as_deref().and_then(|text| serde_json::from_str::<Head<'_>>(text).ok());
        let has_version = head.as_ref().is_some_and(|head| head.v.is_some());
        let name = |raw: &RawValue| serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
        let table = head.and_then(|head| head.table.map(name));
        Self { text, table, has_version }
    }

    /// Bytes as stored, more or less.
    pub fn bytes(&self) -> i64 {
        self.text.as_ref().map_or(0, |text| text.len() as i64)
    }
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter(pub serde_json::Value);

/// `pgflume.progress`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgressRow {
    pub epoch: Option<String>,
    pub seq: i64,
    pub token: String,
    pub next_epoch: Option<String>,
    pub source_id: Option<String>,
    pub queue_id: Option<u32>,
    pub synced_at: Option<Duration>,
    pub caught_up_at: Option<Duration>,
    pub healed_at: Option<Duration>,
    pub healed_from: Option<String>,
    pub past_epochs: Vec<Option<String>>,
    /// The hash of the definitions.
    pub shape: Option<String>,
    pub address: Option<String>,
    pub next_refills: bool,
}

/// `pgflume.resyncs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resync {
    pub rebuild: Rebuild,
    pub reason: String,
    pub requested_at: Duration,
    pub started_at: Option<Duration>,
    pub finished_at: Option<Duration>,
}

/// `pgflume.kept`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub epoch: String,
    pub after_seq: i64,
    pub after_token: String,
    pub tokens: Vec<String>,
    pub copied: Vec<String>,
    pub messages: Vec<(i64, Option<String>)>,
    pub at: Duration,
}

/// A time at which something was written down, or how often something was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted(pub Duration);

/// `pgflume.wakeup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls(pub i64);

/// `pgflume.losses`: how, and who.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss(pub String, pub String);

/// `pgflume.verified`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    pub is_sweep: bool,
    pub cursor: Option<Vec<String>>,
    pub rows: i64,
    pub different: i64,
    pub ordered_by: Option<String>,
    pub started_at: Duration,
    pub last_started_at: Option<Duration>,
    pub last_finished_at: Option<Duration>,
    pub last_rows: Option<i64>,
    pub last_different: Option<i64>,
}

/// A replicated table in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    pub oid: u32,
    /// Another one after each change.
    pub version: i64,
    pub is_readable: bool,
    /// The columns with their numbers, and what old rows have of those that were added.
    pub columns: Vec<(Column, i16, Cell)>,
}

/// The queue in the catalog: its OID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState(pub u32);

/// What a table holds.
pub trait Stored: Sized {
    fn wrap(self) -> Value;
    fn unwrap(value: &Value) -> Option<&Arc<Self>>;
}

macro_rules! stored {
    ($($name:ident $of:ty),*) => {
        /// A row of any table.
        #[derive(Debug, Clone)]
        pub enum Value {
            $($name(Arc<$of>)),*
        }

        $(impl Stored for $of {
            fn wrap(self) -> Value {
                Value::$name(Arc::new(self))
            }

            fn unwrap(value: &Value) -> Option<&Arc<Self>> {
                if let Value::$name(value) = value { Some(value) } else { None }
            }
        })*
    };
}

stored!(
    Row Row, Message Message, Letter Letter, Progress ProgressRow, Resync Resync, Kept Kept, Noted Noted, Calls Calls,
    Loss Loss, Verified Verified, Definitions Recorded, Table TableState, Queue QueueState
);

/// Rows of one kind with their keys.
pub fn typed<T: Stored>(rows: Vec<(Key, Value)>) -> Vec<(Key, Arc<T>)> {
    rows.into_iter().filter_map(|(key, value)| T::unwrap(&value).cloned().map(|value| (key, value))).collect()
}

/// Typed access, with the patience for locks on rows.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    pub session: &'a Session<Value>,
    pub wait: Wait,
}

impl Access<'_> {
    pub fn get<T: Stored>(&self, relation: &str, key: &Key) -> Result<Option<Arc<T>>, Failure> {
        Ok(self.session.get(relation, key)?.and_then(|value| T::unwrap(&value).cloned()))
    }

    pub fn scan<T: Stored>(&self, relation: &str) -> Result<Vec<(Key, Arc<T>)>, Failure> {
        self.session.scan(relation).map(typed)
    }

    pub async fn put<T: Stored>(&self, relation: &str, key: Key, value: T) -> Result<(), Failure> {
        self.session.put(relation, key, value.wrap(), self.wait).await
    }

    pub async fn delete(&self, relation: &str, key: &Key) -> Result<bool, Failure> {
        self.session.delete(relation, key, self.wait).await
    }

    /// Deletes all rows of which this is true, and gives them.
    pub async fn delete_where<T: Stored>(
        &self,
        relation: &str,
        is_gone: impl Fn(&T) -> bool,
    ) -> Result<Vec<(Key, Arc<T>)>, Failure> {
        let mut gone = self.scan::<T>(relation)?;
        gone.retain(|(_, value)| is_gone(value));
        for (key, _) in &gone {
            self.delete(relation, key).await?;
        }
        Ok(gone)
    }

    /// Locks a row and gives it.
    pub async fn locked<T: Stored>(&self, relation: &str, key: &Key) -> Result<Option<Arc<T>>, Failure> {
        if self.session.lock_row(relation, key, self.wait).await? { self.get(relation, key) } else { Ok(None) }
    }

    /// Changes a row, if it is there; whether it is.
    pub async fn update<T: Stored + Clone>(
        &self,
        relation: &str,
        key: &Key,
        change: impl FnOnce(&mut T),
    ) -> Result<bool, Failure> {
        let Some(found) = self.locked::<T>(relation, key).await? else { return Ok(false) };
        let mut row = (*found).clone();
        change(&mut row);
        self.put(relation, key.clone(), row).await.map(|()| true)
    }
}
