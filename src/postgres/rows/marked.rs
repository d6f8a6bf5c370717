//! Rows under marked keys, as they come: by the keys, or as a span of them.

use super::cells::{SourceRow, cell, cells, fit, values};
use super::expression::selected;
use super::marked_row::MarkedRow;
use super::size;
use super::span::Span;
use crate::core::error::Result;
use crate::core::message::MarkedKey;
use crate::core::schema::literal;
use crate::postgres::catalog::SourceTable;
use crate::postgres::{Client, RowStream};
use futures_util::Stream;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio_postgres::types::{ToSql, Type};

/// Rows as they come, one for each key that is asked for, in any order.
struct Marked<'a> {
    source: &'a SourceTable,
    rows: Pin<Box<RowStream>>,
    span: Option<Span>,
    is_over: bool,
    /// Bytes of rows of which nothing was told yet.
    bytes: usize,
}

/// Starts reading the rows under `keys`.
///
/// With `may_span`, keys that lie close together are read as one range: rows between them that nobody asked for are
/// read, too, and what is wrong with one of them is an error.
pub async fn read<'a>(
    client: &Client,
    source: &'a SourceTable,
    keys: &[MarkedKey],
    may_span: bool,
) -> Result<impl Stream<Item = Result<MarkedRow>> + Send + use<'a>> {
    let span = if may_span { Span::of(source, keys) } else { None };
    let rows = match &span {
        Some(span) => span.read(client, source).await?,
        None => {
            let column = |i: usize| keys.iter().map(|key| key[i].as_str()).collect();
            let columns: Vec<Vec<&str>> = (0..source.table.key.len()).map(column).collect();
            let parameters: Vec<_> = columns.iter().map(|c| (c as &(dyn ToSql + Sync), Type::TEXT_ARRAY)).collect();
            let pruning = pruning(source, &columns);
            let sql = read_sql(source, &pruning);
            Box::pin(match pruning.is_empty() {
                true => client.query_typed_raw(&sql, &parameters).await?,
                false => client.query_once(&sql, &parameters).await?,
            })
        }
    };
    Ok(Marked { source, rows, span, is_over: false, bytes: 0 })
}

impl Stream for Marked<'_> {
    type Item = Result<MarkedRow>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let wants_row = !self.is_over && !self.span.as_ref().is_some_and(Span::has_row);
            let row = if wants_row { ready!(self.rows.as_mut().poll_next(context)).transpose()? } else { None };
            let row = row.map(SourceRow::from);
            self.is_over |= wants_row && row.is_none();
            self.bytes += row.as_ref().map_or(0, |row| row.raw_size_bytes());
            let source = self.source;
            let found = match (&mut self.span, row) {
                (Some(span), row) => span.found(source, row)?,
                (None, Some(row)) => Some(decode(source, &row)?),
                (None, None) => None,
            };
            if found.is_some() || self.is_over {
                let bytes = std::mem::take(&mut self.bytes);
                return Poll::Ready(found.map(|found| Ok(MarkedRow { bytes, ..found })));
            }
        }
    }
}

/// Types whose arrays say their texts as they are, and whose values tell a partition.
const PRUNING: [Type; 9] = [
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::UUID,
    Type::DATE,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
    Type::TEXT,
    Type::VARCHAR,
];

/// Most values that are said so: the planner compares each with the bounds, and the index each key with all of them.
const MOST_CONSTANTS: usize = 100;

/// Says which values are asked for of the columns that the table is partitioned by, as constants: partitions that have
/// none of them are not even planned, of which there may be thousands. Each key has to be among them anyway.
fn pruning(source: &SourceTable, texts: &[Vec<&str>]) -> Vec<String> {
    let key = source.table.key.iter().zip(texts).map(|(&position, texts)| (position, texts));
    let conditions = key.filter_map(|(position, texts)| {
        let column = &source.columns[position];
        let is_told = column.partitions && !column.is_domain && PRUNING.contains(&column.base);
        let values: BTreeSet<&str> = if is_told { texts.iter().copied().collect() } else { BTreeSet::new() };
        let array = || format!("{}::{}[]", literal(&array_of(&values)), column.cast);
        let is_short = (1..=MOST_CONSTANTS).contains(&values.len());
        is_short.then(|| format!("{} {} any ({})", source.compared(position), column.equals, array()))
    });
    conditions.collect()
}

/// An array's text (<https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>).
fn array_of(texts: &BTreeSet<&str>) -> String {
    let quoted = texts.iter().map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")));
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

/// Joins the marked keys to their rows, under more conditions that these meet. Names of the key list end in a suffix
/// that no column of the source has, because `where` is written with bare column names.
fn read_sql(source: &SourceTable, more: &[String]) -> String {
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
    equal.extend_from_slice(more);
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

/// Converts one row of [`read_sql`].
fn decode(source: &SourceTable, row: &SourceRow) -> Result<MarkedRow> {
    let width = source.table.key.len();
    let position = usize::try_from(row.try_get::<_, i64>(0)? - 1).unwrap_or_default();
    let key = source.table.key.iter().enumerate().map(|(i, &p)| Ok(cell(source, p, row.try_get(1 + i)?)));
    let key = fit(width, key)?;
    let found: Option<bool> = row.try_get(1 + width)?;
    let cells = match found {
        Some(_) => Some(cells(source, row, 2 + width)?),
        None => None,
    };
    Ok(MarkedRow { position, key, bytes: 0, cells })
}
