//! The replica's bookkeeping: the head (epoch, seq, token), which every write compares and sets, and the
//! ledger of recent batches. Pure SQL texts and types.

use super::freshness::{self, Feeds};
use super::store::{Rows, Statement};
use crate::core::error::{Error, Result};
use crate::core::failpoint::{PullRule, Rule};
use crate::core::position::{Entry, Head, Provenance, Standing};
use crate::core::value::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Acknowledged batches that the ledger remembers.
const LEDGER_ROWS: i64 = 1000;

/// The bookkeeping tables.
pub const TABLES: [&str; 3] = ["_pgflume_head", "_pgflume_ledger", "_pgflume_freshness"];

/// Reads the head.
pub const SELECT_HEAD: &str = "SELECT epoch, seq, token FROM _pgflume_head WHERE id = 1";

/// Reads the head, whose it is, and what was captured.
pub(crate) const SELECT_STANDING: &str = "SELECT epoch, seq, token, captured, owner FROM _pgflume_head WHERE id = 1";

/// The same where an older version made the bookkeeping.
pub(crate) const SELECT_OWNED: &str = "SELECT epoch, seq, token, NULL, owner FROM _pgflume_head WHERE id = 1";

/// Reads what was captured.
pub(crate) const SELECT_CAPTURED: &str = "SELECT captured FROM _pgflume_head WHERE id = 1";

/// Reads the ledger after `?1` and up to `?2`.
pub(crate) const SELECT_LEDGER: &str = "SELECT epoch, seq, token, parent, xid, lsn, images, messages, digest \
     FROM _pgflume_ledger WHERE seq > ?1 AND seq <= ?2 ORDER BY seq";

/// The head, from its row.
pub(super) fn position(rows: Rows) -> Result<Option<Head>> {
    match rows.into_iter().next().as_deref() {
        None => Ok(None),
        Some([Cell::Text(epoch), Cell::Integer(seq), Cell::Text(token)]) => {
            Ok(Some(Head { epoch: epoch.clone(), seq: *seq, token: token.clone() }))
        }
        Some(_) => Err(damaged("_pgflume_head")),
    }
}

/// Where the replica is, from the row of [`SELECT_STANDING`].
pub(super) fn standing(mut rows: Rows) -> Result<Standing> {
    let owner = rows.first_mut().and_then(Vec::pop);
    let owner = if let Some(Cell::Text(owner)) = owner { Some(owner) } else { None };
    let captured = captured(rows.first_mut().and_then(Vec::pop));
    Ok(Standing { head: position(rows)?, owner, captured })
}

/// Names of tables as [`sign`] writes them. What cannot be read is written anew by the next step.
pub(super) fn captured(cell: Option<Cell>) -> BTreeSet<String> {
    match cell {
        Some(Cell::Text(names)) => serde_json::from_str(&names).unwrap_or_default(),
        _ => BTreeSet::new(),
    }
}

fn damaged(table: &str) -> Error {
    Error::halt(format!("the replica's table {table} is damaged: POST /nuke rebuilds the replica"))
}

/// A batch, from its row of the ledger.
pub(super) fn entry(row: Vec<Cell>) -> Result<Entry> {
    match &row[..] {
        [
            Cell::Text(epoch),
            Cell::Integer(seq),
            Cell::Text(token),
            Cell::Text(parent),
            Cell::Text(xid),
            Cell::Text(lsn),
            Cell::Text(images),
            Cell::Text(messages),
            Cell::Text(digest),
        ] => Ok(Entry {
            head: Head { epoch: epoch.clone(), seq: *seq, token: token.clone() },
            parent: parent.clone(),
            xid: xid.clone(),
            lsn: lsn.clone(),
            images: from_ranges(images).ok_or_else(|| damaged("_pgflume_ledger"))?,
            provenance: Arc::new(Provenance {
                messages: from_ranges(messages).ok_or_else(|| damaged("_pgflume_ledger"))?,
                digest: digest.clone(),
            }),
        }),
        _ => Err(damaged("_pgflume_ledger")),
    }
}

/// Adds the entry and forgets old ones, but none that is not `acknowledged`.
pub(super) fn record(entry: &Entry, acknowledged: i64) -> [Statement; 2] {
    let text = |t: &str| Cell::Text(t.to_owned());
    let insert = "INSERT OR REPLACE INTO _pgflume_ledger (epoch, seq, token, parent, xid, lsn, images, messages, digest, applied_at) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))";
    let args = vec![
        text(&entry.head.epoch),
        Cell::Integer(entry.head.seq),
        text(&entry.head.token),
        text(&entry.parent),
        text(&entry.xid),
        text(&entry.lsn),
        Cell::Text(to_ranges(&entry.images)),
        Cell::Text(to_ranges(&entry.provenance.messages)),
        text(&entry.provenance.digest),
    ];
    let prune = "DELETE FROM _pgflume_ledger WHERE seq <= ?1";
    [
        Statement::new(insert, args),
        Statement::new(prune, vec![Cell::Integer(acknowledged.min(entry.head.seq) - LEDGER_ROWS)]),
    ]
}

/// Most ids of one entry, with room: a batch comes from what one take gives, ten thousand messages.
const MOST_IDS: usize = 1_000_000;

/// `1-3,7`: ids as ranges of truly consecutive ones.
fn to_ranges(ids: &[i64]) -> String {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for id in sorted {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => ranges.push((id, id)),
        }
    }
    let text = |&(first, last): &(i64, i64)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

/// What ranges stand for; `None` for what a batch cannot have come from.
fn from_ranges(text: &str) -> Option<Vec<i64>> {
    let mut ids = Vec::new();
    for range in text.split(',').filter(|r| !r.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<i64>().ok()?, last.parse::<i64>().ok()?);
        let more = usize::try_from(last.checked_sub(first)?).ok()?;
        if more >= MOST_IDS - ids.len() {
            return None;
        }
        ids.extend(first..=last);
    }
    Some(ids)
}

pub(super) fn create() -> Vec<Statement> {
    [
        "CREATE TABLE IF NOT EXISTS _pgflume_head (id INTEGER PRIMARY KEY CHECK (id = 1), \
         epoch TEXT NOT NULL, seq INTEGER NOT NULL, token TEXT NOT NULL, owner TEXT, captured TEXT)",
        "CREATE TABLE IF NOT EXISTS _pgflume_ledger (seq INTEGER PRIMARY KEY, epoch TEXT NOT NULL, token TEXT NOT NULL, \
         parent TEXT NOT NULL, xid TEXT NOT NULL, lsn TEXT NOT NULL, images TEXT NOT NULL, applied_at TEXT NOT NULL, \
         messages TEXT NOT NULL DEFAULT '', digest TEXT NOT NULL DEFAULT '')",
    ]
    .into_iter()
    .chain(freshness::CREATE_ONE)
    .chain(freshness::CREATE)
    .map(|sql| sql.to_owned().into())
    .collect()
}

/// Where the replica has to be for a write to be made, or an answer to count: by the one row of a queue, or that of a sync
/// that pulls, which goes by its name.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    /// Of the queue's head.
    Queue(&'a Head),
    /// Of a sync that pulls.
    Pull(&'a str, &'a Head),
}

impl<'a> From<&'a Head> for At<'a> {
    fn from(head: &'a Head) -> Self {
        Self::Queue(head)
    }
}

impl<'a> At<'a> {
    /// The position itself.
    pub(super) fn head(self) -> &'a Head {
        match self {
            Self::Queue(head) | Self::Pull(_, head) => head,
        }
    }

    /// The table, the column that tells its rows apart, and the row's value there.
    fn row(self) -> (&'static str, &'static str, Cell) {
        match self {
            Self::Queue(_) => ("_pgflume_head", "id", Cell::Integer(1)),
            Self::Pull(name, _) => ("_pgflume_pulls", "name", Cell::Text(name.to_owned())),
        }
    }

    /// Reads the token of where the replica is; its parameter is number `first`.
    pub(super) fn select_token(self, first: usize) -> Statement {
        let (table, column, value) = self.row();
        Statement::new(format!("SELECT token FROM {table} WHERE {column} = ?{first}"), vec![value])
    }

    /// Compare-and-set. Where the replica is anywhere else, the subquery is NULL and NOT NULL fails the transaction: the
    /// one error that works inside a batch that cannot look at its own results.
    pub(super) fn advance(self, to: &Head) -> Statement {
        let (from, (table, column, value)) = (self.head(), self.row());
        let here = match self {
            Self::Queue(_) if !Rule::Epoch.holds() => "seq = ?2",
            Self::Pull(..) if !PullRule::Fence.holds() => "true",
            _ => "epoch = ?1 AND seq = ?2 AND token = ?3",
        };
        Statement::new(
            format!(
                "INSERT INTO {table} ({column}, epoch, seq, token) VALUES (?6, ?1, \
                 (SELECT ?4 FROM {table} WHERE {column} = ?6 AND {here}), ?5) \
                 ON CONFLICT ({column}) DO UPDATE SET seq = excluded.seq, token = excluded.token"
            ),
            vec![
                Cell::Text(from.epoch.clone()),
                Cell::Integer(from.seq),
                Cell::Text(from.token.clone()),
                Cell::Integer(to.seq),
                Cell::Text(to.token.clone()),
                value,
            ],
        )
    }
}

/// Moves the queue's head, as [`At::advance`] does.
pub(super) fn advance(from: &Head, to: &Head) -> Statement {
    At::Queue(from).advance(to)
}

/// Fails the transaction, as [`advance`] does, unless the head is `from`.
pub(super) fn assert_at(from: Option<&Head>) -> Statement {
    match from {
        Some(head) => advance(head, head),
        None => Statement::new(
            "INSERT INTO _pgflume_head (id, epoch, seq, token) SELECT 1, '', NULL, '' \
             WHERE EXISTS (SELECT 1 FROM _pgflume_head)",
            Vec::new(),
        ),
    }
}

/// Says whose the replica is.
pub(super) fn sign(owner: &str) -> Statement {
    Statement::new("UPDATE _pgflume_head SET owner = ?1", vec![Cell::Text(owner.to_owned())])
}

/// Says which tables are captured.
pub(super) fn remember(captured: &BTreeSet<String>) -> Statement {
    let names = serde_json::json!(captured).to_string();
    Statement::new("UPDATE _pgflume_head SET captured = ?1", vec![Cell::Text(names)])
}

pub(super) fn replace(to: &Head, owner: &str, sync: Feeds<'_>) -> Vec<Statement> {
    let head = "INSERT INTO _pgflume_head (id, epoch, seq, token) VALUES (1, ?1, ?2, ?3) \
                ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, token = excluded.token";
    let mut all = vec![
        Statement::new(head, vec![Cell::Text(to.epoch.clone()), Cell::Integer(to.seq), Cell::Text(to.token.clone())]),
        sign(owner),
        "DELETE FROM _pgflume_ledger".to_owned().into(),
        // A replica has one queue, and this is it from now on.
        "DELETE FROM _pgflume_syncs WHERE kind = 'queue'".to_owned().into(),
    ];
    all.extend(freshness::forget(sync));
    all
}

/// Whether a database error is a position that was not where the writer thought: the only NOT NULL constraint that can
/// fail on these tables.
pub(super) fn is_fence(message: &str) -> bool {
    ["_pgflume_head.seq", "_pgflume_pulls.seq"].iter().any(|column| {
        message.split_once("NOT NULL constraint failed: ").is_some_and(|(_, failed)| failed.starts_with(column))
    })
}

/// The failure of a writer that is not where it thought.
pub(crate) fn fenced() -> Error {
    Error::unknown("another writer has moved the replica on: nothing was written, its head will be read again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_just_the_ids_that_were_given() {
        for (ids, text) in [(vec![], ""), (vec![5], "5"), (vec![3, 1, 2, 7, 9, 8], "1-3,7-9")] {
            assert_eq!(to_ranges(&ids), text);
            let mut sorted = ids;
            sorted.sort_unstable();
            assert_eq!(from_ranges(text), Some(sorted));
        }
        for text in ["1-x", "1-9000000000", "-9223372036854775808-9223372036854775807", "5-1", "1-999999,5,1-999999"] {
            assert_eq!(from_ranges(text), None, "{text}");
        }
    }
}
