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

    /// Whether it has the table.
    pub(crate) async fn has_outbox(&self) -> Result<bool> {
        Ok(self.inventory().await?.tables.contains_key(TABLE))
    }

    /// Adds an event that belongs to no other transaction.
    pub(crate) async fn keep_event(&self, sync: &str, event: Event) -> Result<()> {
        self.store.write(Work { before: add(sync, &[event]).collect(), ..Work::default() }).await
    }

    /// The oldest events of a sync that wait, at most `limit`.
    pub(crate) async fn waiting_events(&self, sync: &str, limit: i64) -> Result<Vec<Waiting>> {
        let sql = "SELECT id, uid, at, type, data FROM _pgflume_events WHERE sync = ?1 ORDER BY id LIMIT ?2";
        let rows = self.query(sql, vec![Cell::Text(sync.to_owned()), Cell::Integer(limit)]).await?;
        rows.iter().map(|row| waiting(row)).collect()
    }

    /// Forgets the oldest of a sync where far too many wait; how many.
    pub(crate) async fn prune_events(&self, sync: &str) -> Result<i64> {
        let text = || Cell::Text(sync.to_owned());
        let rows = self.query("SELECT count(*) FROM _pgflume_events WHERE sync = ?1", vec![text()]).await?;
        let surplus = match rows.first().map(Vec::as_slice) {
            Some([Cell::Integer(waiting)]) => (waiting - MOST_WAITING).max(0),
            _ => 0,
        };
        if surplus > 0 {
            let sql = "DELETE FROM _pgflume_events WHERE id IN (SELECT id FROM _pgflume_events WHERE sync = ?1 ORDER BY id LIMIT ?2)";
            let before = vec![Statement::new(sql, vec![text(), Cell::Integer(surplus)])];
            self.store.write(Work { before, ..Work::default() }).await?;
        }
        Ok(surplus)
    }

    /// These have arrived.
    pub(crate) async fn forget_events(&self, ids: &[i64]) -> Result<()> {
        let sql = "DELETE FROM _pgflume_events WHERE id IN (SELECT value FROM json_each(?1))";
        let before = vec![Statement::new(sql, vec![Cell::Text(serde_json::json!(ids).to_string())])];
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
