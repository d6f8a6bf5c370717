//! Integer keys that lie close together, as those of a bulk statement do: one scan of their range costs Postgres a
//! third of as many look-ups. Rows between them that nobody asked for are passed over.

use super::cells::{SourceRow, cells, values};
use super::marked_row::MarkedRow;
use super::size;
use crate::core::error::Result;
use crate::core::message::MarkedKey;
use crate::core::value::Cell;
use crate::core::value::binary::Wire;
use crate::postgres::catalog::SourceTable;
use crate::postgres::{Client, RowStream};
use std::pin::Pin;
use tokio_postgres::types::{ToSql, Type};

/// Fewer keys are not worth a plan of their own.
const LEAST_KEYS: usize = 32;

/// Rows of the range for each key at most.
const MOST_ROWS_A_KEY: i64 = 2;

/// Keys in their order, and how far their rows have come.
pub(crate) struct Span {
    keys: Vec<i64>,
    next: usize,
    row: Option<SourceRow>,
}

impl Span {
    /// The span of `keys`, if they make one: sorted, each written as Postgres would.
    pub fn of(source: &SourceTable, keys: &[MarkedKey]) -> Option<Self> {
        let [position] = source.table.key[..] else { return None };
        if source.columns[position].wire != Wire::Integer || keys.len() < LEAST_KEYS {
            return None;
        }
        let integer = |key: &MarkedKey| key[0].parse::<i64>().ok().filter(|i| itoa::Buffer::new().format(*i) == key[0]);
        let keys = keys.iter().map(integer).collect::<Option<Vec<_>>>()?;
        let length = keys.last()?.checked_sub(keys[0])?;
        let is_close = length < MOST_ROWS_A_KEY.checked_mul(keys.len() as i64)?;
        (is_close && keys.is_sorted_by(|a, b| a < b)).then_some(Self { keys, next: 0, row: None })
    }

    /// Starts reading the rows of the range, in the order of the key.
    pub async fn read(&self, client: &Client, source: &SourceTable) -> Result<Pin<Box<RowStream>>> {
        let bound = |key: Option<&i64>| key.map(ToString::to_string).unwrap_or_default();
        let (first, last) = (bound(self.keys.first()), bound(self.keys.last()));
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&first, Type::TEXT), (&last, Type::TEXT)];
        Ok(Box::pin(client.query_typed_raw(&sql(source), &parameters).await?))
    }

    /// What is known of the next key when `row` has come, or the end; `None`: the next row is needed.
    pub fn found(&mut self, source: &SourceTable, row: Option<SourceRow>) -> Result<Option<MarkedRow>> {
        if row.is_some() {
            self.row = row;
        }
        let key = |position: usize| Ok(vec![Cell::Integer(self.keys[position])]);
        let Some(row) = &self.row else {
            let position = self.next;
            let found =
                (position < self.keys.len()).then(|| MarkedRow { position, key: key(position), bytes: 0, cells: None });
            self.next += 1;
            return Ok(found);
        };
        let own = &source.table.key[0];
        let id = match super::cells::cell(source, *own, row.try_get(*own)?) {
            Ok(Cell::Integer(id)) => id,
            _ => i64::MIN,
        };
        if self.keys.get(self.next).is_some_and(|key| *key < id) {
            self.next += 1;
            return Ok(Some(MarkedRow { position: self.next - 1, key: key(self.next - 1), bytes: 0, cells: None }));
        }
        self.next += usize::from(self.keys.get(self.next) == Some(&id));
        let Some(position) = self.next.checked_sub(1).filter(|position| self.keys[*position] == id) else {
            self.row = None;
            return Ok(None);
        };
        let found = MarkedRow { position, key: key(position), bytes: 0, cells: Some(cells(source, row, 0)?) };
        self.row = None;
        Ok(Some(found))
    }

    /// Whether the row that came last is still to be looked at.
    pub fn has_row(&self) -> bool {
        self.row.is_some()
    }
}

fn sql(source: &SourceTable) -> String {
    let table = &source.table;
    let values: Vec<_> = values(source).collect();
    let filter = table.filter.as_ref().map(|f| format!(" and (\n{f}\n)")).unwrap_or_default();
    let column = &source.columns[table.key[0]];
    let key = source.compared(table.key[0]);
    let (at_least, at_most, cast) = (&column.at_least, &column.at_most, &column.cast);
    let conditions = format!(" where {key} {at_least} $1::{cast} and {key} {at_most} $2::{cast}{filter}");
    format!("select {} from {} order by {key}", values.join(", "), size::rows(source, &conditions, ""))
}
