//! Compares rows of the source with the replica in the replica's own SQL, so that only differences travel
//! back. Every answer carries the head that it saw: the rows are those of one position, or the answer is
//! worth nothing. Writes nothing.

use super::arrays::{arrays, is_large, row_slots};
use super::head::At;
use super::store::Statement;
use super::{Replica, statements};
use crate::core::batch::{Item, RowState};
use crate::core::error::{Error, Result};
use crate::core::schema::{Table, ddl, quote};
use crate::core::value::{Cell, Key};

/// Keys of a range that are fetched at once: a server answers at most 10 MB.
const KEYS: i64 = 2_000;

/// What a part of a table differs in.
#[derive(Debug, Default)]
pub struct Differences {
    /// Positions of rows that the replica does not have.
    pub missing: Vec<usize>,
    /// Positions of rows that it has otherwise.
    pub different: Vec<usize>,
    /// Positions of rows that it cannot hold.
    pub refused: Vec<usize>,
    /// Rows that it has in the range, if one was given.
    pub in_range: i64,
}

/// A range of keys: those after one, up to another.
#[derive(Debug, Clone, Copy)]
pub struct KeyRange<'a> {
    /// `None`: from the start.
    pub after: Option<&'a Key>,
    /// `None`: to the end.
    pub up_to: Option<&'a Key>,
}

impl Replica {
    /// Compares whole rows of one table, as they should be `at` a position, with what the replica has; and counts
    /// its rows in `range`. `None` if it is elsewhere.
    pub async fn compare(
        &self,
        table: &Table,
        items: &[Item],
        range: Option<KeyRange<'_>>,
        at: impl Into<At<'_>>,
    ) -> Result<Option<Differences>> {
        let at = at.into();
        let mut found = Differences::default();
        let mut todo = statements_of(table, items);
        while let Some((positions, statement)) = todo.pop() {
            let rows = match self.at(at, statement).await {
                // The database does not even take the values: one by one, for the sake of the others.
                Err(e) if e.is_rejection() => {
                    match positions[..] {
                        [position] => found.refused.push(position),
                        _ => todo.extend(positions.iter().map(|&i| (vec![i], single(table, &items[i])))),
                    }
                    continue;
                }
                other => other?,
            };
            let Some(rows) = rows else { return Ok(None) };
            for row in rows {
                let [Cell::Integer(n), Cell::Integer(is_missing)] = &row[..] else { return Err(garbled()) };
                let position = usize::try_from(*n).ok().and_then(|n| positions.get(n)).copied().ok_or_else(garbled)?;
                if *is_missing == 1 { found.missing.push(position) } else { found.different.push(position) }
            }
        }
        if let Some(range) = range {
            let (filter, args) = condition(table, range);
            let keyless = keyless(table, range).map(|rows| format!(" + (SELECT count(*) {rows})")).unwrap_or_default();
            let sql = format!("SELECT -2, (SELECT count(*) FROM {}{filter}){keyless}", quote(&table.name));
            let Some(rows) = self.at(at, Statement::new(sql, args)).await? else { return Ok(None) };
            found.in_range = number(&rows)?;
        }
        Ok(Some(found))
    }

    /// How many rows a table has, at a position; `None` if the database is elsewhere.
    pub async fn count(&self, table: &Table, at: impl Into<At<'_>>) -> Result<Option<i64>> {
        let sql = format!("SELECT -2, (SELECT count(*) FROM {})", quote(&table.name));
        let rows = self.at(at.into(), sql.into()).await?;
        rows.map(|rows| number(&rows)).transpose()
    }

    /// Every key of so many, in key order: ranges of equal length.
    pub async fn every(&self, table: &Table, rows: i64) -> Result<Vec<Key>> {
        let (keys, order) = (ddl::key_list(table), ddl::exact_key_list(table));
        let sql = format!(
            "SELECT {keys} FROM (SELECT {keys}, row_number() OVER (ORDER BY {order}) AS _pgflume_n FROM {}) WHERE _pgflume_n % ?1 = 0 ORDER BY {order}",
            quote(&table.name)
        );
        self.store.read(Statement::new(sql, vec![Cell::Integer(rows)])).await
    }

    /// The keys in a range, for one that has more than it should; about `most` of them.
    pub async fn keys_in(&self, table: &Table, range: KeyRange<'_>, most: usize) -> Result<Vec<Key>> {
        let keys = ddl::key_list(table);
        let mut all: Vec<Key> = match keyless(table, range) {
            Some(rows) => {
                self.store.read(Statement::new(format!("SELECT {keys} {rows} LIMIT {KEYS}"), Vec::new())).await?
            }
            None => Vec::new(),
        };
        let keyless = all.len();
        loop {
            let after = all[keyless..].last().or(range.after);
            let (filter, args) = condition(table, KeyRange { after, up_to: range.up_to });
            let order = ddl::exact_key_list(table);
            let sql = format!("SELECT {keys} FROM {}{filter} ORDER BY {order} LIMIT {KEYS}", quote(&table.name));
            let page = self.store.read(Statement::new(sql, args)).await?;
            let is_end = (page.len() as i64) < KEYS;
            all.extend(page);
            if is_end || all.len() >= most {
                return Ok(all);
            }
        }
    }

    /// The columns (positions) in which the row under the key of `item` differs from it.
    pub async fn differing(&self, table: &Table, item: &Item) -> Result<Vec<usize>> {
        let RowState::Row { cells, .. } = &item.state else { return Ok(Vec::new()) };
        let kinds: Vec<_> = table.columns.iter().map(|c| c.kind).collect();
        let sql = format!(
            "{} {}",
            statements::expected_slots(table, cells.iter().any(statements::is_far)),
            statements::differing(table)
        );
        let rows = self.store.read(Statement::new(sql, row_slots(&kinds, cells))).await?;
        let flags = rows.into_iter().next().unwrap_or_default().into_iter().enumerate();
        Ok(flags.filter(|(_, flag)| *flag == Cell::Integer(1)).map(|(i, _)| i).collect())
    }

    /// The rows of a query of two columns at a position; `None` if the database is elsewhere.
    async fn at(&self, at: At<'_>, statement: Statement) -> Result<Option<super::store::Rows>> {
        let Statement { sql, mut args } = statement;
        let mut token = at.select_token(args.len() + 1);
        args.append(&mut token.args);
        let sql = format!("{sql} UNION ALL SELECT -1, ({})", token.sql);
        let mut rows = self.store.read(Statement::new(sql, args)).await?;
        let is_token = |row: &Vec<Cell>| matches!(&row[..], [Cell::Integer(-1), _]);
        let token = rows.iter().position(is_token).map(|at| rows.swap_remove(at)).ok_or_else(garbled)?;
        Ok((token.get(1) == Some(&Cell::Text(at.head().token.clone()))).then_some(rows))
    }
}

/// The statements that compare `items`, each with the positions of its rows.
fn statements_of(table: &Table, items: &[Item]) -> Vec<(Vec<usize>, Statement)> {
    let kinds: Vec<_> = table.columns.iter().map(|c| c.kind).collect();
    let rows = items.iter().enumerate().filter_map(|(i, item)| match &item.state {
        RowState::Row { cells, .. } => Some((i, cells.as_slice())),
        RowState::Gone => None,
    });
    let (large, small): (Vec<_>, Vec<_>) = rows.partition(|(_, row)| is_large(row));
    let differences = statements::differences(table);
    let small_rows: Vec<&[Cell]> = small.iter().map(|(_, row)| *row).collect();
    let mut start = 0;
    let mut all = Vec::new();
    for array in arrays(&kinds, &small_rows) {
        let positions = small[start..start + array.rows].iter().map(|(i, _)| *i).collect();
        start += array.rows;
        let sql = format!("{} {differences}", statements::expected_json(table, array.far_reals));
        all.push((positions, Statement::new(sql, vec![Cell::Text(array.text)])));
    }
    all.extend(large.into_iter().map(|(position, _)| (vec![position], single(table, &items[position]))));
    all
}

/// The statement that compares one row, whose values are parameters.
fn single(table: &Table, item: &Item) -> Statement {
    let cells: &[Cell] = match &item.state {
        RowState::Row { cells, .. } => cells,
        RowState::Gone => &[],
    };
    let kinds: Vec<_> = table.columns.iter().map(|c| c.kind).collect();
    let expected = statements::expected_slots(table, cells.iter().any(statements::is_far));
    Statement::new(format!("{expected} {}", statements::differences(table)), row_slots(&kinds, cells))
}

fn condition(table: &Table, range: KeyRange<'_>) -> (String, Vec<Cell>) {
    let keys = ddl::key_list(table);
    let (mut conditions, mut args) = (Vec::new(), Vec::new());
    for (bound, operator) in [(range.after, ">"), (range.up_to, "<=")] {
        let Some(key) = bound else { continue };
        conditions.push(format!("({keys}) {operator} ({})", statements::key_marks(table, args.len() + 1)));
        args.extend(key.iter().cloned());
    }
    let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    (filter, args)
}

/// Rows without a key, which no condition finds, as part of the range that begins at the start: SQLite sorts NULL first.
fn keyless(table: &Table, range: KeyRange<'_>) -> Option<String> {
    let is_first = range.after.is_none() && range.up_to.is_some();
    let first = table.key_columns().next().filter(|_| is_first)?;
    Some(format!("FROM {} WHERE {} IS NULL", quote(&table.name), quote(&first.name)))
}

/// The second column of the one row.
fn number(rows: &[Vec<Cell>]) -> Result<i64> {
    match rows.first().map(Vec::as_slice) {
        Some([Cell::Integer(_), Cell::Integer(count)]) => Ok(*count),
        _ => Err(garbled()),
    }
}

fn garbled() -> Error {
    Error::retry("the replica's answer to a comparison cannot be understood; it will be asked again")
}
