//! What readers of the replica may look at: how fresh it is (`_pgflume_freshness`, one row: the least of all syncs;
//! `_pgflume_syncs`, a row a sync; `_pgflume_tables`, a row a table). Pure SQL texts and types. All times are UTC,
//! `2026-11-29T18:00:00.123Z`, which SQLite's `julianday` and `unixepoch` read.

use super::store::Statement;
use crate::core::position::Head;
use crate::core::schema::literal;
use crate::core::token::Seen;
use crate::core::value::Cell;

/// SQLite's clock, in the one form of all times.
pub(super) const NOW: &str = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";

/// Reads the freshness.
pub(crate) const SELECT: &str = "SELECT caught_up_at, applied_at, queued FROM _pgflume_freshness";

/// Reads what a sync has seen; its name is `?1`.
pub(super) const SELECT_SEEN: &str = "SELECT seen_below, seen_before, running FROM _pgflume_syncs WHERE name = ?1 \
     AND (kind <> 'queue' OR epoch IS NULL OR epoch = (SELECT epoch FROM _pgflume_head))";

/// Makes the one row; older versions made it, too.
pub(super) const CREATE_ONE: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS _pgflume_freshness (caught_up_at TEXT, applied_at TEXT, queued INTEGER, checked_at TEXT)",
    "INSERT INTO _pgflume_freshness (queued) SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM _pgflume_freshness)",
];

/// Makes what older versions did not have.
pub(super) const CREATE: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS _pgflume_syncs (name TEXT PRIMARY KEY, kind TEXT NOT NULL, caught_up_at TEXT, \
     drained_at TEXT, checked_at TEXT, applied_at TEXT, queued INTEGER NOT NULL DEFAULT 0, \
     seen_below INTEGER, seen_before INTEGER, running TEXT, epoch TEXT)",
    "CREATE TABLE IF NOT EXISTS _pgflume_states (\"table\" TEXT PRIMARY KEY COLLATE NOCASE, sync TEXT NOT NULL, source TEXT, \
     state TEXT NOT NULL, caught_up_at TEXT, rows INTEGER, copied_at TEXT, problem TEXT, types TEXT)",
    "DROP VIEW IF EXISTS _pgflume_tables",
    // A table that follows is as fresh as its sync; of another the time is kept at which it no longer did.
    "CREATE VIEW _pgflume_tables AS SELECT s.sync, s.\"table\", s.source, s.state, \
     CASE WHEN s.state IN ('following', 'reading') THEN y.drained_at ELSE s.caught_up_at END AS caught_up_at, \
     s.rows, s.copied_at, s.problem, s.types FROM _pgflume_states s LEFT JOIN _pgflume_syncs y ON y.name = s.sync",
];

/// What an older version said, which had no row a sync.
pub(super) const SEED_QUEUE: &str = "INSERT OR IGNORE INTO _pgflume_syncs (name, kind, caught_up_at, drained_at, applied_at, queued) \
     SELECT substr(substr(h.owner, instr(h.owner, '/') + 1), 1, instr(substr(h.owner, instr(h.owner, '/') + 1), '/') - 1), 'queue', \
     f.caught_up_at, f.caught_up_at, f.applied_at, coalesce(f.queued, 0) FROM _pgflume_head h, _pgflume_freshness f WHERE h.owner LIKE '%/%/%'";

/// The same of syncs that pull.
pub(super) const SEED_PULLS: &str = "INSERT OR IGNORE INTO _pgflume_syncs (name, kind, caught_up_at, drained_at, applied_at) \
     SELECT name, 'pull', caught_up_at, caught_up_at, applied_at FROM _pgflume_pulls";

/// The tables among them.
pub(super) const MADE: [&str; 2] = ["_pgflume_syncs", "_pgflume_states"];

/// Which sync writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feeds<'a> {
    /// A queue, by its name.
    Queue(&'a str),
    /// A sync that pulls, by its name.
    Pull(&'a str),
}

impl<'a> Feeds<'a> {
    pub(crate) fn name(self) -> &'a str {
        match self {
            Self::Queue(name) | Self::Pull(name) => name,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Queue(_) => "queue",
            Self::Pull(_) => "pull",
        }
    }
}

/// What a sync says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freshness {
    /// The source's clock at the snapshot, where there was one.
    pub checked_at: Option<String>,
    /// All tables equal the source at it.
    pub is_caught_up: bool,
    /// Those equal it that wait for nobody.
    pub is_drained: bool,
    /// Messages that were left.
    pub queued: i64,
    /// What it sees, where that can be told.
    pub seen: Option<Seen>,
}

impl Freshness {
    /// What a batch says of its sync. What was said in another epoch is over: whoever began this one may have been a
    /// version that knows nothing of this table.
    pub(super) fn record(&self, sync: Feeds<'_>, epoch: &str) -> [Statement; 2] {
        let or_before = |column| {
            format!(
                "{column} = iif(epoch IS NULL OR epoch = excluded.epoch, coalesce(excluded.{column}, {column}), excluded.{column})"
            )
        };
        let sql = format!(
            "INSERT INTO _pgflume_syncs (name, kind, checked_at, caught_up_at, drained_at, queued, seen_below, seen_before, running, epoch, applied_at) \
             VALUES (?1, ?2, ?3, iif(?4, ?3, NULL), iif(?5, ?3, NULL), ?6, iif(?4, ?7, NULL), iif(?4, ?8, NULL), iif(?4, ?9, NULL), ?10, {NOW}) \
             ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, checked_at = coalesce(excluded.checked_at, checked_at), queued = excluded.queued, \
             {}, {}, {}, {}, {}, epoch = excluded.epoch, applied_at = excluded.applied_at",
            or_before("caught_up_at"),
            or_before("drained_at"),
            or_before("seen_below"),
            or_before("seen_before"),
            or_before("running"),
        );
        let mut args = self.args(sync);
        args.push(text(epoch));
        [Statement::new(sql, args), least()]
    }

    /// What is said of a sync where nothing was written. It begins no claim: rows that were never brought are not known to
    /// be equal. Nor does it go back: of two that say that nothing has changed, the older may come last.
    pub(super) fn beat(&self, sync: Feeds<'_>, at: &Head) -> [Statement; 3] {
        let is_here = is_at(at);
        let same = format!("(epoch IS NULL OR epoch = {})", literal(&at.epoch));
        let make = format!(
            "INSERT INTO _pgflume_syncs (name, kind) SELECT ?1, ?2 WHERE {is_here} ON CONFLICT (name) DO NOTHING"
        );
        let moves = |column, value, after| {
            format!("{column} = iif({after} IS NOT NULL AND {same}, iif({value}, ?3, {column}), NULL)")
        };
        let sees = |column, value| {
            format!("{column} = iif(caught_up_at IS NOT NULL AND {same}, iif(?4, {value}, {column}), NULL)")
        };
        let sql = format!(
            "UPDATE _pgflume_syncs SET checked_at = ?3, queued = ?6, kind = ?2, {}, {}, {}, {}, {} \
             WHERE name = ?1 AND (checked_at IS NULL OR checked_at <= ?3) AND {is_here}",
            moves("caught_up_at", "?4", "caught_up_at"),
            moves("drained_at", "?5", "applied_at"),
            sees("seen_below", "?7"),
            sees("seen_before", "?8"),
            sees("running", "?9"),
        );
        let named = vec![text(sync.name()), text(sync.kind())];
        [Statement::new(make, named), Statement::new(sql, self.args(sync)), least()]
    }

    /// Name, kind, time, caught up, drained, queued, and what was seen.
    fn args(&self, sync: Feeds<'_>) -> Vec<Cell> {
        let seen = |of: fn(&Seen) -> Cell| self.seen.as_ref().map_or(Cell::Null, of);
        vec![
            text(sync.name()),
            text(sync.kind()),
            self.checked_at.as_deref().map_or(Cell::Null, text),
            Cell::Integer(self.is_caught_up.into()),
            Cell::Integer((self.is_drained || self.is_caught_up).into()),
            Cell::Integer(self.queued),
            seen(|seen| Cell::Integer(seen.xmin)),
            seen(|seen| Cell::Integer(seen.xmax)),
            seen(|seen| Cell::Text(serde_json::json!(seen.running).to_string())),
        ]
    }
}

/// The least of all syncs.
pub(super) fn least() -> Statement {
    "UPDATE _pgflume_freshness SET (caught_up_at, applied_at, queued, checked_at) = \
     (SELECT CASE WHEN count(*) = count(caught_up_at) THEN min(caught_up_at) END, max(applied_at), coalesce(sum(queued), 0), \
     CASE WHEN count(*) = count(checked_at) THEN min(checked_at) END FROM _pgflume_syncs)"
        .to_owned()
        .into()
}

/// Nothing of a sync is known to be as its source is.
pub(super) fn forget(sync: Feeds<'_>) -> [Statement; 2] {
    let sql = "INSERT INTO _pgflume_syncs (name, kind) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET caught_up_at = NULL, \
               drained_at = NULL, applied_at = NULL, queued = 0, seen_below = NULL, seen_before = NULL, running = NULL";
    [Statement::new(sql, vec![text(sync.name()), text(sync.kind())]), least()]
}

/// What a table is doing, for readers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableState {
    /// Its name in the replica.
    pub table: String,
    /// What it copies.
    pub source: String,
    /// `new`, `copying`, `reading`, `following`, `waiting`.
    pub state: &'static str,
    /// Rows of its last copy, or as last counted, where that is known.
    pub rows: Option<i64>,
    /// Why it waits, with the remedy.
    pub problem: Option<String>,
    /// The source's type of each column as a JSON object, where that is known: how many digits a number has behind the
    /// point, say.
    pub types: Option<String>,
}

/// Says what tables of a sync that pulls are doing, within a batch of it; writes nothing where that is said already.
pub(super) fn pulled_states(sync: Feeds<'_>, told: &[TableState]) -> Vec<Statement> {
    states(sync, told, "true")
}

/// Says what all tables of a queue are doing, while it is `at` this position; writes nothing where that is said already.
pub(super) fn queue_states(sync: Feeds<'_>, told: &[TableState], at: &Head) -> Vec<Statement> {
    let is_here = is_at(at);
    let mut all = states(sync, told, &is_here);
    let names: Vec<&str> = told.iter().map(|one| one.table.as_str()).collect();
    let gone = format!(
        "DELETE FROM _pgflume_states WHERE sync = ?1 AND \"table\" COLLATE NOCASE NOT IN (SELECT value FROM json_each(?2)) AND {is_here}"
    );
    all.push(Statement::new(gone, vec![text(sync.name()), Cell::Text(serde_json::json!(names).to_string())]));
    all
}

/// Whether the queue's replica is at this position: what comes late changes nothing.
fn is_at(head: &Head) -> String {
    let Head { epoch, seq, token } = head;
    let (epoch, token) = (literal(epoch), literal(token));
    format!("EXISTS (SELECT 1 FROM _pgflume_head WHERE epoch = {epoch} AND seq = {seq} AND token = {token})")
}

fn states(sync: Feeds<'_>, states: &[TableState], is_here: &str) -> Vec<Statement> {
    let rows: Vec<serde_json::Value> = states
        .iter()
        .map(|one| serde_json::json!([one.table, one.source, one.state, one.rows, one.problem, one.types]))
        .collect();
    let rows = Cell::Text(serde_json::Value::from(rows).to_string());
    let upsert = format!(
        "INSERT INTO _pgflume_states AS t (sync, \"table\", source, state, rows, problem, types, copied_at) \
         SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, \
         CASE WHEN value ->> 2 = 'following' AND value ->> 3 IS NOT NULL THEN {NOW} END FROM json_each(?2) WHERE {is_here} \
         ON CONFLICT (\"table\") DO UPDATE SET sync = excluded.sync, source = excluded.source, state = excluded.state, \
         rows = coalesce(excluded.rows, rows), problem = excluded.problem, types = coalesce(excluded.types, types), \
         caught_up_at = CASE WHEN t.state IN ('following', 'reading') AND excluded.state NOT IN ('following', 'reading') \
         THEN (SELECT drained_at FROM _pgflume_syncs WHERE name = t.sync) ELSE caught_up_at END, \
         copied_at = CASE WHEN excluded.state = 'following' AND t.state <> 'following' THEN {NOW} ELSE copied_at END \
         WHERE (t.sync, t.source, t.state, t.problem) IS NOT (excluded.sync, excluded.source, excluded.state, excluded.problem) \
         OR coalesce(excluded.rows, t.rows) IS NOT t.rows OR coalesce(excluded.types, t.types) IS NOT t.types"
    );
    vec![Statement::new(upsert, vec![text(sync.name()), rows])]
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}
