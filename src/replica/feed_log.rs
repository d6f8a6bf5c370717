//! What clients are fed from: a log of the keys that batches touch (`_pgflume_feed`), written in their own transactions,
//! and the cuts at which all tables of a sync equalled one snapshot of its source (`_pgflume_cuts`). Nothing of it is there
//! unless a table of `schema.json` is fed. Pure SQL texts, and what a writer remembers of it.
//!
//! A row of the log says what keys were before their batch: it is a JSON array of pairs, of a key and of the columns that
//! clients filter by, or null where there was no row. A position is a number of a batch, above all before it, also of an earlier epoch:
//! clients keep it. Its low bits are random, so that no two histories share one.
//!
//! A sync that pulls logs as a queue does, beside its own row of `_pgflume_pulls`. Nobody but the replica knows how far that
//! is: one that fell back goes on as if nothing had been. So its cuts are kept (`_pgflume_past_cuts`), and who was told of
//! another begins anew.

use super::freshness::Feeds;
use super::store::{Statement, Touching, Work};
use crate::core::batch::{Item, RowState};
use crate::core::failpoint::FeedRule;
use crate::core::position::Head;
use crate::core::schema::Table;
use crate::core::value::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// The table of the tables that are fed.
pub(crate) const TABLES: &str = "_pgflume_feed_tables";

/// The log.
pub(crate) const LOG: &str = "_pgflume_feed";

/// The cuts of syncs that pull.
pub(crate) const PAST_CUTS: &str = "_pgflume_past_cuts";

/// Keys in the log that are kept of a table at the most, and cuts of a sync, but for those that are forgotten next.
const MOST_ROWS: i64 = 1_000_000;

/// Rows of it that are too old, and positions that are too many, which are forgotten at once.
const FORGOTTEN_ROWS: i64 = 1_000_000;

/// How often old rows are looked for.
const FORGETS_EVERY: Duration = Duration::from_secs(10);

/// How long the log is kept where nothing else is said.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// A name that was never used.
const NEW: &str = "lower(hex(randomblob(12)))";

/// The least position of now: milliseconds since 1970 above 20 bits.
const NOW: &str = "(CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) << 20)";

const CREATE: [&str; 4] = [
    // `rows`: keys of `touched`; `past`: all that the table's log has had, with these.
    "CREATE TABLE IF NOT EXISTS _pgflume_feed (tab INTEGER NOT NULL, pos INTEGER NOT NULL, part INTEGER NOT NULL, \
     rows INTEGER NOT NULL, past INTEGER NOT NULL, touched TEXT NOT NULL, PRIMARY KEY (tab, pos, part))",
    // `token`: of the head that the last batch led to, whose writer fed the tables of `fed`; `pos`: its position; `cut`: the
    // last that is one.
    "CREATE TABLE IF NOT EXISTS _pgflume_cuts (sync TEXT PRIMARY KEY, token TEXT NOT NULL, fed TEXT, pos INTEGER NOT NULL, \
     cut INTEGER, at TEXT)",
    // `generation`: another one for rows that do not follow from the log; `is_whole`: all rows are there, and logged since;
    // `is_held`: it was left out of the last cut; `floor`: behind it the log is whole.
    "CREATE TABLE IF NOT EXISTS _pgflume_feed_tables (tab INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, \
     sync TEXT NOT NULL, filter TEXT NOT NULL, generation TEXT NOT NULL, is_whole INTEGER NOT NULL DEFAULT 0, \
     is_held INTEGER NOT NULL DEFAULT 0, floor INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS _pgflume_past_cuts (sync TEXT NOT NULL, pos INTEGER NOT NULL, PRIMARY KEY (sync, pos)) WITHOUT ROWID",
];

/// The tables of a sync that are fed: by which columns they are filtered, whether all rows are there, whether each is held,
/// and whether the last batch ended at a cut.
pub(super) fn select_fed(sync: Feeds<'_>) -> Statement {
    let here = match sync {
        Feeds::Queue(_) => "_pgflume_head AS h ON h.id = 1",
        Feeds::Pull(_) => "_pgflume_pulls AS h ON h.name = f.sync",
    };
    let sql = format!(
        "SELECT f.name, f.filter, f.is_whole, f.is_held, c.cut IS c.pos AND c.token IS h.token FROM _pgflume_feed_tables AS f \
         JOIN _pgflume_cuts AS c ON c.sync = f.sync LEFT JOIN {here} WHERE f.sync = ?1"
    );
    Statement::new(sql, vec![Cell::Text(sync.name().to_owned())])
}

/// A moment at which tables of a sync equal its source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    /// The source's clock.
    pub at: Option<String>,
    /// Tables that do not.
    pub held: BTreeSet<String>,
    /// Tables that nobody has looked at: they are as they were at the last cut, or what somebody else has made of them.
    pub unseen: BTreeSet<String>,
}

/// Which tables a writer feeds.
#[derive(Debug, Default)]
pub(super) struct Fed {
    pub names: BTreeSet<String>,
    /// The same as a JSON array of their names and the columns that they are filtered by.
    text: String,
}

impl Fed {
    pub fn of(tables: &[&Table]) -> Self {
        let named: Vec<[String; 2]> = tables.iter().map(|table| [table.name.clone(), filter_text(table)]).collect();
        let names = tables.iter().map(|table| table.name.clone()).collect();
        Self { names, text: serde_json::json!(named).to_string() }
    }

    fn cell(&self) -> Cell {
        Cell::Text(self.text.clone())
    }
}

pub(super) fn filter_text(table: &Table) -> String {
    let names: Vec<&String> = table.fed_filter_names().collect();
    serde_json::json!(names).to_string()
}

/// Says which tables of a sync are fed: what is new, or is filtered by other columns, is not whole until the next cut.
pub(super) fn register(sync: &str, fed: &Fed) -> Vec<Statement> {
    let sync = || Cell::Text(sync.to_owned());
    let named = "SELECT value ->> 0, value ->> 1 FROM json_each(?2)";
    let mut all: Vec<Statement> = CREATE.iter().map(|sql| (*sql).to_owned().into()).collect();
    all.push(Statement::new("INSERT OR IGNORE INTO _pgflume_cuts (sync, token, pos) VALUES (?1, '', 0)", vec![sync()]));
    all.push(Statement::new(
        format!("DELETE FROM _pgflume_feed_tables WHERE sync = ?1 AND (name, filter) NOT IN ({named})"),
        vec![sync(), fed.cell()],
    ));
    all.push("DELETE FROM _pgflume_feed WHERE tab NOT IN (SELECT tab FROM _pgflume_feed_tables)".to_owned().into());
    all.push(
        "DELETE FROM _pgflume_past_cuts WHERE sync NOT IN (SELECT sync FROM _pgflume_feed_tables)".to_owned().into(),
    );
    all.push(Statement::new(
        format!(
            "INSERT INTO _pgflume_feed_tables (name, filter, sync, generation) SELECT value ->> 0, value ->> 1, ?1, {NEW} FROM json_each(?2) \
             WHERE true ON CONFLICT (name) DO UPDATE SET sync = excluded.sync, filter = excluded.filter, generation = excluded.generation, is_whole = 0 \
             WHERE _pgflume_feed_tables.sync <> excluded.sync"
        ),
        vec![sync(), fed.cell()],
    ));
    all
}

/// The same where there is a log that has a row for each key: clients of all syncs begin anew.
pub(super) fn register_anew(sync: &str, fed: &Fed) -> Vec<Statement> {
    let drop = "DROP TABLE IF EXISTS _pgflume_feed".to_owned().into();
    std::iter::once(drop).chain(register(sync, fed)).chain([begin_anew(None)]).collect()
}

/// Rows of these tables, or of all, do not follow from the log. They are fed again from the next cut on.
pub(super) fn begin_anew(tables: Option<&[&str]>) -> Statement {
    let sql = format!("UPDATE _pgflume_feed_tables SET generation = {NEW}, is_whole = 0");
    match tables {
        None => sql.into(),
        Some(tables) => Statement::new(
            sql + " WHERE name IN (SELECT value FROM json_each(?1))",
            vec![Cell::Text(serde_json::json!(tables).to_string())],
        ),
    }
}

/// What a batch that leads from a head to another writes before its rows: where it is in the log. Where the last batch was
/// somebody's who does not keep the log of the same tables, all begins anew.
pub(super) fn record(sync: &str, fed: &Fed, (from, to): (&Head, &Head), emptied: &[Arc<Table>]) -> Vec<Statement> {
    let text = |text: &str| Cell::Text(text.to_owned());
    let is_unlogged = if FeedRule::Unlogged.holds() { "token <> ?2 OR fed IS NOT ?3" } else { "?2 <> ?2 OR ?3 <> ?3" };
    let mut all = vec![
        Statement::new(
            format!(
                "UPDATE _pgflume_feed_tables SET generation = {NEW}, is_whole = 0 WHERE sync = ?1 \
                 AND EXISTS (SELECT 1 FROM _pgflume_cuts WHERE sync = ?1 AND ({is_unlogged}))"
            ),
            vec![text(sync), text(&from.token), fed.cell()],
        ),
        Statement::new(
            format!(
                "UPDATE _pgflume_cuts SET token = ?2, fed = ?3, pos = max(pos + 1, {NOW} | (random() & 1048575)) WHERE sync = ?1"
            ),
            vec![text(sync), text(&to.token), fed.cell()],
        ),
    ];
    for table in emptied.iter().filter(|table| fed.names.contains(&table.name) && FeedRule::Emptied.holds()) {
        let sql = format!("UPDATE _pgflume_feed_tables SET generation = {NEW}, is_whole = 0 WHERE name = ?1");
        all.push(Statement::new(sql, vec![text(&table.name)]));
    }
    all
}

/// Which keys a batch touches of tables that are fed, but for items that the replica has as they are.
fn touching(fed: &Fed, items: &[Item], unchanged: &BTreeSet<usize>) -> Vec<Touching> {
    let (mut all, mut start) = (Vec::new(), 0);
    for run in items.chunk_by(|one, other| one.table.name == other.table.name) {
        let (positions, table) = (start..start + run.len(), &run[0].table);
        start = positions.end;
        if !fed.names.contains(&table.name) {
            continue;
        }
        let touched = positions.filter(|at| !unchanged.contains(at));
        let (gone, there): (Vec<_>, Vec<_>) = touched.partition(|&at| matches!(items[at].state, RowState::Gone));
        for (items, is_gone) in [(gone, true), (there, false)] {
            if !items.is_empty() {
                all.push(Touching { table: table.clone(), items, is_gone });
            }
        }
    }
    all
}

/// All tables of a sync but those that are held, or unseen, equal its source by now.
pub(super) fn cut(sync: Feeds<'_>, fed: &Fed, cut: &Cut) -> Vec<Statement> {
    let name = || Cell::Text(sync.name().to_owned());
    let list = |names: &BTreeSet<String>| Cell::Text(serde_json::json!(names).to_string());
    let mut all = Vec::new();
    if !cut.unseen.is_empty() {
        // Behind the last cut only somebody who is still at it has written there.
        let sql = "UPDATE _pgflume_feed_tables SET is_held = 1 WHERE sync = ?1 AND name IN (SELECT value FROM json_each(?2)) \
                   AND EXISTS (SELECT 1 FROM _pgflume_cuts AS c JOIN _pgflume_feed AS l ON l.pos > coalesce(c.cut, 0) \
                   WHERE c.sync = ?1 AND l.tab = _pgflume_feed_tables.tab)";
        all.push(Statement::new(sql, vec![name(), list(&cut.unseen)]));
    }
    let is_held = "name IN (SELECT value FROM json_each(?3))";
    all.push(Statement::new(
        "UPDATE _pgflume_cuts SET cut = pos, at = ?2 WHERE sync = ?1",
        vec![name(), cut.at.clone().map_or(Cell::Null, Cell::Text)],
    ));
    all.push(Statement::new(
        format!(
            "UPDATE _pgflume_feed_tables SET is_held = {is_held}, is_whole = is_whole OR NOT {is_held} WHERE sync = ?1 \
             AND (name, filter) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?2)) AND (is_held <> ({is_held}) OR NOT is_whole) \
             AND name NOT IN (SELECT value FROM json_each(?4))"
        ),
        vec![name(), fed.cell(), list(&cut.held), list(&cut.unseen)],
    ));
    if matches!(sync, Feeds::Pull(_)) {
        let sql =
            "INSERT OR IGNORE INTO _pgflume_past_cuts (sync, pos) SELECT sync, pos FROM _pgflume_cuts WHERE sync = ?1";
        all.push(Statement::new(sql, vec![name()]));
    }
    all
}

/// A batch leads from a head to another and touches no row: the log is as whole as before.
pub(super) fn carry(sync: &str, from: &Head, to: &Head) -> Statement {
    let text = |text: &str| Cell::Text(text.to_owned());
    let sql = "UPDATE _pgflume_cuts SET token = ?3 WHERE sync = ?1 AND token = ?2";
    Statement::new(sql, vec![text(sync), text(&from.token), text(&to.token)])
}

/// Rows of a sync's tables do not follow from the log.
fn begin_sync_anew(sync: &str) -> Statement {
    let sql = format!("UPDATE _pgflume_feed_tables SET generation = {NEW}, is_whole = 0 WHERE sync = ?1");
    Statement::new(sql, vec![Cell::Text(sync.to_owned())])
}

/// Forgets what is too old, or too much, of the tables of a sync.
fn forget(sync: Feeds<'_>, fed: &Fed, retention: Duration) -> Vec<Statement> {
    let of_table = "FROM _pgflume_feed AS l WHERE l.tab = _pgflume_feed_tables.tab";
    let old = format!("SELECT l.pos {of_table} AND l.pos <= {NOW} - (?2 << 20) ORDER BY l.pos LIMIT {FORGOTTEN_ROWS}");
    // What is more than there may be is at the front: from one position to the next, as long as there is enough behind it.
    let next = "(SELECT min(m.pos) FROM _pgflume_feed AS m WHERE m.tab = _pgflume_feed_tables.tab AND m.pos > g.pos)";
    let more = format!(
        "WITH RECURSIVE g(pos, past) AS (SELECT 0, (SELECT l.past {of_table} ORDER BY l.pos DESC, l.part DESC LIMIT 1) - {MOST_ROWS} \
         UNION ALL SELECT {next}, g.past FROM g WHERE (SELECT l.past {of_table} AND l.pos = {next} ORDER BY l.part DESC LIMIT 1) <= g.past \
         LIMIT {FORGOTTEN_ROWS}) SELECT max(pos) FROM g"
    );
    let name = || Cell::Text(sync.name().to_owned());
    let ms = Cell::Integer(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX >> 20));
    let mut all = vec![Statement::new(
        format!(
            "UPDATE _pgflume_feed_tables SET floor = max(floor, coalesce((SELECT max(pos) FROM ({old})), 0), coalesce(({more}), 0)) WHERE sync = ?1"
        ),
        vec![name(), ms.clone()],
    )];
    // A range of the log each, which SQLite removes a page at a time.
    let range = "DELETE FROM _pgflume_feed WHERE tab = (SELECT tab FROM _pgflume_feed_tables WHERE sync = ?1 AND name = ?2) \
                 AND pos <= (SELECT floor FROM _pgflume_feed_tables WHERE sync = ?1 AND name = ?2)";
    all.extend(fed.names.iter().map(|table| Statement::new(range, vec![name(), Cell::Text(table.clone())])));
    if matches!(sync, Feeds::Pull(_)) {
        // But for the last of them, at which those are who heard nothing since.
        let sql = format!(
            "DELETE FROM _pgflume_past_cuts WHERE sync = ?1 AND pos < (SELECT max(pos) FROM _pgflume_past_cuts WHERE sync = ?1 \
             AND pos <= max({NOW} - (?2 << 20), coalesce((SELECT pos FROM _pgflume_past_cuts WHERE sync = ?1 \
             ORDER BY pos DESC LIMIT 1 OFFSET {MOST_ROWS}), 0)))"
        );
        all.push(Statement::new(sql, vec![name(), ms]));
    }
    all
}

/// Where a replica says how far its writers are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fences {
    /// In the head of a queue.
    pub queue: bool,
    /// In the rows of syncs that pull.
    pub pulls: bool,
}

/// What is known of the log by those who write a replica, or read it.
#[derive(Debug, Default)]
pub(super) struct Logging {
    /// Where its writers say how far they are.
    fences: RwLock<Option<Fences>>,
    /// The tables that are fed.
    fed: RwLock<Arc<Fed>>,
    /// Not all of them are known to be as of the last cut, though the source may have nothing more to say.
    pub is_to_cut: AtomicBool,
    /// Those that were left out of the last cut.
    held: Mutex<BTreeSet<String>>,
    /// Those that have all of their rows, as far as is known.
    whole: Mutex<BTreeSet<String>>,
    /// When old rows were last looked for.
    forgot_at: Mutex<Option<Instant>>,
    /// How long the log is kept, where that is said.
    retention: RwLock<Option<Duration>>,
}

impl Logging {
    pub fn fed(&self) -> Arc<Fed> {
        self.fed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn feed(&self, fed: Arc<Fed>) {
        *self.fed.write().unwrap_or_else(PoisonError::into_inner) = fed;
    }

    /// Says how long the log is kept.
    pub fn keep_for(&self, retention: Duration) {
        *self.retention.write().unwrap_or_else(PoisonError::into_inner) = Some(retention);
    }

    fn retention(&self) -> Duration {
        self.retention.read().unwrap_or_else(PoisonError::into_inner).unwrap_or(RETENTION)
    }

    fn is_to_forget(&self) -> bool {
        let mut at = self.forgot_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = at.is_none_or(|at| at.elapsed() >= FORGETS_EVERY);
        if is_due {
            *at = Some(Instant::now());
        }
        is_due
    }

    /// Adds to a batch of a sync that leads from a head to another what the log keeps of it; nothing of the items at the
    /// positions `unchanged`, which the replica has as they are.
    pub fn add(
        &self,
        work: &mut Work,
        sync: Feeds<'_>,
        heads: (&Head, &Head),
        cut_to: Option<&Cut>,
        unchanged: &BTreeSet<usize>,
    ) {
        let fed = self.fed();
        if fed.names.is_empty() {
            return;
        }
        work.before.extend(record(sync.name(), &fed, heads, &work.emptied));
        work.touching = touching(&fed, work.items(), unchanged);
        if let Some(to) = cut_to {
            work.after.extend(cut(sync, &fed, to));
        }
        if self.is_to_forget() {
            work.after.extend(forget(sync, &fed, self.retention()));
        }
    }

    /// Adds the same to one that brings no rows; `is_altering`: it alters tables of the sync.
    pub fn add_altering(&self, work: &mut Work, sync: Feeds<'_>, heads: (&Head, &Head), is_altering: bool) {
        self.add(work, sync, heads, None, &BTreeSet::new());
        if is_altering && !self.fed().names.is_empty() {
            work.before.push(begin_sync_anew(sync.name()));
        }
    }

    /// After it was written.
    pub fn added(&self, cut: Option<&Cut>) {
        self.is_to_cut.store(cut.is_none(), Ordering::Relaxed);
        if let Some(Cut { held, unseen, .. }) = cut {
            self.hold(held);
            let names = self.fed().names.clone();
            let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
            let is_whole =
                |name: &String| if unseen.contains(name) { whole.contains(name) } else { !held.contains(name) };
            *whole = names.into_iter().filter(is_whole).collect();
        }
    }

    pub fn hold(&self, held: &BTreeSet<String>) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone_from(held);
    }

    pub fn holds(&self, held: &BTreeSet<String>) -> bool {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) == *held
    }

    pub fn fences(&self) -> Option<Fences> {
        *self.fences.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note_fences(&self, fences: Fences) {
        *self.fences.write().unwrap_or_else(PoisonError::into_inner) = Some(fences);
    }

    pub fn forget_fences(&self) {
        *self.fences.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// These tables have all of their rows.
    pub fn note_whole(&self, whole: BTreeSet<String>) {
        *self.whole.lock().unwrap_or_else(PoisonError::into_inner) = whole;
    }

    /// This one has.
    pub fn note_whole_table(&self, table: &str) {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(table.to_owned());
    }

    /// These tables, or all, may lack some from now on.
    pub fn doubt_whole(&self, tables: Option<&[&str]>) {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        whole.retain(|name| tables.is_some_and(|tables| !tables.contains(&name.as_str())));
    }

    /// Whether a table is fed and has all of its rows, as far as is known.
    pub fn is_whole(&self, table: &str) -> bool {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).contains(table)
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::super::store::{Rows, Store as _};
    use super::*;
    use crate::core::schema::Schema;

    const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER"},"feed":{"public":true}},
        "u":{"primaryKey":"id","columns":{"id":"INTEGER"},"feed":{"public":true}}}"#;

    async fn run(store: &Memory, before: Vec<Statement>) {
        store.write(Work { before, ..Work::default() }).await.unwrap();
    }

    async fn left(store: &Memory) -> Rows {
        let sql = "SELECT f.name, f.floor & 1048575, (SELECT sum(l.rows) FROM _pgflume_feed AS l WHERE l.tab = f.tab) \
                   FROM _pgflume_feed_tables AS f ORDER BY 1";
        store.query(sql.to_owned().into()).await.unwrap()
    }

    #[tokio::test]
    async fn a_table_keeps_its_last_million_keys_and_what_is_not_too_old() {
        let (store, schema) = (Memory::new().unwrap(), Schema::parse(TABLES).unwrap());
        let tables: Vec<&Table> = schema.tables().map(|table| &**table).collect();
        let fed = Fed::of(&tables);
        run(&store, register("s", &fed)).await;
        let log = |table: &str, parts: i64, since: &str| -> Statement {
            format!(
                "INSERT INTO _pgflume_feed SELECT f.tab, {NOW} - ({since} << 20) + n, 0, 1000, 1000 * n, '[]' FROM _pgflume_feed_tables AS f, \
                 (WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < {parts}) SELECT n FROM i) WHERE f.name = '{table}'"
            )
            .into()
        };
        let clear = || vec!["UPDATE _pgflume_feed SET pos = (pos & ~1048575) | (past / 1000)".to_owned().into()];
        let row = |name: &str, floor: i64, rows: i64| {
            vec![Cell::Text(name.to_owned()), Cell::Integer(floor), Cell::Integer(rows)]
        };
        // A minute ago.
        run(&store, vec![log("t", 1_300, "60000"), log("u", 900, "60000")]).await;
        run(&store, clear()).await;
        // One position with eleven parts, some of which are among the last million.
        let together = "UPDATE _pgflume_feed SET part = past / 1000, pos = pos - (pos & 1048575) + 305 WHERE past / 1000 BETWEEN 295 AND 305 \
             AND tab = (SELECT tab FROM _pgflume_feed_tables WHERE name = 't')";
        run(&store, vec![together.to_owned().into()]).await;
        let forgets = |seconds| forget(Feeds::Queue("s"), &fed, Duration::from_secs(seconds));
        run(&store, forgets(3600)).await;
        assert_eq!(left(&store).await, [row("t", 294, 1_006_000), row("u", 0, 900_000)]);
        run(&store, forgets(3600)).await;
        assert_eq!(left(&store).await, [row("t", 294, 1_006_000), row("u", 0, 900_000)]);
        run(&store, forgets(30)).await;
        let all = left(&store).await;
        let gone = |name: &str, floor: i64| vec![Cell::Text(name.to_owned()), Cell::Integer(floor), Cell::Null];
        assert_eq!(all, [gone("t", 1_300), gone("u", 900)]);
    }
}
