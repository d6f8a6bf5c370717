//! Events of syncs that pull, which wait in the replica to be delivered: written in the transaction of what they tell of.

use super::Replica;
use super::freshness::NOW;
use super::store::{Statement, Work};
use crate::core::error::{Error, Result};
use crate::core::event::{Event, MOST_WAITING, Waiting};
use crate::core::value::Cell;
use serde_json::Value;

/// The table that they wait in.
pub(crate) const TABLE: &str = "_pgflume_events";

/// Makes it.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS _pgflume_events (id INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL, \
     sync TEXT NOT NULL, at TEXT NOT NULL, type TEXT NOT NULL, data TEXT NOT NULL)";

/// Adds events of a sync.
pub(super) fn add(sync: &str, events: &[Event]) -> impl Iterator<Item = Statement> {
    let sql = format!(
        "INSERT INTO _pgflume_events (uid, sync, at, type, data) VALUES (lower(hex(randomblob(16))), ?1, {NOW}, ?2, ?3)"
    );
    events.iter().map(move |event| {
        let (kind, data) = (event.kind.to_owned(), event.data.to_string());
        Statement::new(sql.clone(), vec![Cell::Text(sync.to_owned()), Cell::Text(kind), Cell::Text(data)])
    })
}

impl Replica {
    /// Makes the table of events.
    pub(crate) async fn make_outbox(&self) -> Result<()> {
        self.store.write(Work { before: vec![CREATE.to_owned().into()], ..Work::default() }).await
    }

    /// Adds an event that belongs to no other transaction.
    pub(crate) async fn keep_event(&self, sync: &str, event: Event) -> Result<()> {
        let before = std::iter::once(CREATE.to_owned().into()).chain(add(sync, &[event])).collect();
        self.store.write(Work { before, ..Work::default() }).await
    }

    /// The oldest events of a sync that wait, at most `limit`, by plain reads. Where far too many do, the oldest of them
    /// are forgotten first; how many.
    pub(crate) async fn waiting_events(&self, sync: &str, limit: i64) -> Result<(Vec<Waiting>, i64)> {
        if !self.inventory_read().await?.tables.contains_key(TABLE) {
            return Ok((Vec::new(), 0));
        }
        let text = || Cell::Text(sync.to_owned());
        let count = Statement::new("SELECT count(*) FROM _pgflume_events WHERE sync = ?1", vec![text()]);
        let forgotten = match self.store.read(count).await?.first().map(Vec::as_slice) {
            Some([Cell::Integer(waiting)]) if *waiting > MOST_WAITING => waiting - MOST_WAITING,
            _ => 0,
        };
        if forgotten > 0 {
            let sql = "DELETE FROM _pgflume_events WHERE id IN (SELECT id FROM _pgflume_events WHERE sync = ?1 ORDER BY id LIMIT ?2)";
            let before = vec![Statement::new(sql, vec![text(), Cell::Integer(forgotten)])];
            self.store.write(Work { before, ..Work::default() }).await?;
        }
        let sql = "SELECT id, uid, at, type, data FROM _pgflume_events WHERE sync = ?1 ORDER BY id LIMIT ?2";
        let rows = self.store.read(Statement::new(sql, vec![text(), Cell::Integer(limit)])).await?;
        Ok((rows.iter().map(|row| waiting(row)).collect::<Result<_>>()?, forgotten))
    }

    /// This one has arrived.
    pub(crate) async fn forget_event(&self, id: i64) -> Result<()> {
        let sql = "DELETE FROM _pgflume_events WHERE id = ?1";
        let before = vec![Statement::new(sql, vec![Cell::Integer(id)])];
        self.store.write(Work { before, ..Work::default() }).await
    }
}

fn waiting(row: &[Cell]) -> Result<Waiting> {
    let [Cell::Integer(id), Cell::Text(uid), Cell::Text(at), Cell::Text(kind), Cell::Text(data)] = row else {
        return Err(Error::side(
            "the replica's table _pgflume_events is damaged: drop it, and the next pass makes it anew",
        ));
    };
    let data = serde_json::from_str(data).unwrap_or(Value::Null); // we wrote it
    let [uid, at, kind] = [uid, at, kind].map(Clone::clone);
    Ok(Waiting { id: *id, uid, at, kind, data })
}
