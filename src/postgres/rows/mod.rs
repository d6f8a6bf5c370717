//! Reads rows of the source at the step's snapshot: by marked keys, or a [`page`] at a time. Every value
//! comes as text under pinned settings, or in binary where that says the same for less. Takes a client inside the step's transaction; changes nothing.

pub mod absent;
mod begin;
pub mod page;
mod size;
mod span;

pub use begin::{Server, begin, begin_waiting, wait_for};

use crate::core::error::{Error, Result};
use crate::core::message::MarkedKey;
use crate::core::schema::{ColumnType, quote};
use crate::core::value::binary::{Wire, from_wire};
use crate::core::value::{Cell, Key, Mismatch, OTHER_BOUNDS};
use crate::postgres::books::dead_letters;
use crate::postgres::catalog::{SourceColumn, SourceTable};
use crate::postgres::{Client, RowStream};
use futures_util::TryStreamExt;
pub use size::note_large;
use span::Span;
use std::pin::Pin;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

/// Waits until all WAL up to now is on disk: what the snapshot saw, where a session with
/// `synchronous_commit = off` may have committed what a crash could still undo. `other` is a second connection
/// that can commit, and so flush.
pub async fn ensure_durable(client: &Client, other: &Client) -> Result<()> {
    let lsn: String = first(client, "select pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text", &[]).await?;
    let flush = "set local synchronous_commit = on; select pg_catalog.pg_logical_emit_message(true, 'pgflume', '')";
    other.batch_execute(flush).await?;
    let flushed = "select pg_catalog.pg_current_wal_flush_lsn() >= $1::pg_catalog.text::pg_catalog.pg_lsn";
    if first(client, flushed, &[(&lsn, Type::TEXT)]).await? {
        return Ok(());
    }
    Err(Error::retry("Postgres has not flushed its WAL yet; it will be tried again"))
}

async fn first<T>(client: &Client, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<T>
where
    T: for<'a> FromSql<'a>,
{
    Ok(first_row(client, sql, parameters).await?.try_get(0)?)
}

async fn first_row(client: &Client, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<Row> {
    let mut rows = client.query_typed(sql, parameters).await?;
    rows.pop().ok_or_else(|| Error::retry("Postgres gave no answer"))
}

/// One marked key as it was found.
#[derive(Debug)]
pub struct Found {
    /// Its position among those asked for.
    pub position: usize,
    /// The key as SQLite has it.
    pub key: Result<Key, Unfit>,
    /// The cells of the row under it, if there is one; its own key may be written differently.
    pub cells: Option<Result<Vec<Cell>, Unfit>>,
}

/// Why a row cannot be taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A column whose value does not fit its declared type.
    #[error("column {column:?} {mismatch}")]
    Value {
        /// Its name.
        column: String,
        /// Why.
        mismatch: Mismatch,
    },
    /// The row was not fetched.
    #[error("the row is {}", dead_letters::too_large(*.0))]
    Large(i64),
}

/// Rows as they come, one for each key that is asked for, in any order.
pub struct Reading {
    rows: Pin<Box<RowStream>>,
    span: Option<Span>,
    is_over: bool,
    /// Bytes of the rows so far.
    pub bytes: usize,
}

/// Starts reading the rows under `keys`.
///
/// With `may_span`, keys that lie close together are read as one range: rows between them that nobody asked for are
/// read, too, and what is wrong with one of them is an error.
pub async fn read(client: &Client, source: &SourceTable, keys: &[MarkedKey], may_span: bool) -> Result<Reading> {
    let span = if may_span { Span::of(source, keys) } else { None };
    let rows = match &span {
        Some(span) => span.read(client, source).await?,
        None => {
            let column = |i: usize| keys.iter().map(|key| key[i].as_str()).collect();
            let columns: Vec<Vec<&str>> = (0..source.table.key.len()).map(column).collect();
            let parameters = columns.iter().map(|c| (c as &(dyn ToSql + Sync), Type::TEXT_ARRAY));
            Box::pin(client.query_typed_raw(&read_sql(source), parameters.collect::<Vec<_>>()).await?)
        }
    };
    Ok(Reading { rows, span, is_over: false, bytes: 0 })
}

impl Reading {
    /// The next key; `None` after the last.
    pub async fn next(&mut self, source: &SourceTable) -> Result<Option<Found>> {
        loop {
            let wants_row = !self.is_over && !self.span.as_ref().is_some_and(Span::has_row);
            let row = if wants_row { self.rows.try_next().await? } else { None };
            self.is_over |= wants_row && row.is_none();
            self.bytes += row.as_ref().map_or(0, Row::raw_size_bytes);
            let found = match (&mut self.span, row) {
                (Some(span), row) => span.found(source, row)?,
                (None, Some(row)) => Some(decode(source, &row)?),
                (None, None) => None,
            };
            if found.is_some() || self.is_over {
                return Ok(found);
            }
        }
    }
}

/// Joins the marked keys to their rows. Names of the key list end in a suffix that no column of the
/// source has, because `where` is written with bare column names.
fn read_sql(source: &SourceTable) -> String {
    let table = &source.table;
    let (mut names, mut arrays, mut casts, mut marked, mut equal) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (i, &position) in table.key.iter().enumerate() {
        let column = &source.columns[position];
        names.push(format!("_pgflume_k{i}"));
        arrays.push(format!("pg_catalog.unnest(${}::pg_catalog.text[])", i + 1));
        casts.push(format!("{} as _pgflume_v{i}", column.made_from(&format!("_pgflume_k{i}"))));
        marked.push(selected(table.columns[position].kind, column, &format!("k._pgflume_v{i}")));
        equal.push(format!("{} {} k._pgflume_v{i}", source.compared(position), column.equals));
    }
    let values: Vec<_> = values(source).enumerate().map(|(i, value)| format!("{value} as _pgflume_c{i}")).collect();
    let filter = table.filter.as_ref().map(|f| format!(" and (\n{f}\n)")).unwrap_or_default();
    let rows = size::rows(source, &format!(" where {}{filter}", equal.join(" and ")), "");
    // Kept apart, so that the filter sees the rows of these keys only: else it might be run for all of a small table.
    let apart = if table.filter.is_some() { " offset 0" } else { source.fence() };
    format!(
        "select k._pgflume_n, {}, r.* from (select _pgflume_n, {} from rows from ({}) with ordinality as u({}, _pgflume_n)) k \
         left join lateral (select true as _pgflume_found, {} from {rows}{apart}) r on true",
        marked.join(", "),
        casts.join(", "),
        arrays.join(", "),
        names.join(", "),
        values.join(", "),
    )
}

/// What is selected of the row `t` of [`size::rows`], a column each, and where rows are measured, whether it is too
/// large.
fn values(source: &SourceTable) -> impl Iterator<Item = String> + '_ {
    let is_measured = size::is_measured(source);
    let columns = source.table.columns.iter().zip(&source.columns).enumerate();
    let value = move |(i, (c, s)): (usize, (&crate::core::schema::Column, &SourceColumn))| {
        let value = selected(c.kind, s, &format!("t.{}", quote(&c.name)));
        // Keys are small, and are needed to name the row.
        if is_measured && !source.table.key.contains(&i) { size::unless_large(&value) } else { value }
    };
    columns.map(value).chain(is_measured.then(|| size::LARGE.to_owned()))
}

/// The SQL that gives a column's value as it is to come.
fn selected(kind: ColumnType, column: &SourceColumn, reference: &str) -> String {
    if column.wire == Wire::Text { expression(kind, column, reference) } else { reference.to_owned() }
}

/// The SQL that gives a column's value as the text that `value::from_text` takes.
pub fn expression(kind: ColumnType, column: &SourceColumn, reference: &str) -> String {
    match (kind, &column.base) {
        (ColumnType::Json, base) if *base != Type::JSON && *base != Type::JSONB => {
            let json = format!("pg_catalog.to_jsonb({})::pg_catalog.text", json_source(column, reference));
            match other_bounds(column, reference) {
                Some(test) => format!("case when {test} then '{OTHER_BOUNDS}' else {json} end"),
                None => json,
            }
        }
        (ColumnType::Text, base) if [Type::TIMESTAMP, Type::TIMESTAMPTZ, Type::DATE].contains(base) => {
            format!("(pg_catalog.to_jsonb({reference}) operator(pg_catalog.#>>) '{{}}')")
        }
        _ => column.text_of(reference),
    }
}

/// What JSON is made of. An enum and a range are strings there, unless somebody has made a cast to JSON, which may
/// come between a look and the read: made of their text, none is run.
fn json_source(column: &SourceColumn, reference: &str) -> String {
    match (column.is_string_in_json, column.is_array) {
        (false, _) => reference.to_owned(),
        (true, false) => column.text_of(reference),
        (true, true) => format!("({})::pg_catalog.text[]", column.text_of(reference)),
    }
}

/// SQL that is true where an array has a lower bound other than 1; `None` where the type has no arrays.
/// Those inside a value show only in its text: a text there that looks like one counts as one.
fn other_bounds(column: &SourceColumn, reference: &str) -> Option<String> {
    if column.has_arrays_inside {
        let bounds = r#"(^|[(,"{])(\[-?[0-9]+:-?[0-9]+\])+=\{"#;
        return Some(format!("{} operator(pg_catalog.~) '{bounds}'", column.text_of(reference)));
    }
    column.is_array.then(|| format!("pg_catalog.array_dims({reference}) operator(pg_catalog.~) '\\[(?!1:)'"))
}

/// Converts one row of [`read_sql`].
fn decode(source: &SourceTable, row: &Row) -> Result<Found> {
    let width = source.table.key.len();
    let position = usize::try_from(row.try_get::<_, i64>(0)? - 1).unwrap_or_default();
    let key = source.table.key.iter().enumerate().map(|(i, &p)| Ok(cell(source, p, row.try_get(1 + i)?)));
    let key = fit(width, key)?;
    let found: Option<bool> = row.try_get(1 + width)?;
    let cells = match found {
        Some(_) => Some(cells(source, row, 2 + width)?),
        None => None,
    };
    Ok(Found { position, key, cells })
}

/// All cells of a row whose values begin at column `first`.
fn cells(source: &SourceTable, row: &Row, first: usize) -> Result<Result<Vec<Cell>, Unfit>> {
    let width = source.table.columns.len();
    if row.len() > first + width && row.try_get::<_, Option<bool>>(first + width)? == Some(true) {
        return Ok(Err(Unfit::Large(source.most_bytes)));
    }
    fit(width, (0..width).map(|position| Ok(cell(source, position, row.try_get(first + position)?))))
}

/// Collects `width` cells, or the first that does not fit.
fn fit(width: usize, cells: impl Iterator<Item = Result<Result<Cell, Unfit>>>) -> Result<Result<Vec<Cell>, Unfit>> {
    let mut fit = Vec::with_capacity(width);
    for cell in cells {
        match cell? {
            Ok(cell) => fit.push(cell),
            Err(unfit) => return Ok(Err(unfit)),
        }
    }
    Ok(Ok(fit))
}

/// A value as it comes, whatever its type.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn cell(source: &SourceTable, position: usize, raw: Option<Raw<'_>>) -> Result<Cell, Unfit> {
    let column = &source.table.columns[position];
    let unfit = |mismatch| Unfit::Value { column: column.name.clone(), mismatch };
    match raw {
        None => Ok(Cell::Null),
        Some(Raw(raw)) => from_wire(column.kind, source.columns[position].wire, raw).map_err(unfit),
    }
}

/// Whether the table has no row that is replicated, at this snapshot.
pub async fn is_empty(client: &Client, source: &SourceTable) -> Result<bool> {
    let filter = source.table.filter.as_ref().map(|f| format!(" where (\n{f}\n)")).unwrap_or_default();
    let sql = format!("select not exists (select from {} as t{filter})", source.table.source.quoted());
    first(client, &sql, &[]).await
}

/// Reads all rows that are replicated.
pub fn scan_sql(source: &SourceTable) -> String {
    let table = &source.table;
    let values: Vec<_> = values(source).collect();
    let filter = table.filter.as_ref().map(|f| format!(" where (\n{f}\n)")).unwrap_or_default();
    format!("select {} from {}", values.join(", "), size::rows(source, &filter, ""))
}

/// Converts one row of [`scan_sql`].
pub fn decode_scan(source: &SourceTable, row: &Row) -> Result<Result<Vec<Cell>, Unfit>> {
    cells(source, row, 0)
}
