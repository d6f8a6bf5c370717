//! How the log that clients are fed from stands, for operators: one read, which changes nothing. No keys and no row values.
//!
//! Of the log only the first and the last row of a table are read, which its key finds.

use super::Replica;
use super::store::Statement;
use crate::core::error::{ErrorKind, Result};
use crate::core::value::Cell;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// From then on clients are not told in time.
const STALE_SECONDS: f64 = 60.0;

/// How the tables of a sync stand that are fed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FeedState {
    /// The position of the last cut, as clients are told it.
    #[serde(serialize_with = "as_text")]
    pub cut: Option<i64>,
    /// The source's clock then, where it is known.
    pub cut_at: Option<String>,
    /// How long ago it was, by the replica's clock. A feed of which nothing changes makes no new ones.
    pub cut_age_seconds: Option<f64>,
    /// For how long the oldest change has waited that is in the replica, and that no cut tells clients of; 0 where there is
    /// none.
    pub lag_seconds: f64,
    /// Clients of a table are not told what it is by now: it is held or not whole, or changes wait for more than a minute.
    pub is_stale: bool,
    /// Each table.
    pub tables: BTreeMap<String, FedTable>,
}

/// One of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FedTable {
    /// Keys that batches have touched and the log still has; one more for each batch that touched the key.
    pub log_rows: i64,
    /// How old the oldest row of the log is.
    pub log_seconds: Option<f64>,
    /// Behind this position the log is whole: who was told less begins anew. Nothing was forgotten yet where it is 0.
    #[serde(serialize_with = "as_text")]
    pub floor: Option<i64>,
    /// For how long its oldest change waits that no cut tells of.
    pub lag_seconds: f64,
    /// How far the log reaches back behind its sync's last batch.
    #[serde(skip)]
    pub span_seconds: f64,
    /// All rows are there: else clients are answered 503.
    pub whole: bool,
    /// It was left out of the last cut: it waits, or is copied.
    pub held: bool,
}

/// A position is more than JSON's readers can hold in a number.
fn as_text<S: Serializer>(position: &Option<i64>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match position {
        Some(position) => serializer.collect_str(position),
        None => serializer.serialize_none(),
    }
}

/// Seconds since 1970 at which a position was made.
pub fn made_at(position: i64) -> f64 {
    (position >> 20) as f64 / 1000.0
}

impl FeedState {
    /// With tables that are to be fed, and of which the replica knows nothing.
    pub fn with(mut self, tables: impl Iterator<Item = String>) -> Self {
        for name in tables {
            self.tables.entry(name).or_default();
        }
        let is_late = |table: &FedTable| table.held || !table.whole || table.lag_seconds > STALE_SECONDS;
        self.is_stale = self.tables.values().any(is_late);
        self
    }
}

impl Replica {
    /// How the tables of a sync stand that are fed; nothing where none is yet.
    pub async fn feed_state(&self, sync: &str) -> Result<FeedState> {
        let of_table = "FROM _pgflume_feed AS l WHERE l.tab = f.tab";
        let sql = format!(
            "SELECT f.name, f.is_whole, f.is_held, f.floor, c.cut, c.at, c.pos, (julianday('now') - 2440587.5) * 86400.0, \
             (SELECT l.past {of_table} ORDER BY l.pos DESC, l.part DESC LIMIT 1) \
             - (SELECT l.past - l.rows {of_table} ORDER BY l.pos, l.part LIMIT 1), \
             (SELECT l.pos {of_table} ORDER BY l.pos LIMIT 1), \
             (SELECT l.pos {of_table} AND l.pos > coalesce(c.cut, 0) ORDER BY l.pos LIMIT 1) \
             FROM _pgflume_feed_tables AS f JOIN _pgflume_cuts AS c ON c.sync = f.sync WHERE f.sync = ?1"
        );
        let rows = match self.store.read(Statement::new(sql, vec![Cell::Text(sync.to_owned())])).await {
            Err(e) if *e.kind() == ErrorKind::Schema => Vec::new(), // nobody has made them yet
            rows => rows?,
        };
        let mut state = FeedState::default();
        for row in rows {
            let [
                Cell::Text(name),
                whole,
                held,
                floor,
                cut,
                at,
                Cell::Integer(pos),
                Cell::Real(now),
                counted,
                first,
                waiting,
            ] = &row[..]
            else {
                continue;
            };
            let number = |cell: &Cell| if let Cell::Integer(number) = cell { Some(*number) } else { None };
            let age = |position: &Cell| number(position).map(|position| (now - made_at(position)).max(0.0));
            let table = FedTable {
                log_rows: number(counted).unwrap_or_default(),
                log_seconds: age(first),
                floor: number(floor),
                span_seconds: number(first).map_or(0.0, |first| made_at(*pos) - made_at(first)),
                lag_seconds: age(waiting).unwrap_or_default(),
                whole: number(whole) == Some(1),
                held: number(held) == Some(1),
            };
            (state.cut, state.cut_age_seconds) = (number(cut), age(cut));
            state.cut_at = at.as_text().map(str::to_owned);
            state.lag_seconds = state.lag_seconds.max(table.lag_seconds);
            state.tables.insert(name.clone(), table);
        }
        Ok(state.with(std::iter::empty()))
    }
}
