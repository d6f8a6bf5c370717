//! What clients are fed from: a log of the keys that batches touch (`_pgflume_feed`), written in their own transactions,
//! and the cuts at which all tables of a sync equalled one snapshot of its source (`_pgflume_cuts`). Nothing of it is there
//! unless a table of `schema.json` is fed. Pure SQL texts, and what a writer remembers of it.
//!
//! A row of the log says what its key was before its batch: `was` is NULL where there was no row, else the JSON of the
//! columns that clients filter by. A position is a number of a batch, above all before it, also of an earlier epoch:
//! clients keep it. Its low bits are random, so that no two histories share one.

use super::arrays::{Array, arrays};
use super::statements;
use super::store::{Statement, Work};
use crate::core::batch::{Item, RowState};
use crate::core::failpoint::FeedRule;
use crate::core::position::Head;
use crate::core::schema::{Column, Table, ddl, quote};
use crate::core::value::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The table of the tables that are fed.
pub(crate) const TABLES: &str = "_pgflume_feed_tables";

/// Rows of the log that are kept at the most.
const MOST_ROWS: i64 = 1_000_000;

/// Rows of it that are forgotten at once, and a batch's more.
const FORGOTTEN_ROWS: i64 = 20_000;

/// How often old rows are looked for.
const FORGETS_EVERY: Duration = Duration::from_secs(30);

/// How long the log is kept.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// A name that was never used.
const NEW: &str = "lower(hex(randomblob(12)))";

/// The least position of now: milliseconds since 1970 above 20 bits.
const NOW: &str = "(CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) << 20)";

const CREATE: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS _pgflume_feed (pos INTEGER NOT NULL, tab INTEGER NOT NULL, key TEXT NOT NULL, was TEXT, \
     PRIMARY KEY (pos, tab, key)) WITHOUT ROWID",
    // `token`: of the head that the last batch led to; `pos`: its position; `cut`: the last that is one; `floor`: behind it
    // the log is whole.
    "CREATE TABLE IF NOT EXISTS _pgflume_cuts (sync TEXT PRIMARY KEY, token TEXT NOT NULL, pos INTEGER NOT NULL, cut INTEGER, \
     at TEXT, floor INTEGER NOT NULL)",
    // `generation`: another one for rows that do not follow from the log; `is_whole`: all rows are there, and logged since.
    "CREATE TABLE IF NOT EXISTS _pgflume_feed_tables (tab INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, \
     sync TEXT NOT NULL, filter TEXT NOT NULL, generation TEXT NOT NULL, is_whole INTEGER NOT NULL DEFAULT 0)",
];

/// The tables of a sync that are fed, and whether each is as of the last cut.
pub(super) const SELECT_FED: &str = "SELECT f.name, f.filter, f.is_whole AND c.cut IS c.pos AND c.token IS h.token FROM _pgflume_feed_tables AS f \
     JOIN _pgflume_cuts AS c ON c.sync = f.sync LEFT JOIN _pgflume_head AS h ON h.id = 1 WHERE f.sync = ?1";

pub(super) fn filter_text(table: &Table) -> String {
    let names: Vec<&str> = table.fed_filters().into_iter().map(|at| table.columns[at].name.as_str()).collect();
    serde_json::json!(names).to_string()
}

/// Says which tables of a sync are fed: what is new, or is filtered by other columns, is not whole until the next cut.
pub(super) fn register(sync: &str, fed: &[&Table]) -> Vec<Statement> {
    let fed: Vec<[String; 2]> = fed.iter().map(|table| [table.name.clone(), filter_text(table)]).collect();
    let fed = Cell::Text(serde_json::json!(fed).to_string());
    let sync = || Cell::Text(sync.to_owned());
    let named = "SELECT value ->> 0, value ->> 1 FROM json_each(?2)";
    let mut all: Vec<Statement> = CREATE.iter().map(|sql| (*sql).to_owned().into()).collect();
    all.push(Statement::new(
        "INSERT OR IGNORE INTO _pgflume_cuts (sync, token, pos, floor) VALUES (?1, '', 0, 0)",
        vec![sync()],
    ));
    all.push(Statement::new(
        format!("DELETE FROM _pgflume_feed_tables WHERE sync = ?1 AND (name, filter) NOT IN ({named})"),
        vec![sync(), fed.clone()],
    ));
    all.push("DELETE FROM _pgflume_feed WHERE tab NOT IN (SELECT tab FROM _pgflume_feed_tables)".to_owned().into());
    all.push(Statement::new(
        format!(
            "INSERT INTO _pgflume_feed_tables (name, filter, sync, generation) SELECT value ->> 0, value ->> 1, ?1, {NEW} FROM json_each(?2) \
             WHERE true ON CONFLICT (name) DO UPDATE SET sync = excluded.sync, filter = excluded.filter, generation = excluded.generation, is_whole = 0 \
             WHERE _pgflume_feed_tables.sync <> excluded.sync"
        ),
        vec![sync(), fed],
    ));
    all
}

/// Of all tables, or of a sync's: rows that do not follow from the log. They are fed again from the next cut on.
pub(super) fn begin_anew() -> Statement {
    format!("UPDATE _pgflume_feed_tables SET generation = {NEW}, is_whole = 0").into()
}

/// What a batch that leads from a head to another writes before its rows: where it is in the log, and what its keys were.
/// Where the last batch was somebody's who does not keep the log, all begins anew.
pub(super) fn record(sync: &str, from: &Head, to: &Head, items: &[Item], emptied: &[Arc<Table>]) -> Vec<Statement> {
    let text = |text: &str| Cell::Text(text.to_owned());
    let mut all = vec![
        Statement::new(
            format!(
                "UPDATE _pgflume_feed_tables SET generation = {NEW}, is_whole = 0 WHERE sync = ?1 \
                 AND EXISTS (SELECT 1 FROM _pgflume_cuts WHERE sync = ?1 AND token <> ?2)"
            ),
            vec![text(sync), text(&from.token)],
        ),
        Statement::new(
            format!(
                "UPDATE _pgflume_cuts SET token = ?2, pos = max(pos + 1, {NOW} | (random() & 1048575)) WHERE sync = ?1"
            ),
            vec![text(sync), text(&to.token)],
        ),
    ];
    for table in emptied.iter().filter(|table| table.feed.is_some() && FeedRule::Emptied.holds()) {
        let sql = format!("UPDATE _pgflume_feed_tables SET generation = {NEW}, is_whole = 0 WHERE name = ?1");
        all.push(Statement::new(sql, vec![text(&table.name)]));
    }
    let mut rest = items;
    while let Some(first) = rest.first() {
        let end = rest.iter().position(|item| item.table.name != first.table.name).unwrap_or(rest.len());
        let (of_table, others) = rest.split_at(end);
        if first.table.feed.is_some() {
            let (gone, there): (Vec<&Item>, Vec<&Item>) =
                of_table.iter().partition(|item| matches!(item.state, RowState::Gone));
            all.extend(log(&first.table, &gone, true));
            all.extend(log(&first.table, &there, false));
        }
        rest = others;
    }
    all
}

/// What keys of a table were; `is_gone`: of those that were there only.
fn log(table: &Table, items: &[&Item], is_gone: bool) -> Vec<Statement> {
    let kinds: Vec<_> = table.key_columns().map(|column| column.kind).collect();
    let keys: Vec<&[Cell]> = items.iter().map(|item| &item.key[..]).filter(|key| !statements::has_null(key)).collect();
    let (name, was) = (quote(&table.name), filtered(table));
    let join = if is_gone { "JOIN" } else { "LEFT JOIN" };
    let statement = |array: Array| {
        let sql = format!(
            "{}INSERT OR IGNORE INTO _pgflume_feed (pos, tab, key, was) \
             SELECT c.pos, f.tab, k.v, CASE WHEN t.rowid IS NOT NULL THEN {was} END \
             FROM _pgflume_feed_tables AS f JOIN _pgflume_cuts AS c ON c.sync = f.sync \
             JOIN {} AS k {join} {name} AS t ON {} WHERE f.name = ?2 AND f.is_whole",
            statements::powers(array.far_reals),
            statements::json_rows(table, &table.key),
            same_key(table, "k.v", array.far_reals),
        );
        Statement::new(sql, vec![Cell::Text(array.text), Cell::Text(table.name.clone())])
    };
    arrays(&kinds, &keys).into_iter().map(statement).collect()
}

/// SQL for the JSON of the columns that a row `t` is filtered by.
fn filtered(table: &Table) -> String {
    let columns = table.fed_filters().into_iter().map(|i| format!("t.{}", quote(&table.columns[i].name)));
    format!("json_array({})", columns.collect::<Vec<_>>().join(", "))
}

/// SQL for a row `t` to have the key that an array of slots stands for.
pub(super) fn same_key(table: &Table, slots: &str, far_reals: bool) -> String {
    let values = statements::json_value_list(table, &table.key, far_reals, slots);
    let equal = |(column, value): (&Column, String)| {
        format!("t.{} = {value}{}", quote(&column.name), ddl::collation(column.kind))
    };
    table.key_columns().zip(values).map(equal).collect::<Vec<_>>().join(" AND ")
}

/// All tables of a sync equal its source's snapshot of this time by now.
pub(super) fn cut(sync: &str, at: Option<&str>, forgets: Option<Duration>) -> Vec<Statement> {
    let text = |text: &str| Cell::Text(text.to_owned());
    let at = at.map_or(Cell::Null, text);
    let mut all = vec![
        Statement::new("UPDATE _pgflume_cuts SET cut = pos, at = ?2 WHERE sync = ?1", vec![text(sync), at]),
        Statement::new(
            "UPDATE _pgflume_feed_tables SET is_whole = 1 WHERE sync = ?1 AND NOT is_whole",
            vec![text(sync)],
        ),
    ];
    if let Some(retention) = forgets {
        // All up to a position: those that are too old, or too many.
        let until = format!(
            "(SELECT max(pos) FROM (SELECT pos FROM _pgflume_feed WHERE pos <= max({NOW} - (?1 << 20), \
             coalesce((SELECT pos FROM _pgflume_feed ORDER BY pos DESC LIMIT 1 OFFSET {MOST_ROWS}), 0)) ORDER BY pos LIMIT {FORGOTTEN_ROWS}))"
        );
        let ms = || vec![Cell::Integer(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX >> 20))];
        let floor = format!(
            "UPDATE _pgflume_cuts SET floor = max(floor, coalesce((SELECT max(l.pos) FROM _pgflume_feed AS l JOIN _pgflume_feed_tables AS f \
             ON f.tab = l.tab WHERE l.pos <= {until} AND f.sync = _pgflume_cuts.sync), 0))"
        );
        all.push(Statement::new(floor, ms()));
        all.push(Statement::new(format!("DELETE FROM _pgflume_feed WHERE pos <= {until}"), ms()));
    }
    all
}

/// What a replica's writer knows of the log.
#[derive(Debug, Default)]
pub(super) struct Logging {
    /// Tables are fed.
    pub is_on: AtomicBool,
    /// Not all of them are known to equal a cut, though the source may have nothing more to say.
    pub is_to_cut: AtomicBool,
    /// When old rows were last looked for.
    forgot_at: Mutex<Option<Instant>>,
}

impl Logging {
    /// How long the log is kept, where it is time to look for what is older.
    pub fn forgets(&self) -> Option<Duration> {
        let mut at = self.forgot_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = at.is_none_or(|at| at.elapsed() >= FORGETS_EVERY);
        is_due.then(|| {
            *at = Some(Instant::now());
            RETENTION
        })
    }

    /// Adds to a batch of a sync that leads from a head to another what the log keeps of it.
    pub(super) fn add(&self, work: &mut Work, sync: &str, (from, to): (&Head, &Head), cut_at: Option<Option<&str>>) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        let logged = record(sync, from, to, work.items(), &work.emptied);
        work.before.extend(logged);
        if let Some(at) = cut_at {
            work.after.extend(cut(sync, at, self.forgets()));
        }
        self.is_to_cut.store(cut_at.is_none(), Ordering::Relaxed);
    }
}
