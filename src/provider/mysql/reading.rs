//! Reads rows of one table in parts: pages in the order of the key, or the rows under keys that were found. Whoever is
//! asked for by key is compared by bytes: a collation takes `a` and `A` for one.

use super::marks::Mark;
use super::statements::{Bounds, Readable};
use crate::core::error::{Cause, Error, Result, Side};
use crate::core::keys::texts_of;
use crate::core::message::MarkedKey;
use crate::core::value::{Cell, Key};
use crate::mysql::binlog::Place;
use crate::mysql::session::{Session, of_table};
use crate::mysql::values;
use crate::provider::{Found, Limits, Part, Unfit};
use mysql_async::{Row, Value};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Rows of a first page, fewer where they may be long, and at most.
const FIRST_ROWS: usize = 500;
const FIRST_LONG_ROWS: usize = 8;
const MOST_ROWS: usize = 10_000;

/// Bytes of keys that one statement asks for: a server may take no more than a megabyte.
const KEY_BYTES: usize = 1 << 18;

/// Keys that one statement asks for, and values in them: from a thousand on MariaDB takes a list for a table, and rows were
/// missing where the same prepared statement was executed again (10.11).
const KEYS: usize = 500;
const KEY_VALUES: usize = 900;

/// What is read.
enum Todo {
    /// All rows of a range that meet a condition, and those of further ranges.
    Pages {
        condition: Option<String>,
        range: Bounds,
        more: VecDeque<Bounds>,
    },
    /// The rows under these keys.
    Keys(VecDeque<MarkedKey>),
    Nothing,
}

/// Where another view may go on once so few keys are left.
struct Step {
    left: usize,
    place: Arc<Place>,
}

/// Rows of one table, as they are read.
pub(super) struct Reading {
    readable: Arc<Readable>,
    todo: Todo,
    /// Of the next page.
    rows: usize,
    /// Whether another view may go on where this one ends.
    has_place: bool,
    /// Where it may go on behind keys, the nearest first, and the last of these places that was reached.
    steps: VecDeque<Step>,
    reached: Option<String>,
}

impl Reading {
    /// All rows that meet a condition, behind a place.
    pub fn pages(
        readable: Arc<Readable>,
        condition: Option<String>,
        place: Option<MarkedKey>,
        has_place: bool,
    ) -> Self {
        let (rows, range) = (first_rows(&readable, FIRST_ROWS), Bounds { after: place, until: None });
        Self { rows, has_place, ..Self::of(readable, Todo::Pages { condition, range, more: VecDeque::new() }) }
    }

    /// All rows of these ranges.
    pub fn ranges(readable: Arc<Readable>, mut ranges: VecDeque<Bounds>) -> Self {
        let Some(range) = ranges.pop_front() else { return Self::nothing(readable) };
        let rows = first_rows(&readable, FIRST_ROWS);
        Self { rows, ..Self::of(readable, Todo::Pages { condition: None, range, more: ranges }) }
    }

    /// The rows under these keys.
    pub fn keys(readable: Arc<Readable>, keys: Vec<MarkedKey>) -> Self {
        let rows = first_rows(&readable, KEYS);
        Self { rows, ..Self::of(readable, Todo::Keys(keys.into())) }
    }

    /// The rows under keys that the binlog tells of behind a place, sorted by where in it they come last.
    pub fn told(readable: Arc<Readable>, told: Vec<(MarkedKey, Arc<Place>)>, place: Option<String>) -> Self {
        let count = told.len();
        let mut steps: VecDeque<Step> = VecDeque::new();
        let mut keys = Vec::with_capacity(count);
        for (at, (key, place)) in told.into_iter().enumerate() {
            keys.push(key);
            let left = count - at - 1;
            match steps.back_mut().filter(|step| step.place == place) {
                Some(step) => step.left = left,
                None => steps.push_back(Step { left, place }),
            }
        }
        Self { steps, reached: place, ..Self::keys(readable, keys) }
    }

    /// No row.
    pub fn nothing(readable: Arc<Readable>) -> Self {
        Self::of(readable, Todo::Nothing)
    }

    fn of(readable: Arc<Readable>, todo: Todo) -> Self {
        Self { readable, todo, rows: 0, has_place: false, steps: VecDeque::new(), reached: None }
    }

    /// The next part.
    pub async fn next(&mut self, session: &mut Session, limits: Limits) -> Result<Part> {
        let mut part = Part::default();
        let readable = self.readable.clone();
        while part.found.len() < limits.rows && part.bytes < limits.bytes && !part.is_end {
            match &mut self.todo {
                Todo::Nothing => part.is_end = true,
                Todo::Keys(keys) if keys.is_empty() => part.is_end = true,
                Todo::Keys(keys) => {
                    let most = self.rows.min(limits.rows.saturating_sub(part.found.len())).max(1);
                    let asked = keys.make_contiguous();
                    let asked = &asked[..fitting(asked, most)];
                    let before = part.bytes;
                    let read = match some_by_keys(session, &readable, asked, limits.bytes).await {
                        Err(e) if e.cause() == Some(Cause::Cancelled) && asked.len() > 1 => None,
                        read => read?,
                    };
                    match read {
                        Some(all) => {
                            let count = asked.len();
                            keys.drain(..count);
                            part.is_end = keys.is_empty();
                            while let Some(step) = self.steps.front().filter(|step| step.left >= keys.len()) {
                                self.reached = Some(Mark::place(Place::clone(&step.place)));
                                self.steps.pop_front();
                            }
                            part.place.clone_from(&self.reached);
                            for (_, found) in all {
                                part.bytes += bytes(&found);
                                part.found.push(found);
                            }
                            self.rows = next_rows(count, part.bytes - before, limits).min(KEYS);
                        }
                        // They are asked for again, fewer at once.
                        None => self.rows = (asked.len() / 4).max(1),
                    }
                }
                Todo::Pages { condition, range, more } => {
                    let rows = self.rows.min(limits.rows.saturating_sub(part.found.len())).max(1);
                    let (sql, parameters) = readable.page(condition.as_deref(), range, rows);
                    let (read, is_cut) = match session.first_rows(&sql, parameters, limits.bytes).await {
                        Ok(read) => read,
                        // Fewer may be read in time.
                        Err(e) if e.cause() == Some(Cause::Cancelled) && rows > 1 => {
                            self.rows = rows / 8;
                            continue;
                        }
                        Err(e) => return Err(of_table(e, &readable.table.name)),
                    };
                    let is_through = read.len() < rows && !is_cut;
                    let (before, place_before, read_rows) = (part.bytes, range.after.clone(), read.len());
                    for row in read {
                        let found = found(&readable, row)?;
                        range.after = Some(key_of(&found)?);
                        part.bytes += bytes(&found);
                        part.found.push(found);
                    }
                    if !is_through && range.after == place_before {
                        let problem = "its rows do not come in the order of their keys: choose another primaryKey";
                        return Err(Error::halt(problem).of_table(&readable.table.name, Side::Source));
                    }
                    if !is_through {
                        self.rows = next_rows(read_rows, part.bytes - before, limits);
                    }
                    part.place = range.after.as_ref().filter(|_| self.has_place).map(place);
                    if is_through {
                        match more.pop_front() {
                            Some(next) => *range = next,
                            None => part.is_end = true,
                        }
                    }
                }
            }
        }
        Ok(part)
    }
}

/// Rows that are read at first.
fn first_rows(readable: &Readable, usual: usize) -> usize {
    if readable.types.iter().any(|of| of.is_long) { FIRST_LONG_ROWS } else { usual }
}

/// Rows to read next, where so many had so many bytes: twice as many, or as many as fill half of what may come.
fn next_rows(rows: usize, bytes: usize, limits: Limits) -> usize {
    let filling = limits.bytes / 2 * rows.max(1) / bytes.max(1);
    (rows * 2).min(filling).clamp(1, MOST_ROWS)
}

/// How many of these keys one statement asks for: one at least.
fn fitting(keys: &[MarkedKey], most: usize) -> usize {
    let (mut bytes, mut values) = (0, 0);
    let is_within = |key: &&MarkedKey| {
        bytes += key.iter().map(|part| part.len() + 16).sum::<usize>();
        values += key.len();
        bytes <= KEY_BYTES && values <= KEY_VALUES
    };
    keys.iter().take(most).take_while(is_within).count().max(1).min(keys.len())
}

/// A place, as it is kept.
pub(super) fn place(key: &MarkedKey) -> String {
    serde_json::to_string(key).unwrap_or_default()
}

fn bytes(found: &Found) -> usize {
    match found {
        Found::Row(_, cells) => cells.iter().map(Cell::bytes).sum(),
        Found::Gone(_) | Found::Unfit(_) => 16,
    }
}

fn key_of(found: &Found) -> Result<MarkedKey> {
    let lost = || Error::retry("a row came without its key; it will be read again");
    match found {
        Found::Row(key, _) | Found::Gone(key) => texts_of(key).ok_or_else(lost),
        Found::Unfit(unfit) => Ok(unfit.key.clone()),
    }
}

/// A row as the replica has it.
fn found(readable: &Readable, row: Row) -> Result<Found> {
    let table = &readable.table;
    let mut all: Vec<Value> = row.unwrap_raw().into_iter().map(|value| value.unwrap_or(Value::NULL)).collect();
    let size = all.pop().unwrap_or(Value::NULL);
    let (mut cells, mut problem) = (Vec::with_capacity(all.len()), None);
    for ((value, column), of) in all.iter().zip(&table.columns).zip(&readable.types) {
        match values::cell(of, column.kind, value.clone()) {
            Ok(cell) => cells.push(cell),
            Err(mismatch) => {
                problem.get_or_insert_with(|| format!("the column {:?} {mismatch}", column.name));
                cells.push(Cell::Null);
            }
        }
    }
    if size != Value::NULL {
        problem = Some(format!(
            "the row has more than ROW_BYTES ({}): raise it, or leave its long columns out",
            readable.most_bytes
        ));
    }
    let key: Key = table.key.iter().map(|&at| cells[at].clone()).collect();
    let Some(problem) = problem else { return Ok(Found::Row(key, cells)) };
    // What the key's text is where the replica cannot have it.
    let text = |&at: &usize| {
        let of = &readable.types[at];
        let cell = values::cell(of, table.columns[at].kind, all[at].clone());
        let cell = cell.or_else(|_| values::cell(of, of.default_type(), all[at].clone()));
        cell.ok().and_then(|cell| cell.to_postgres_text()).unwrap_or_default()
    };
    let texts: MarkedKey = table.key.iter().map(text).collect();
    let own = (!key.contains(&Cell::Null)).then_some(key);
    Ok(Found::Unfit(Unfit { key: texts, own, class: "value", problem }))
}

/// The rows under these keys, each with the position of its key. A key that no row has to the byte is gone.
pub(super) async fn by_keys(
    session: &mut Session,
    readable: &Readable,
    keys: &[MarkedKey],
) -> Result<Vec<(usize, Found)>> {
    let (mut all, mut start) = (Vec::with_capacity(keys.len()), 0);
    let most = if readable.types.iter().any(|of| of.is_long) { KEYS / 10 } else { KEYS };
    while start < keys.len() {
        let some = &keys[start..];
        let some = &some[..fitting(some, most)];
        let read = some_by_keys(session, readable, some, usize::MAX).await?.unwrap_or_default();
        all.extend(read.into_iter().map(|(at, found)| (start + at, found)));
        start += some.len();
    }
    Ok(all)
}

/// The same by one statement, unless that gives more than so many bytes for several keys.
async fn some_by_keys(
    session: &mut Session,
    readable: &Readable,
    keys: &[MarkedKey],
    most_bytes: usize,
) -> Result<Option<Vec<(usize, Found)>>> {
    let most_bytes = if keys.len() > 1 { most_bytes } else { usize::MAX };
    let Some(rows) = rows_under(session, readable, keys, most_bytes).await? else { return Ok(None) };
    let positions: HashMap<&MarkedKey, usize> = keys.iter().enumerate().map(|(i, key)| (key, i)).collect();
    let (mut all, mut is_found, mut has_twins) = (Vec::with_capacity(keys.len()), vec![false; keys.len()], false);
    for row in rows {
        match positions.get(&key_of(&row)?) {
            Some(&position) => {
                is_found[position] = true;
                all.push((position, row));
            }
            None => has_twins = true,
        }
    }
    for at in (0..keys.len()).filter(|&at| !is_found[at]) {
        // The row whose key a collation takes for this one is there, under what it is called now.
        if has_twins {
            let others = rows_under(session, readable, &keys[at..=at], usize::MAX).await?.unwrap_or_default();
            all.extend(others.into_iter().map(|found| (at, found)));
        }
        all.push((at, Found::Gone(crate::core::keys::key_of(&readable.table, &keys[at]))));
    }
    Ok(Some(all))
}

/// The rows that the server finds under these keys, unless they have more bytes.
async fn rows_under(
    session: &mut Session,
    readable: &Readable,
    keys: &[MarkedKey],
    most_bytes: usize,
) -> Result<Option<Vec<Found>>> {
    let asked: Vec<&[String]> = keys.iter().map(Vec::as_slice).collect();
    let (sql, parameters) = readable.by_keys(&asked, false);
    let read = session.first_rows(&sql, parameters, most_bytes).await;
    let (rows, is_cut) = read.map_err(|e| of_table(e, &readable.table.name))?;
    if is_cut { Ok(None) } else { rows.into_iter().map(|row| found(readable, row)).collect::<Result<_>>().map(Some) }
}

/// Which of these keys no row has to the byte.
pub(super) async fn absent(session: &mut Session, readable: &Readable, keys: &[MarkedKey]) -> Result<Vec<usize>> {
    let (mut absent, mut start) = (Vec::new(), 0);
    while start < keys.len() {
        let some = &keys[start..];
        let some = &some[..fitting(some, KEYS)];
        let asked: Vec<&[String]> = some.iter().map(Vec::as_slice).collect();
        let (sql, parameters) = readable.by_keys(&asked, true);
        let rows = session.rows(&sql, parameters).await.map_err(|e| of_table(e, &readable.table.name))?;
        let there: std::collections::HashSet<MarkedKey> =
            rows.into_iter().map(|row| key_texts(readable, row)).collect::<Result<_>>()?;
        absent.extend((0..some.len()).filter(|&at| !there.contains(&some[at])).map(|at| start + at));
        start += some.len();
    }
    Ok(absent)
}

/// The text of a key that came alone.
pub(super) fn key_texts(readable: &Readable, row: Row) -> Result<MarkedKey> {
    let lost = || Error::retry("a key came that is none; it will be read again");
    let values = row.unwrap_raw().into_iter().map(|value| value.unwrap_or(Value::NULL));
    let text = |(value, &at): (Value, &usize)| {
        let of = &readable.types[at];
        let cell = values::cell(of, readable.table.columns[at].kind, value.clone());
        let cell = cell.or_else(|_| values::cell(of, of.default_type(), value)).ok()?;
        cell.to_postgres_text()
    };
    values.zip(&readable.table.key).map(text).collect::<Option<_>>().ok_or_else(lost)
}
