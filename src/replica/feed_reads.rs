//! Reads what clients are fed: where a table is in the log, pages of its rows, and the keys that have changed behind a
//! position, with what they were and what they are. Everything that one call gives is of one state of the replica.

use super::feed_log::Fences;
use super::store::{Rows, Statement};
use super::{Replica, statements};
use crate::core::error::{Error, ErrorKind, Result};
use crate::core::failpoint::FeedRule;
use crate::core::schema::{Column, ColumnType, Table, ddl, quote};
use crate::core::token::Seen;
use crate::core::value::{Cell, Key};
use std::collections::{BTreeMap, BTreeSet};

/// Where a fed table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fed {
    /// Another one for rows that do not follow from the log.
    pub generation: String,
    /// All rows are there, and the log has what came since.
    pub is_whole: bool,
    /// The table was left out of the last cut: it waits, or is copied.
    pub is_held: bool,
    /// The log's last position.
    pub pos: i64,
    /// The last position at which all tables but those that are held equalled the source together.
    pub cut: Option<i64>,
    /// Behind this position the log is whole.
    pub floor: i64,
    /// The last position at which this table was touched, as far as the log goes back.
    pub last: Option<i64>,
    /// The source's type of each column as a JSON object, where that is known.
    pub types: Option<String>,
    /// What its rows are known to see of the source, where clients write there.
    pub seen: Option<Seen>,
}

impl Fed {
    /// The cut from which on clients can be told of it, if there is one.
    pub fn begins_at(&self) -> Option<i64> {
        self.cut.filter(|cut| self.is_whole && *cut >= self.floor)
    }

    /// Where the table is as it was at the last cut, that.
    pub fn at_cut(&self) -> Option<i64> {
        let is_touched = |cut: &i64| FeedRule::AtCut.holds() && self.last.is_some_and(|last| last > *cut);
        self.cut.filter(|cut| self.is_whole && !self.is_held && !is_touched(cut))
    }
}

/// A row that a page gives.
#[derive(Debug, Clone, PartialEq)]
pub struct FedRow {
    /// Its place in the table, behind which the next page goes on.
    pub rowid: i64,
    /// All of its cells; NULL for those that were not asked for.
    pub cells: Vec<Cell>,
}

/// A key that batches have touched.
#[derive(Debug, Clone, PartialEq)]
pub struct Touched {
    /// As the log has it.
    place: String,
    /// The position of the first of those batches.
    pub pos: i64,
    /// The columns that clients filter by, as they were before the first of those batches, in the definition's order;
    /// `None`: there was no row.
    pub was: Option<Vec<Cell>>,
}

impl Touched {
    /// Tells it from other keys of its table.
    pub fn place(&self) -> &str {
        &self.place
    }
}

/// The key of a row, and all of its cells; `None`: there is no row.
pub type Current = (Key, Option<Vec<Cell>>);

/// Columns, by position, each with the values that a row may have there: all of them have to agree.
pub type Allowed = BTreeMap<usize, Vec<Cell>>;

fn damaged() -> Error {
    Error::side(
        "the tables that clients are fed from are damaged: drop _pgflume_feed_tables, and the next drain makes them anew",
    )
}

impl Replica {
    /// Where a table is; `None` where it is not fed yet, or its replica is somebody's who does not keep the log.
    pub async fn fed(&self, table: &Table) -> Result<Option<Fed>> {
        Ok(self.read_fed(table, None, None).await?.map(|(fed, _)| fed))
    }

    /// The last cut of a sync.
    pub async fn fed_cut(&self, sync: &str) -> Result<Option<i64>> {
        let sql = "SELECT cut FROM _pgflume_cuts WHERE sync = ?1";
        match self.store.read(Statement::new(sql, vec![Cell::Text(sync.to_owned())])).await {
            Err(e) if is_unmade(&e) => Ok(None),
            rows => Ok(match rows?.first().map(Vec::as_slice) {
                Some([Cell::Integer(cut)]) => Some(*cut),
                _ => None,
            }),
        }
    }

    /// A page of at most `limit` rows of a table behind a rowid, without those whose keys were touched behind the position
    /// `since`; and where the table is.
    pub async fn fed_page(
        &self,
        table: &Table,
        needed: &BTreeSet<usize>,
        (since, after): (i64, Option<i64>),
        allowed: &Allowed,
        limit: usize,
    ) -> Result<Option<(Fed, Vec<FedRow>)>> {
        let page = page(table, needed, (since, after), allowed, limit);
        let Some((fed, rows)) = self.read_fed(table, Some(since), Some(page)).await? else { return Ok(None) };
        let row = |mut row: Vec<Cell>| match (row.pop(), row) {
            (Some(Cell::Integer(rowid)), cells) => Ok(FedRow { rowid, cells }),
            _ => Err(damaged()),
        };
        Ok(Some((fed, rows.into_iter().map(row).collect::<Result<_>>()?)))
    }

    /// At most `limit` keys of a table that were touched behind a position; and where the table is.
    pub async fn fed_touched(&self, table: &Table, since: i64, limit: usize) -> Result<Option<(Fed, Vec<Touched>)>> {
        let keys = touched(table, since, limit);
        let Some((fed, rows)) = self.read_fed(table, Some(since), Some(keys)).await? else { return Ok(None) };
        let filters = table.fed_filters().len();
        let read = |row: Vec<Cell>| {
            let [place, was, pos] = <[Cell; 3]>::try_from(row).ok()?;
            let Cell::Integer(pos) = pos else { return None };
            let was = match was.as_text() {
                None | Some("null") => None,
                Some(text) => Some(values(text).filter(|values| values.len() == filters)?),
            };
            Some(Touched { place: place.as_text()?.to_owned(), pos, was })
        };
        Ok(Some((fed, rows.into_iter().map(|row| read(row).ok_or_else(damaged)).collect::<Result<_>>()?)))
    }

    /// What is under these keys, in their order; and where the table is.
    pub async fn fed_rows(
        &self,
        table: &Table,
        needed: &BTreeSet<usize>,
        keys: &[Touched],
    ) -> Result<Option<(Fed, Vec<Current>)>> {
        let rows = current(table, needed, keys);
        let Some((fed, rows)) = self.read_fed(table, None, Some(rows)).await? else { return Ok(None) };
        let read = |mut row: Vec<Cell>| {
            let cells =
                (row.len() == 1 + table.key.len() + table.columns.len()).then(|| row.split_off(1 + table.key.len()))?;
            let key = row.split_off(1);
            Some((key, (row.first() == Some(&Cell::Integer(1))).then_some(cells)))
        };
        Ok(Some((fed, rows.into_iter().map(|row| read(row).ok_or_else(damaged)).collect::<Result<_>>()?)))
    }

    /// Where a table is, for one who was told of the cut `since`, and rows of the same state; `None` where nobody keeps the
    /// log of what is there.
    async fn read_fed(
        &self,
        table: &Table,
        since: Option<i64>,
        rows: Option<Statement>,
    ) -> Result<Option<(Fed, Rows)>> {
        let found = match state(table, self.fences().await?, since) {
            None => None,
            Some(state) => match self.read_with(state, rows).await {
                Err(e) if is_unmade(&e) => None,
                found => {
                    let (state, rows) = found?;
                    fed(state)?.map(|fed| (fed, rows))
                }
            },
        };
        if found.is_none() {
            self.logging.forget_fences(); // there may be others by now
        }
        Ok(found)
    }

    async fn read_with(&self, state: Statement, rows: Option<Statement>) -> Result<(Rows, Rows)> {
        let Some(rows) = rows else { return Ok((self.store.read(state).await?, Rows::new())) };
        let mut both = self.store.read_together(vec![state, rows]).await?.into_iter();
        Ok((both.next().unwrap_or_default(), both.next().unwrap_or_default()))
    }

    /// Who may write to the replica.
    async fn fences(&self) -> Result<Fences> {
        if let Some(fences) = self.logging.fences() {
            return Ok(fences);
        }
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('_pgflume_head', '_pgflume_pulls')";
        let rows = self.store.read(Statement::new(sql, Vec::new())).await?;
        let has = |name: &str| rows.iter().flatten().any(|cell| cell.as_text() == Some(name));
        let fences = Fences { queue: has("_pgflume_head"), pulls: has("_pgflume_pulls") };
        self.logging.note_fences(fences);
        Ok(fences)
    }
}

/// Whether the tables of the log are not there, or those of the replica.
fn is_unmade(error: &Error) -> bool {
    *error.kind() == ErrorKind::Schema
}

/// Where a table is, if whoever wrote to its sync last keeps the log, and has said of which types it is; `None` where nobody
/// writes.
fn state(table: &Table, fences: Fences, since: Option<i64>) -> Option<Statement> {
    let queue = "EXISTS (SELECT 1 FROM _pgflume_head AS h WHERE h.id = 1 AND h.token = c.token)";
    let pull = "EXISTS (SELECT 1 FROM _pgflume_pulls AS p JOIN _pgflume_owners AS o ON o.sync = p.name \
                WHERE p.name = f.sync AND p.token = c.token AND o.\"table\" = f.name)";
    let writers: Vec<&str> = fences.queue.then_some(queue).into_iter().chain(fences.pulls.then_some(pull)).collect();
    if writers.is_empty() {
        return None;
    }
    // Of a replica that fell back nobody else says that there was a later cut.
    let is_lost = "EXISTS (SELECT 1 FROM _pgflume_pulls AS p WHERE p.name = f.sync) \
                   AND NOT EXISTS (SELECT 1 FROM _pgflume_past_cuts AS b WHERE b.sync = f.sync AND b.pos = ?2)";
    let floor = match since {
        Some(_) if fences.pulls && FeedRule::KnownCut.holds() => {
            format!("iif({is_lost}, max(f.floor, ?2 + 1), f.floor)")
        }
        _ => "f.floor".to_owned(),
    };
    // Who writes there wants to know whether that is among the rows.
    let seen = match table.writable {
        Some(_) => {
            "(SELECT json_array(y.seen_below, y.seen_before, json(y.running)) FROM _pgflume_syncs AS y WHERE y.name = f.sync \
             AND (y.kind <> 'queue' OR y.epoch IS NULL OR y.epoch = (SELECT h.epoch FROM _pgflume_head AS h)))"
        }
        None => "NULL",
    };
    let sql = format!(
        "SELECT f.generation, f.is_whole, f.is_held, c.pos, c.cut, {floor}, \
         (SELECT max(l.pos) FROM _pgflume_feed AS l WHERE l.tab = f.tab), s.types, {seen} \
         FROM _pgflume_feed_tables AS f JOIN _pgflume_cuts AS c ON c.sync = f.sync AND ({}) \
         JOIN _pgflume_states AS s ON s.\"table\" = f.name WHERE f.name = ?1",
        writers.join(" OR ")
    );
    let mut args = vec![Cell::Text(table.name.clone())];
    args.extend(since.filter(|_| floor.contains("?2")).map(Cell::Integer));
    Some(Statement::new(sql, args))
}

fn fed(rows: Rows) -> Result<Option<Fed>> {
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let [generation, is_whole, is_held, pos, cut, floor, last, types, seen] =
        <[Cell; 9]>::try_from(row).map_err(|_| damaged())?;
    let number = |cell: &Cell| if let Cell::Integer(number) = cell { Ok(*number) } else { Err(damaged()) };
    Ok(Some(Fed {
        generation: generation.as_text().ok_or_else(damaged)?.to_owned(),
        is_whole: number(&is_whole)? != 0,
        is_held: number(&is_held)? != 0,
        pos: number(&pos)?,
        cut: number(&cut).ok(),
        floor: number(&floor)?,
        last: number(&last).ok(),
        types: types.as_text().map(str::to_owned),
        seen: seen.as_text().and_then(|seen| {
            let (xmin, xmax, running) = serde_json::from_str(seen).ok()?;
            Some(Seen { xmin, xmax, running })
        }),
    }))
}

/// SQL for the number of a table in the log.
const TAB: &str = "(SELECT f.tab FROM _pgflume_feed_tables AS f WHERE f.name = ?1)";

fn has_reals(table: &Table) -> bool {
    table.key_columns().any(|column| column.kind == ColumnType::Real)
}

/// SQL for all columns of a row `t`, NULL for those that are not needed.
fn columns(table: &Table, needed: &BTreeSet<usize>) -> String {
    let column = |(at, column): (usize, &Column)| match needed.contains(&at) || table.key.contains(&at) {
        true => format!("t.{}", quote(&column.name)),
        false => "NULL".to_owned(),
    };
    table.columns.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
}

fn page(
    table: &Table,
    needed: &BTreeSet<usize>,
    (since, after): (i64, Option<i64>),
    allowed: &Allowed,
    limit: usize,
) -> Statement {
    let (name, reals, columns) = (quote(&table.name), has_reals(table), columns(table, needed));
    let mut args = vec![Cell::Text(table.name.clone()), Cell::Integer(since)];
    let mut conditions = Vec::new();
    if let Some(after) = after {
        args.push(Cell::Integer(after));
        conditions.push(format!("t.rowid > ?{} AND ", args.len()));
    }
    for (&at, values) in allowed {
        let Column { name, kind } = &table.columns[at];
        let marks = values.iter().map(|value| {
            args.push(value.clone());
            format!("?{}", args.len())
        });
        let marks = marks.collect::<Vec<_>>().join(", ");
        conditions.push(format!("t.{}{} IN ({marks}) AND ", quote(name), ddl::collation(*kind)));
    }
    let touched = if FeedRule::LeaveTouched.holds() { "f.pos > ?2" } else { "f.pos > ?2 AND false" };
    let sql = format!(
        "{}SELECT {columns}, t.rowid FROM {name} AS t WHERE {}t.rowid NOT IN (SELECT t.rowid FROM \
         (SELECT k.value -> 0 AS v FROM _pgflume_feed AS f, json_each(f.touched) AS k WHERE f.tab = {TAB} AND {touched}) AS l JOIN {name} AS t ON {}) ORDER BY t.rowid LIMIT {limit}",
        statements::powers(reals),
        conditions.concat(),
        statements::has_key(table, "l.v", reals),
    );
    Statement::new(sql, args)
}

fn touched(table: &Table, since: i64, limit: usize) -> Statement {
    let first = if FeedRule::FirstRow.holds() { "min" } else { "max" };
    // Of several rows of a group, SQLite takes the other columns from the one that has the least.
    let sql = format!(
        "SELECT k.value -> 0 AS k, k.value -> 1, {first}(l.pos) FROM _pgflume_feed AS l, json_each(l.touched) AS k \
         WHERE l.tab = {TAB} AND l.pos > ?2 GROUP BY k LIMIT {limit}"
    );
    Statement::new(sql, vec![Cell::Text(table.name.clone()), Cell::Integer(since)])
}

fn current(table: &Table, needed: &BTreeSet<usize>, keys: &[Touched]) -> Statement {
    let (name, reals, columns) = (quote(&table.name), has_reals(table), columns(table, needed));
    let key = statements::json_value_list(table, &table.key, reals, "l.v");
    let sql = format!(
        "{}SELECT t.rowid IS NOT NULL, {}, {} FROM (SELECT key AS i, value AS v FROM json_each(?1) LIMIT -1 OFFSET 0) AS l \
         LEFT JOIN {name} AS t ON {} ORDER BY l.i",
        statements::powers(reals),
        key.join(", "),
        columns,
        statements::has_key(table, "l.v", reals),
    );
    let places: Vec<&str> = keys.iter().map(|key| key.place.as_str()).collect();
    Statement::new(sql, vec![Cell::Text(format!("[{}]", places.join(",")))])
}

/// Text and whole numbers of a JSON array.
fn values(json: &str) -> Option<Vec<Cell>> {
    let values: Vec<serde_json::Value> = serde_json::from_str(json).ok()?;
    let cell = |value| match value {
        serde_json::Value::Null => Some(Cell::Null),
        serde_json::Value::String(text) => Some(Cell::Text(text)),
        serde_json::Value::Number(number) => number.as_i64().map(Cell::Integer),
        _ => None,
    };
    values.into_iter().map(cell).collect()
}
