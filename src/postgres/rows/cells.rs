//! The values of a row: how they are selected, and what SQLite gets of them.

use super::expression::selected;
use super::size;
use crate::core::error::Result;
use crate::core::schema::{Column, quote};
use crate::core::value::binary::from_wire;
use crate::core::value::{Cell, Mismatch};
use crate::postgres::books::dead_letters;
use crate::postgres::catalog::{SourceColumn, SourceTable};
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

/// All cells of a row whose values begin at column `first`.
pub(super) fn cells(source: &SourceTable, row: &Row, first: usize) -> Result<Result<Vec<Cell>, Unfit>> {
    let width = source.table.columns.len();
    if row.len() > first + width && row.try_get::<_, Option<bool>>(first + width)? == Some(true) {
        return Ok(Err(Unfit::Large(source.most_bytes)));
    }
    fit(width, (0..width).map(|position| Ok(cell(source, position, row.try_get(first + position)?))))
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
    let column = &source.table.columns[position];
    let unfit = |mismatch| Unfit::Value { column: column.name.clone(), mismatch };
    match raw {
        None => Ok(Cell::Null),
        Some(Raw(raw)) => from_wire(column.kind, source.columns[position].wire, raw).map_err(unfit),
    }
}
