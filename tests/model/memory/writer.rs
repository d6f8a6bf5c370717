//! An application: a transaction that writes rows, with the triggers of each table, or does something to the queue.

use super::engine::{Failure, Isolation, Key, Lock, Session, Wait};
use super::postgres::Postgres;
use super::tables::{Access, LOSSES, Loss, Message, QUEUE, Reading, Row, Stored, Value, encoded, numbered, rows_of};
use pgflume::core::message::{MarkedKey, mark_of};
use pgflume::core::schema::{ColumnType, Table};
use pgflume::core::value::Cell;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How long a statement waits for a lock where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who takes messages off the queue.
const WHO: &str = "application";

/// An open transaction (READ COMMITTED). Dropped, it is rolled back; after a failure nothing but that is left.
pub struct Writer {
    postgres: Postgres,
    session: Session<Value>,
    wait: Wait,
    has_noted: bool,
    /// Its commit notifies.
    rings: bool,
}

impl Writer {
    pub(super) fn new(postgres: Postgres) -> Self {
        let session = postgres.engine().session();
        let mut writer = Self { postgres, session, wait: Wait::No, has_noted: false, rings: false };
        writer.session.begin(Isolation::ReadCommitted).unwrap();
        writer.set_wait(Wait::For(PATIENCE));
        writer
    }

    /// How long its statements wait for locks.
    pub fn set_wait(&mut self, wait: Wait) {
        let limit = if let Wait::For(limit) = wait { limit } else { Duration::from_micros(1) };
        self.session.set_lock_timeout(limit).unwrap_or(());
        self.wait = wait;
    }

    /// Its session, to end it.
    pub fn id(&self) -> u64 {
        self.session.id()
    }

    fn access(&self) -> Access<'_> {
        Access { session: &self.session, wait: self.wait }
    }

    /// Inserts a row, or updates the one of its key.
    pub async fn put(&mut self, table: &str, row: Row) -> Result<(), Failure> {
        let (table, relation) = (self.postgres.table(table).clone(), rows_of(table));
        let key = encoded(&table, &row.key(&table)).unwrap();
        let old = self.locked(&relation, &key).await?;
        let before = self.postgres.engine().committed_row(&relation, &key);
        self.access().put(&relation, key.clone(), row.clone()).await?;
        let old = match (old, before) {
            // Somebody else has inserted it meanwhile.
            (None, None) => {
                self.postgres.engine().committed_row(&relation, &key).and_then(|row| Row::unwrap(&row).cloned())
            }
            (old, _) => old,
        };
        if old.as_deref() == Some(&row) {
            return Ok(());
        }
        self.tell(&table, old.as_deref(), Some(&row)).await
    }

    /// Inserts or updates a row while no trigger looks.
    pub async fn put_unseen(&mut self, table: &str, row: Row) -> Result<(), Failure> {
        let key = encoded(self.postgres.table(table), &row.key(self.postgres.table(table))).unwrap();
        self.access().put(&rows_of(table), key, row).await
    }

    async fn locked(&self, relation: &str, key: &Key) -> Result<Option<Arc<Row>>, Failure> {
        self.session.lock_relation(relation, Lock::RowExclusive, self.wait).await?;
        self.access().locked(relation, key).await
    }

    /// Deletes a row; whether there was one.
    pub async fn delete(&mut self, table: &str, key: &[String]) -> Result<bool, Failure> {
        let (table, relation) = (self.postgres.table(table).clone(), rows_of(table));
        let key = encoded(&table, key).unwrap();
        let Some(old) = self.locked(&relation, &key).await? else { return Ok(false) };
        self.access().delete(&relation, &key).await?;
        self.tell(&table, Some(&old), None).await.map(|()| true)
    }

    /// Gives a row another key; whether it was there and the key is free.
    pub async fn rekey(&mut self, table: &str, key: &[String], row: Row) -> Result<bool, Failure> {
        let (table, relation) = (self.postgres.table(table).clone(), rows_of(table));
        let (from, to) = (encoded(&table, key).unwrap(), encoded(&table, &row.key(&table)).unwrap());
        let Some(old) = self.locked(&relation, &from).await? else { return Ok(false) };
        if from == to || self.access().get::<Row>(&relation, &to)?.is_some() {
            return Ok(false);
        }
        self.access().delete(&relation, &from).await?;
        self.access().put(&relation, to, row.clone()).await?;
        self.tell(&table, Some(&old), Some(&row)).await.map(|()| true)
    }

    /// Empties a table.
    pub async fn truncate(&mut self, table: &str) -> Result<(), Failure> {
        self.session.truncate(&rows_of(table), self.wait).await?;
        if self.postgres.is_captured(table) {
            self.send(Some(&json!({"v": 1, "table": table, "truncate": true}).to_string())).await?;
        }
        Ok(())
    }

    /// What the triggers do.
    async fn tell(&mut self, table: &Table, old: Option<&Row>, new: Option<&Row>) -> Result<(), Failure> {
        let text = match self.postgres.is_captured(&table.name) {
            true => {
                let mut keys: Vec<MarkedKey> = old.into_iter().chain(new).map(|row| row.key(table)).collect();
                keys.dedup();
                mark_of(&table.name, &keys)
            }
            false => image_of(table, old, new),
        };
        self.send(Some(&text)).await.map(drop)
    }

    /// Puts a message on the queue; its id.
    pub async fn send(&mut self, text: Option<&str>) -> Result<i64, Failure> {
        self.session.lock_relation(QUEUE, Lock::RowExclusive, self.wait).await?;
        let id = self.session.next(&self.postgres.ids())?;
        self.access().put(QUEUE, numbered(id), Message::new(text.map(str::to_owned))).await?;
        self.rings |= self.postgres.listeners().try_keep_awake(&self.session).await?;
        Ok(id)
    }

    /// Takes a message off the queue, as others do; whether it was there.
    pub async fn delete_message(&mut self, id: i64) -> Result<bool, Failure> {
        let is_gone = self.access().delete(QUEUE, &numbered(id)).await?;
        if is_gone {
            self.note_loss("DELETE").await?;
        }
        Ok(is_gone)
    }

    /// Reads a message as other consumers do, who hide it for a while: it is another version then, of the same text.
    pub async fn touch_message(&mut self, id: i64) -> Result<bool, Failure> {
        self.access().update(QUEUE, &numbered(id), |_: &mut Message| {}).await
    }

    async fn note_loss(&mut self, how: &str) -> Result<(), Failure> {
        if std::mem::replace(&mut self.has_noted, true) {
            return Ok(());
        }
        let id = self.session.next("loss")?;
        self.access().put(LOSSES, numbered(id), Loss(how.to_owned(), WHO.to_owned())).await
    }

    /// Locks a table or the queue.
    pub async fn lock(&mut self, place: &str, lock: Lock) -> Result<(), Failure> {
        let is_table = self.postgres.schema().get(place).is_some();
        let relation = if is_table { rows_of(place) } else { place.to_owned() };
        self.session.lock_relation(&relation, lock, self.wait).await
    }

    /// Rows of a table as it sees them.
    pub fn rows(&self, table: &str) -> Result<Vec<Arc<Row>>, Failure> {
        Ok(self.access().scan(&rows_of(table))?.into_iter().map(|(_, row)| row).collect())
    }

    /// Commits; under which number. Asynchronously, a crash may still lose it.
    pub fn commit(self, is_synchronous: bool) -> Result<u64, Failure> {
        let committed = self.session.commit(is_synchronous)?;
        if self.rings {
            self.postgres.listeners().notify("");
        }
        Ok(committed)
    }

    /// Undoes what it did since this savepoint was set, as a part of an application does that failed.
    pub async fn undone(&mut self, table: &str, row: Row) -> Result<(), Failure> {
        self.session.savepoint("part")?;
        self.put(table, row).await?;
        self.session.rollback_to("part")?;
        self.session.release("part")
    }

    /// Gives it up.
    pub fn abort(self) {
        self.session.rollback();
    }
}

/// The message with a row as it was and as it is.
fn image_of(table: &Table, old: Option<&Row>, new: Option<&Row>) -> String {
    let kind = match (old, new) {
        (None, _) => "INSERT",
        (_, Some(_)) => "UPDATE",
        (_, None) => "DELETE",
    };
    let record = |row: Option<&Row>| row.map(|row| record_of(table, row));
    json!({"type": kind, "table": table.name, "record": record(new), "old_record": record(old)}).to_string()
}

fn record_of(table: &Table, row: &Row) -> serde_json::Value {
    let value = |(i, cell): (usize, &Cell)| {
        let column = table.columns.get(i)?;
        let is_odd = row.reading == Reading::Unfit && column.kind == ColumnType::Integer && !table.key.contains(&i);
        let value = match cell {
            _ if is_odd => json!("no number"),
            Cell::Null => serde_json::Value::Null,
            Cell::Integer(i) => json!(i),
            Cell::Real(r) => json!(r),
            other => json!(other.to_postgres_text()),
        };
        Some((column.name.clone(), value))
    };
    row.cells.iter().enumerate().filter_map(value).collect::<serde_json::Map<_, _>>().into()
}
