//! The values of a row: how they are selected, and what SQLite gets of them.

use super::expression::selected;
use super::size;
use crate::core::error::Result;
use crate::core::memory;
use crate::core::schema::{Column, ColumnType, quote};
use crate::core::value::binary::{Wire, from_wire};
use crate::core::value::{Cell, Lender, Lent, Mismatch};
use crate::postgres::books::dead_letters;
use crate::postgres::catalog::{SourceColumn, SourceTable};
use std::ops::Deref;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

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

/// What is selected of the row `t` of [`size::rows`], a column each, and where rows are measured, whether it is too
/// large.
pub(super) fn values(source: &SourceTable) -> impl Iterator<Item = String> + '_ {
    let is_measured = size::is_measured(source);
    let columns = source.table.columns.iter().zip(&source.columns).enumerate();
    let value = move |(i, (c, s)): (usize, (&Column, &SourceColumn))| {
        let value = selected(c.kind, s, &format!("t.{}", quote(&c.name)));
        // Keys are small, and are needed to name the row.
        if is_measured && !source.table.key.contains(&i) { size::unless_large(&value) } else { value }
    };
    columns.map(value).chain(is_measured.then(|| size::LARGE.to_owned()))
}

/// A smaller value is copied: what is lent keeps all that came with it.
const LENT_BYTES: usize = 1024 * 1024;

/// The driver gathers a row in a buffer that doubles, and frees as many bytes on the way as the row has.
const GATHERED_BYTES: usize = 8 * 1024 * 1024;

/// A row as it came. A large one lends its values.
pub enum SourceRow {
    /// Of which nothing is lent.
    Small(Row),
    /// Which lives as long as what is lent of it.
    Large(Arc<Row>),
}

impl From<Row> for SourceRow {
    fn from(row: Row) -> Self {
        let bytes = row.raw_size_bytes();
        if bytes >= GATHERED_BYTES {
            memory::give_back();
        }
        if bytes >= LENT_BYTES { Self::Large(Arc::new(row)) } else { Self::Small(row) }
    }
}

impl Deref for SourceRow {
    type Target = Row;

    fn deref(&self) -> &Row {
        match self {
            Self::Small(row) => row,
            Self::Large(row) => row,
        }
    }
}

impl SourceRow {
    /// A large value that SQLite gets as it is.
    fn lent(&self, column: usize, (kind, wire): (ColumnType, Wire), raw: &[u8]) -> Option<Result<Cell, Mismatch>> {
        let Self::Large(row) = self else { return None };
        if raw.len() < LENT_BYTES {
            return None;
        }
        let lender = Arc::new(Part { row: row.clone(), column, from: usize::from(wire == Wire::Jsonb) });
        match wire {
            Wire::Bytes => Some(Ok(Cell::Lent(Lent::as_blob(lender)))),
            // A byte for the version, then text.
            Wire::Jsonb if raw[0] != 1 => Some(Err(Mismatch::Format)),
            // Others are made of their text.
            Wire::Text if !matches!(kind, ColumnType::Text | ColumnType::Json | ColumnType::Decimal) => None,
            Wire::Text | Wire::Plain | Wire::Jsonb => {
                Some(Lent::as_text(lender).map(Cell::Lent).ok_or(Mismatch::Format))
            }
            _ => None,
        }
    }
}

/// One value of a row, from a byte on.
struct Part {
    row: Arc<Row>,
    column: usize,
    from: usize,
}

impl Lender for Part {
    fn bytes(&self) -> &[u8] {
        let raw = self.row.try_get::<_, Option<Raw<'_>>>(self.column).ok().flatten();
        raw.and_then(|raw| raw.0.get(self.from..)).unwrap_or_default()
    }
}

/// All cells of a row whose values begin at column `first`.
pub(super) fn cells(source: &SourceTable, row: &SourceRow, first: usize) -> Result<Result<Vec<Cell>, Unfit>> {
    let width = source.table.columns.len();
    if row.len() > first + width && row.try_get::<_, Option<bool>>(first + width)? == Some(true) {
        return Ok(Err(Unfit::Large(source.most_bytes)));
    }
    let cell = |position: usize| {
        let raw: Option<Raw<'_>> = row.try_get(first + position)?;
        let lent = raw.as_ref().and_then(|raw| {
            row.lent(first + position, (source.table.columns[position].kind, source.columns[position].wire), raw.0)
        });
        Ok(match lent {
            Some(lent) => lent.map_err(|mismatch| unfit(source, position, mismatch)),
            None => cell(source, position, raw),
        })
    };
    fit(width, (0..width).map(cell))
}

/// Collects `width` cells, or the first that does not fit.
pub(super) fn fit(
    width: usize,
    cells: impl Iterator<Item = Result<Result<Cell, Unfit>>>,
) -> Result<Result<Vec<Cell>, Unfit>> {
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
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

pub(super) fn cell(source: &SourceTable, position: usize, raw: Option<Raw<'_>>) -> Result<Cell, Unfit> {
    match raw {
        None => Ok(Cell::Null),
        Some(Raw(raw)) => from_wire(source.table.columns[position].kind, source.columns[position].wire, raw)
            .map_err(|mismatch| unfit(source, position, mismatch)),
    }
}

fn unfit(source: &SourceTable, position: usize, mismatch: Mismatch) -> Unfit {
    Unfit::Value { column: source.table.columns[position].name.clone(), mismatch }
}
