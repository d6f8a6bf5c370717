//! Rows of the tables, as the seam asks for them.

use super::engine::Key as RowKey;
use super::link::{Connection, said};
use super::queue::shuffled;
use super::tables::{Reading, Row, decoded, encoded, rows_of};
use async_trait::async_trait;
use futures_util::{Stream, stream};
use pgflume::core::error::{Cause, Result};
use pgflume::core::message::MarkedKey;
use pgflume::core::schema::{Column, ColumnType, Schema, Table};
use pgflume::core::value::{Cell, Key, Mismatch};
use pgflume::postgres::catalog::{Access, SourceTable};
use pgflume::postgres::drift::Drift;
use pgflume::postgres::drift::definition_version::DefinitionVersion;
use pgflume::postgres::link::{Known, Page, Pages, Reading as Readings, Source};
use pgflume::postgres::rows::page::{Cursor, Size};
use pgflume::postgres::rows::{MarkedRow, Unfit};
use pgflume::replica::inventory::Inventory;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Fewer keys are not read as a span.
const LEAST_SPAN: usize = 32;

/// Rows of a span for each key at most.
const MOST_ROWS_A_KEY: i64 = 2;

/// Bytes of a row beside its values.
const ROW_HEAD: usize = 8;

impl Connection {
    fn known_now(&self) -> Result<Known> {
        let fingerprint = self.catalog_text()?;
        let schema = self.effective_schema();
        let table = |table: &Arc<Table>| (table.name.clone(), self.source_table(table));
        let sources: BTreeMap<_, _> = schema.tables().map(table).collect();
        let definition_version = DefinitionVersion::of(&schema, &sources, &BTreeMap::new())?;
        self.remember_catalog();
        Ok(Known { fingerprint, schema, sources, definition_version })
    }

    /// With the columns that tables follow their source by.
    fn effective_schema(&self) -> Arc<Schema> {
        let declared = self.memory.postgres.schema();
        let added = |table: &&Arc<Table>| {
            let columns: Vec<Column> = self.memory.postgres.state(&table.name).columns[table.columns.len()..]
                .iter()
                .map(|(column, ..)| column.clone())
                .collect();
            (table.evolve && !columns.is_empty()).then(|| (table.name.clone(), columns))
        };
        let added: BTreeMap<_, _> = declared.tables().filter_map(|table| added(&table)).collect();
        if added.is_empty() { declared.clone() } else { Arc::new(declared.extended(&added)) }
    }

    fn source_table(&self, table: &Arc<Table>) -> SourceTable {
        let state = self.memory.postgres.state(&table.name);
        let mut source = SourceTable::plain(table, state.oid, self.memory.postgres.is_captured(&table.name));
        for (position, (_, number, _)) in state.columns.iter().enumerate().take(table.columns.len()) {
            source.renumber(position, *number);
        }
        source.most_bytes = self.memory.row_bytes;
        source.access = if state.is_readable { Access::Readable } else { Access::Forbidden };
        source
    }

    /// What a reader makes of a row. One that takes too long takes the statement's time.
    async fn look_at(&self, source: &SourceTable, row: &Row) -> Result<Result<Vec<Cell>, Unfit>> {
        match row.reading {
            Reading::Fits => Ok(self.cells(source, row)),
            Reading::Unfit => Ok(Err(unfit(&source.table))),
            Reading::Unreadable => Err(self.raise("22P02", Cause::Row)),
            Reading::Slow => {
                tokio::time::sleep(self.time()).await;
                Err(self.raise("57014", Cause::Cancelled))
            }
        }
    }

    fn cells(&self, source: &SourceTable, row: &Row) -> Result<Vec<Cell>, Unfit> {
        let width = source.table.columns.len();
        let mut cells: Vec<Cell> = row.cells.iter().take(width).cloned().collect();
        if cells.len() < width {
            let state = self.memory.postgres.state(&source.table.name);
            cells.extend(state.columns[cells.len()..width].iter().map(|(_, _, value)| value.clone()));
        }
        let is_large = cells.iter().map(Cell::bytes).sum::<usize>() as i64 > source.most_bytes;
        if is_large { Err(Unfit::Large(source.most_bytes)) } else { Ok(cells) }
    }

    /// A key in the form of the table's; an error of a row where Postgres does not take it.
    fn cast(&self, source: &SourceTable, key: &[String]) -> Result<RowKey> {
        encoded(&source.table, key).ok_or_else(|| self.raise("22P02", Cause::Row))
    }

    async fn open_table(&self, source: &SourceTable) -> Result<String> {
        self.check_rights(source)?;
        let relation = rows_of(&source.table.name);
        self.share(&relation).await?;
        Ok(relation)
    }

    /// All rows of a table, in the order of its index.
    async fn all_rows(&self, source: &SourceTable) -> Result<Vec<(RowKey, Arc<Row>)>> {
        let relation = self.open_table(source).await?;
        self.access().scan(&relation).map_err(said)
    }

    /// Rows after a place.
    async fn rows_after(&self, source: &SourceTable, after: Option<&Cursor>) -> Result<Vec<(RowKey, Arc<Row>)>> {
        let after = after.map(|after| self.cast(source, after)).transpose()?;
        let mut rows = self.all_rows(source).await?;
        rows.retain(|(key, _)| after.as_ref().is_none_or(|after| key > after));
        Ok(rows)
    }

    /// Reads what is under keys, one after the other; what came before a row that is at fault has come.
    async fn read_keys(&self, source: &SourceTable, keys: &[MarkedKey]) -> Result<VecDeque<Result<MarkedRow>>> {
        let relation = self.open_table(source).await?;
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|position| shuffled(*position as u64));
        let mut found = VecDeque::with_capacity(keys.len());
        for position in order {
            let one = self.read_key(source, &relation, &keys[position], position).await;
            let is_over = one.is_err();
            found.push_back(one);
            if is_over {
                break;
            }
        }
        Ok(found)
    }

    async fn read_key(
        &self,
        source: &SourceTable,
        relation: &str,
        key: &[String],
        position: usize,
    ) -> Result<MarkedRow> {
        let place = self.cast(source, key)?;
        let row = self.access().get::<Row>(relation, &place).map_err(said)?;
        let cells = match &row {
            Some(row) => Some(self.look_at(source, row).await?),
            None => None,
        };
        Ok(found(source, key, position, cells))
    }

    /// Rows between the first and the last of keys that lie close together, those too that nobody asked for.
    async fn read_span(&self, source: &SourceTable, keys: &[MarkedKey]) -> Result<VecDeque<Result<MarkedRow>>> {
        let (first, last) = (self.cast(source, &keys[0])?, self.cast(source, &keys[keys.len() - 1])?);
        let mut rows = self.all_rows(source).await?;
        rows.retain(|(key, _)| *key >= first && *key <= last);
        let mut read = BTreeMap::new();
        for (key, row) in rows {
            match self.look_at(source, &row).await {
                Ok(cells) => drop(read.insert(decoded(&source.table, &key), cells)),
                Err(e) => return Ok(VecDeque::from([Err(e)])),
            }
        }
        let found = |(position, key): (usize, &MarkedKey)| Ok(found(source, key, position, read.remove(key)));
        Ok(keys.iter().enumerate().map(found).collect())
    }

    async fn read_page(&self, source: &SourceTable, after: Option<&Cursor>, most: i64) -> Result<MemoryPage> {
        let rows = self.rows_after(source, after).await?;
        let mut page = MemoryPage { rows: VecDeque::new(), place: after.cloned(), read: 0, most };
        for (key, row) in rows.iter().take(usize::try_from(most).unwrap_or(0)) {
            let looked = self.look_at(source, row).await;
            let is_over = looked.is_err();
            let with_key = |cells: Vec<Cell>| (key_of(&source.table, &cells), cells);
            let place = decoded(&source.table, key);
            page.rows.push_back(looked.map(|fit| (place, fit.map(with_key))));
            if is_over {
                break;
            }
        }
        Ok(page)
    }

    async fn missing(&self, source: &SourceTable, keys: &[Vec<String>]) -> Result<Vec<usize>> {
        let relation = self.open_table(source).await?;
        let mut missing = Vec::new();
        for (position, key) in keys.iter().enumerate() {
            let place = self.cast(source, key)?;
            if self.session.get(&relation, &place).map_err(said)?.is_none() {
                missing.push(position);
            }
        }
        Ok(missing)
    }

    async fn missing_texts(&self, source: &SourceTable, keys: &[Vec<String>]) -> Result<Vec<usize>> {
        let rows = self.all_rows(source).await?;
        let there: BTreeSet<_> = rows.iter().map(|(key, _)| decoded(&source.table, key)).collect();
        Ok((0..keys.len()).filter(|&position| !there.contains(&keys[position])).collect())
    }
}

fn unfit(table: &Table) -> Unfit {
    let position = (0..table.columns.len()).find(|position| !table.key.contains(position)).unwrap_or(0);
    Unfit::Value { column: table.columns[position].name.clone(), mismatch: Mismatch::Integer }
}

fn key_of(table: &Table, cells: &[Cell]) -> Key {
    table.key.iter().map(|&i| cells[i].clone()).collect()
}

fn found(source: &SourceTable, key: &[String], position: usize, cells: Option<Result<Vec<Cell>, Unfit>>) -> MarkedRow {
    let table = &source.table;
    let cell = |(&i, text): (&usize, &String)| match table.columns[i].kind {
        ColumnType::Integer => text.trim().parse().map_or(Cell::Null, Cell::Integer),
        _ => Cell::Text(text.clone()),
    };
    let values = cells.iter().flatten().flatten().map(Cell::bytes).sum::<usize>();
    let bytes = ROW_HEAD + key.iter().map(String::len).sum::<usize>() + values;
    MarkedRow { position, key: Ok(table.key.iter().zip(key).map(cell).collect()), bytes, cells }
}

/// Whether keys are read as one range of the index.
fn is_span(source: &SourceTable, keys: &[MarkedKey]) -> bool {
    let [position] = source.table.key[..] else { return false };
    if source.table.columns[position].kind != ColumnType::Integer || keys.len() < LEAST_SPAN {
        return false;
    }
    let integer = |key: &MarkedKey| key[0].parse::<i64>().ok().filter(|number| number.to_string() == key[0]);
    let Some(numbers) = keys.iter().map(integer).collect::<Option<Vec<_>>>() else { return false };
    let length = numbers[numbers.len() - 1].checked_sub(numbers[0]);
    length.is_some_and(|length| length < MOST_ROWS_A_KEY * numbers.len() as i64) && numbers.is_sorted_by(|a, b| a < b)
}

type PageRow = (Cursor, Result<(Key, Vec<Cell>), Unfit>);

/// A page that has been read.
struct MemoryPage {
    rows: VecDeque<Result<PageRow>>,
    place: Option<Cursor>,
    read: i64,
    most: i64,
}

impl Stream for MemoryPage {
    type Item = Result<Result<(Key, Vec<Cell>), Unfit>>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.rows.pop_front().map(|row| {
            let (place, row) = row?;
            (self.place, self.read) = (Some(place), self.read + 1);
            Ok(row)
        }))
    }
}

impl Page for MemoryPage {
    fn place(&self) -> Result<Option<Cursor>> {
        Ok(self.place.clone())
    }

    fn is_last(&self) -> bool {
        self.read < self.most
    }
}

#[async_trait]
impl Source for Connection {
    async fn known(&self) -> Result<Known> {
        self.run("known", async { self.known_now() }).await
    }

    async fn fingerprint(&self) -> Result<String> {
        self.knows_catalog()?;
        self.run("fingerprint", async { self.catalog_text() }).await
    }

    async fn drift(&self, _: Option<&Inventory>) -> Result<Vec<Drift>> {
        self.run("drift", async { Ok(Vec::new()) }).await
    }

    async fn measure(&self, _: &[&SourceTable]) -> Result<()> {
        Ok(())
    }

    async fn read<'a>(
        &'a self,
        source: &'a SourceTable,
        keys: &'a [MarkedKey],
        may_span: bool,
    ) -> Result<Readings<'a>> {
        let read = async {
            match may_span && is_span(source, keys) {
                true => self.read_span(source, keys).await,
                false => self.read_keys(source, keys).await,
            }
        };
        let found = self.run("read", read).await?;
        Ok(Box::pin(stream::iter(found)))
    }

    async fn page<'a>(&'a self, source: &'a SourceTable, after: Option<&'a Cursor>, rows: i64) -> Result<Pages<'a>> {
        let page = self.run("page", self.read_page(source, after, rows)).await?;
        Ok(Box::pin(page))
    }

    async fn next_place(&self, source: &SourceTable, after: Option<&Cursor>) -> Result<Option<Cursor>> {
        let next = async {
            let rows = self.rows_after(source, after).await?;
            Ok(rows.first().map(|(key, _)| decoded(&source.table, key)))
        };
        self.run("next_place", next).await
    }

    async fn size(&self, source: &SourceTable) -> Result<Size> {
        let rows = self.memory.postgres.rows(&source.table.name).len() as i64;
        let bytes = rows * self.memory.planned_row_bytes;
        self.run("size", async { Ok(Size { rows: Some(rows).filter(|rows| *rows > 0), bytes }) }).await
    }

    async fn is_empty(&self, source: &SourceTable) -> Result<bool> {
        self.run("is_empty", async { Ok(self.all_rows(source).await?.is_empty()) }).await
    }

    async fn absent(&self, source: &SourceTable, keys: &[Vec<String>]) -> Result<Vec<usize>> {
        self.run("absent", self.missing(source, keys)).await
    }

    async fn absent_by_text(&self, source: &SourceTable, keys: &[Vec<String>], _: bool) -> Result<Vec<usize>> {
        self.run("absent_by_text", self.missing_texts(source, keys)).await
    }

    async fn try_key(&self, source: &SourceTable, key: &[String]) -> Result<()> {
        self.run("try_key", async { self.cast(source, key).map(drop) }).await
    }
}
