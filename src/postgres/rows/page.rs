//! Reads a page of a table in the order of its key's index, at the step's snapshot, whatever the key's
//! types and collations. Takes a client inside the step's transaction; changes nothing.

use super::cells::{Raw, SourceRow, Unfit, cells, values};
use super::expression::expression;
use super::first::first_row;
use super::size;
use crate::core::error::Result;
use crate::core::schema::{ColumnType, quote};
use crate::core::value::binary::Wire;
use crate::core::value::{Cell, Key};
use crate::postgres::catalog::SourceTable;
use crate::postgres::error::of_rows;
use crate::postgres::{Client, RowStream};
use futures_util::Stream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// A place in a table: the key of a row as Postgres' text, in the order of `SourceTable::order`.
pub type Cursor = Vec<String>;

/// Ranges that are counted at once.
const COUNTS_AT_ONCE: usize = 32;

/// Which rows to read: those after one key, up to another, at most so many.
#[derive(Debug, Clone, Copy)]
struct Range<'a> {
    /// The last key that is not wanted; `None`: from the start.
    after: Option<&'a Cursor>,
    /// The last key that is wanted; `None`: to the end.
    up_to: Option<&'a Cursor>,
    /// Most rows.
    rows: i64,
}

/// Starts reading a page: the next rows after a place, at most `rows` of the table's, in the order of the key's index.
pub async fn read<'a>(
    client: &Client,
    source: &'a SourceTable,
    after: Option<&Cursor>,
    rows: i64,
) -> Result<PageReader<'a>> {
    let boundary = if wants_boundary(source) { boundary(client, source, after, rows).await? } else { None };
    let stream = within(client, source, Range { after, up_to: boundary.as_ref(), rows }).await?;
    Ok(PageReader { source, stream, rows, read: 0, after: after.cloned(), boundary, last: None, is_over: false })
}

/// A page as it comes.
pub struct PageReader<'a> {
    source: &'a SourceTable,
    stream: Pin<Box<RowStream>>,
    rows: i64,
    read: i64,
    after: Option<Cursor>,
    boundary: Option<Cursor>,
    last: Option<SourceRow>,
    is_over: bool,
}

impl Stream for PageReader<'_> {
    type Item = Result<Result<(Key, Vec<Cell>), Unfit>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let row = match ready!(self.stream.as_mut().poll_next(context)) {
            Some(Ok(row)) => SourceRow::from(row),
            Some(Err(e)) => return Poll::Ready(Some(Err(of_rows(e.into())))),
            None => {
                self.is_over = true;
                return Poll::Ready(None);
            }
        };
        let decoded = decode(self.source, &row);
        (self.read, self.last) = (self.read + 1, Some(row));
        Poll::Ready(Some(decoded))
    }
}

impl PageReader<'_> {
    /// The place of the row that came last, or when all have come, the place behind which the next page begins.
    pub fn place(&self) -> Result<Option<Cursor>> {
        match (&self.boundary, &self.last) {
            (Some(boundary), _) if self.is_over => Ok(Some(boundary.clone())),
            (_, Some(row)) => cursor(self.source, row).map(Some),
            (_, None) => Ok(self.after.clone()),
        }
    }

    /// Whether the table ends with it, when all have come.
    pub fn is_last(&self) -> bool {
        if wants_boundary(self.source) { self.boundary.is_none() } else { self.read < self.rows }
    }
}

/// Starts reading the rows of a range that are replicated.
async fn within(client: &Client, source: &SourceTable, range: Range<'_>) -> Result<Pin<Box<RowStream>>> {
    let table = &source.table;
    let filter = table.filter.as_ref().map(|f| format!("(\n{f}\n)"));
    let select: Vec<_> = places(source).into_iter().chain(values(source)).collect();
    let (sql, parameters) = query(source, &select, range, filter, size::is_measured(source));
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> = parameters.iter().map(|p| (*p as _, Type::TEXT)).collect();
    Ok(Box::pin(client.query_typed_raw(&sql, &parameters).await?))
}

/// Where the first `rows` rows of the table after `after` end, replicated or not; `None` if there are fewer.
/// A filter that few rows pass would otherwise make a page of them arbitrarily long to find.
pub(crate) async fn boundary(
    client: &Client,
    source: &SourceTable,
    after: Option<&Cursor>,
    rows: i64,
) -> Result<Option<Cursor>> {
    let keys: Vec<_> = source.order.iter().map(|&i| key_text(source, i)).collect();
    let (mut sql, parameters) = query(source, &keys, Range { after, up_to: None, rows: 1 }, None, false);
    sql.push_str(&format!(" offset {}", rows - 1));
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> = parameters.iter().map(|p| (*p as _, Type::TEXT)).collect();
    let found = client.query_typed(&sql, &parameters).await?;
    found.first().map(|row| texts(row, source.order.len())).transpose()
}

/// Whether [`boundary`] is worth its second look at the index.
fn wants_boundary(source: &SourceTable) -> bool {
    source.table.filter.is_some() && compares_rows(source)
}

/// Converts one row of [`within`].
pub(super) fn decode(source: &SourceTable, row: &SourceRow) -> Result<Result<(Key, Vec<Cell>), Unfit>> {
    let first = if is_plain(source) { 0 } else { source.order.len() };
    let cells = cells(source, row, first)?;
    Ok(cells.map(|cells| (source.table.key.iter().map(|&i| cells[i].clone()).collect(), cells)))
}

/// The place of one row of [`within`].
pub(super) fn cursor(source: &SourceTable, row: &Row) -> Result<Cursor> {
    if is_plain(source) {
        let text = |i: usize, raw: Option<Raw<'_>>| raw.and_then(|raw| source.columns[i].wire.key_text(raw.0));
        source.order.iter().map(|&i| Ok(text(i, row.try_get(i)?).unwrap_or_default())).collect()
    } else {
        texts(row, source.order.len())
    }
}

/// Whether a key need not be UTF-8.
pub(crate) fn is_escaped(source: &SourceTable) -> bool {
    source.order.iter().any(|&position| is_escaped_column(source, position))
}

/// Whether the text of a key's column comes with what is no ASCII escaped: it need not be UTF-8.
fn is_escaped_column(source: &SourceTable, position: usize) -> bool {
    let column = &source.columns[position];
    column.is_bytes && matches!(column.wire, Wire::Text | Wire::Plain)
}

/// What `encode(..., 'escape')` made of a text; what is no UTF-8 is replaced.
fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, more)) = rest.split_first() {
        let digits = more.get(..3).filter(|_| first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        (bytes, rest) = match (digits.and_then(|d| u8::from_str_radix(d, 8).ok()), more) {
            (Some(byte), _) => (pushed(bytes, byte), &more[3..]),
            (None, [b'\\', after @ ..]) if first == b'\\' => (pushed(bytes, b'\\'), after),
            _ => (pushed(bytes, first), more),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn pushed(mut bytes: Vec<u8>, byte: u8) -> Vec<u8> {
    bytes.push(byte);
    bytes
}

/// The key at a place, in the order of `schema.json`, as a mark would name it.
pub fn marked(source: &SourceTable, cursor: &Cursor) -> Vec<String> {
    let place = |key: &usize| source.order.iter().position(|i| i == key).and_then(|at| cursor.get(at));
    let text = |key: &usize| match is_escaped_column(source, *key) {
        true => place(key).map(|text| unescaped(text)),
        false => place(key).cloned(),
    };
    source.table.key.iter().map(|key| text(key).unwrap_or_default()).collect()
}

/// A table's size.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// How many rows the planner believes it to have; `None` if it was never analyzed.
    pub rows: Option<i64>,
    /// Bytes on disk.
    pub bytes: i64,
}

/// How large a table is.
pub(crate) async fn size_of(client: &Client, source: &SourceTable) -> Result<Size> {
    let sql =
        "select nullif(pg_catalog.sum(greatest(c.reltuples, 0))::pg_catalog.int8, 0), coalesce(pg_catalog.sum(pg_catalog.pg_table_size(c.oid))::pg_catalog.int8, 0)
               from pg_catalog.pg_class c
               where c.oid in (select $1 union select p.relid from pg_catalog.pg_partition_tree($1) p) and c.relkind = 'r'";
    let row = first_row(client, sql, &[(&source.oid, Type::OID)]).await?;
    Ok(Size { rows: row.try_get(0)?, bytes: row.try_get(1)? })
}

/// Whether the values themselves tell the place.
fn is_plain(source: &SourceTable) -> bool {
    let plain = |&i: &usize| {
        let (column, found) = (&source.table.columns[i], &source.columns[i]);
        let is_own_text = found.wire != Wire::Text || expression(column.kind, found, "k") == found.text_of("k");
        found.wire.has_key_text() && is_own_text && column.kind != ColumnType::Json && !is_escaped_column(source, i)
    };
    source.order.iter().all(plain)
}

/// What has to be selected before the values, so that the place can be told.
pub(super) fn places(source: &SourceTable) -> Vec<String> {
    if is_plain(source) { Vec::new() } else { source.order.iter().map(|&i| key_text(source, i)).collect() }
}

pub(super) fn key_text(source: &SourceTable, position: usize) -> String {
    let text = source.columns[position].text_of(&format!("t.{}", quote(&source.table.columns[position].name)));
    match is_escaped_column(source, position) {
        true => format!("pg_catalog.encode(pg_catalog.convert_to({text}, 'SQL_ASCII'), 'escape')"),
        false => text,
    }
}

pub(super) fn texts(row: &Row, width: usize) -> Result<Cursor> {
    (0..width).map(|i| Ok(row.try_get::<_, Option<&str>>(i)?.unwrap_or_default().to_owned())).collect()
}

fn query<'a>(
    source: &SourceTable,
    select: &[String],
    range: Range<'a>,
    filter: Option<String>,
    is_measured: bool,
) -> (String, Vec<&'a String>) {
    let (conditions, parameters) = conditions(source, range, filter);
    let order: Vec<_> = source.order.iter().map(|&i| format!("t.{}", quote(&source.table.columns[i].name))).collect();
    let order = format!(" order by {}", order.join(", "));
    let tail = format!("{order} limit {}", range.rows);
    let sql = match is_measured {
        true => format!("select {} from {}{order}", select.join(", "), size::rows(source, &conditions, &tail)),
        false => format!("select {} from {} as t{conditions}{tail}", select.join(", "), source.table.source.quoted()),
    };
    (sql, parameters)
}

/// The conditions of a range, with their `where`, and their parameters.
fn conditions<'a>(source: &SourceTable, range: Range<'a>, filter: Option<String>) -> (String, Vec<&'a String>) {
    let mut parameters = Vec::new();
    let mut conditions = Vec::new();
    if let Some(after) = range.after {
        conditions.push(beyond(source, 1));
        parameters.extend(after);
    }
    if let Some(up_to) = range.up_to {
        conditions.push(format!(
            "{} {} {}",
            row_of(source, |i| source.compared(i)),
            source.order.first().map_or("<=", |&i| source.columns[i].at_most.as_str()),
            bound(source, parameters.len() + 1)
        ));
        parameters.extend(up_to);
    }
    conditions.extend(filter);
    let conditions = if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) };
    (conditions, parameters)
}

/// How many replicated rows lie in each of the ranges that these keys bound: up to the first, between two, after the
/// last. For tables whose keys the replica sorts alike.
pub(crate) async fn counts(client: &Client, source: &SourceTable, bounds: &[Cursor]) -> Result<Vec<i64>> {
    let filter = source.table.filter.as_ref().map(|f| format!("(\n{f}\n)"));
    let mut counts = Vec::with_capacity(bounds.len() + 1);
    let ranges: Vec<_> = (0..=bounds.len())
        .map(|i| Range { after: i.checked_sub(1).and_then(|i| bounds.get(i)), up_to: bounds.get(i), rows: 0 })
        .collect();
    for part in ranges.chunks(COUNTS_AT_ONCE) {
        let count = async |range: Range<'_>| {
            let (conditions, parameters) = conditions(source, range, filter.clone());
            let sql = format!("select pg_catalog.count(*) from {} as t{conditions}", source.table.source.quoted());
            let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
                parameters.iter().map(|p| (*p as _, Type::TEXT)).collect();
            let row = client.query_typed_one(&sql, &parameters).await.map_err(|e| of_rows(e.into()))?;
            Ok::<i64, crate::core::error::Error>(row.try_get(0)?)
        };
        counts.extend(futures_util::future::try_join_all(part.iter().map(|range| count(*range))).await?);
    }
    Ok(counts)
}

/// Whether one row comparison does: only it is a single condition on an index of several columns.
fn compares_rows(source: &SourceTable) -> bool {
    source.order.len() == 1 || source.order.iter().all(|&i| source.columns[i].greater == "operator(pg_catalog.>)")
}

fn row_of(source: &SourceTable, of: impl Fn(usize) -> String) -> String {
    let all: Vec<_> = source.order.iter().map(|&i| of(i)).collect();
    format!("({})", all.join(", "))
}

/// The parameters from `first` on, as a key.
fn bound(source: &SourceTable, first: usize) -> String {
    let place = |i: usize| source.order.iter().position(|&o| o == i).unwrap_or_default();
    row_of(source, |i| value(source, i, first + place(i)))
}

/// A parameter as a value of a key's column.
fn value(source: &SourceTable, position: usize, parameter: usize) -> String {
    let column = &source.columns[position];
    match is_escaped_column(source, position) {
        true => column
            .made_from(&format!("pg_catalog.convert_from(pg_catalog.decode(${parameter}, 'escape'), 'SQL_ASCII')")),
        false => column.made_from(&format!("${parameter}")),
    }
}

/// After the key in the parameters from `first` on. Operators of several schemas cannot share one row
/// comparison: then it is written out, behind the one condition that an index takes.
fn beyond(source: &SourceTable, first: usize) -> String {
    let column = |i: usize| source.compared(i);
    if compares_rows(source) {
        let greater = source.order.first().map_or(">", |&i| source.columns[i].greater.as_str());
        return format!("{} {greater} {}", row_of(source, column), bound(source, first));
    }
    let start = source
        .order
        .first()
        .map(|&i| format!("{} {} {} and ", column(i), source.columns[i].at_least, value(source, i, first)));
    let mut conditions = Vec::new();
    let mut equal = String::new();
    for (place, &i) in source.order.iter().enumerate() {
        let (found, value) = (column(i), value(source, i, first + place));
        conditions.push(format!("({equal}{found} {} {value})", source.columns[i].greater));
        equal.push_str(&format!("{found} {} {value} and ", source.columns[i].equals));
    }
    format!("({}({}))", start.unwrap_or_default(), conditions.join(" or "))
}
