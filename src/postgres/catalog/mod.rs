//! What Postgres says about the replicated tables: whether they are there, readable and captured, of
//! what types their columns are, and which index orders their keys. Two round trips for all tables.

pub mod casts;
pub mod columns;

mod plain;

use crate::core::error::Result;
use crate::core::queue_name::QueueName;
use crate::core::schema::{ColumnType, Schema, Table};
use crate::core::value::binary::Wire;
use crate::postgres::Client;
use casts::OwnCast;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// What a row or a message may have where nothing else is asked for: more than sqld and Turso take of a value.
pub const DEFAULT_ROW_BYTES: i64 = 64 * 1024 * 1024;

/// One replicated table as Postgres has it.
#[derive(Debug, Clone)]
pub struct SourceTable {
    /// Its definition.
    pub table: Arc<Table>,
    /// Its OID; 0 if it does not exist.
    pub oid: u32,
    /// Whether rows can be read.
    pub access: Access,
    /// Columns of `schema.json` that it does not have.
    pub lacking: Vec<String>,
    /// Whether `setup`'s triggers mark its changes.
    pub captured: bool,
    /// What it is.
    pub kind: RelationKind,
    /// The columns, in the order of `table.columns`; empty unless readable.
    pub(crate) columns: Vec<SourceColumn>,
    /// The key's columns (positions in `columns`) in the order of the index that pages are read by; empty
    /// where no index identifies rows by them.
    pub order: Vec<usize>,
    /// Bytes beyond which a row is not fetched.
    pub most_bytes: i64,
    /// Whether values may be large: then each row is measured. Once so, it stays.
    pub is_wide: Arc<AtomicBool>,
}

impl SourceTable {
    fn missing(table: &Arc<Table>) -> Self {
        Self {
            table: table.clone(),
            oid: 0,
            access: Access::Missing,
            lacking: Vec::new(),
            captured: false,
            kind: RelationKind::Table,
            columns: Vec::new(),
            order: Vec::new(),
            most_bytes: DEFAULT_ROW_BYTES,
            is_wide: Arc::default(),
        }
    }

    /// Whether its rows are read by marks: captured and readable.
    pub fn is_marked(&self) -> bool {
        self.captured && self.access == Access::Readable
    }

    /// The type of each column as it is declared, under its domains, as a JSON object; `None` where the table cannot be read.
    pub(crate) fn types(&self) -> Option<String> {
        let named = self.table.columns.iter().zip(&self.columns);
        let types: serde_json::Map<_, _> =
            named.map(|(column, found)| (column.name.clone(), found.under_domains.clone().into())).collect();
        (!types.is_empty()).then(|| serde_json::Value::from(types).to_string())
    }

    /// The column, as it is compared with a value of `SourceColumn::cast`.
    pub fn compared(&self, position: usize) -> String {
        let (column, name) = (&self.columns[position], crate::core::schema::quote(&self.table.columns[position].name));
        if column.is_domain { format!("t.{name}::{}", column.cast) } else { format!("t.{name}") }
    }

    /// The first key column whose look-up would run what somebody wrote.
    fn runs_code(&self) -> Option<String> {
        // Of a table that cannot be read no column is known.
        let runs = |position: &&usize| self.columns.get(**position).is_some_and(|column| column.runs_from_text);
        self.table.key.iter().find(runs).map(|&position| self.table.columns[position].name.clone())
    }

    /// Ends a subquery that looks keys up. With thousands of partitions Postgres plans for seconds where it may join
    /// them (before version 18, by the square of their number), and not where a subquery stands for itself.
    pub(crate) fn fence(&self) -> &'static str {
        if self.kind == RelationKind::Partitioned { " offset 0" } else { "" }
    }

    /// Whether a copy comes to its end, now or when its problem is fixed.
    pub(crate) fn can_be_copied(&self) -> bool {
        self.captured || self.unpageable().is_none()
    }

    /// Why the whole table cannot be read page by page, with the remedy; `None` where it can.
    pub(crate) fn unpageable(&self) -> Option<String> {
        let no_index = || {
            let key: Vec<_> = self.table.key_columns().map(|c| c.name.as_str()).collect();
            format!(
                "{} has no primary key and no unique index on exactly the NOT NULL columns {}, by which its rows could be read in order: add one, or correct primaryKey",
                self.table.source.quoted(),
                crate::core::schema::quoted_list(key)
            )
        };
        let no_key = |position: &usize| {
            let (name, source) = (&self.table.columns[*position].name, self.table.source.quoted());
            format!(
                "the key column {name:?} of {source} is declared JSON, which Postgres does not take back as a key: declare it TEXT"
            )
        };
        self.access
            .problem(&self.table)
            .or_else(|| self.order.is_empty().then(no_index))
            .or_else(|| self.order.iter().find(|i| !self.takes_back(**i)).map(no_key))
    }

    /// Whether the text in the replica is one that Postgres reads as the key: a JSON string is not.
    fn takes_back(&self, position: usize) -> bool {
        let plain = [Type::JSON, Type::JSONB, Type::INT2, Type::INT4, Type::INT8, Type::NUMERIC, Type::BOOL];
        self.table.columns[position].kind != ColumnType::Json || plain.contains(&self.columns[position].base)
    }

    /// By what cursors in this table are to be read: columns, types and how they are written.
    pub fn ordering(&self) -> String {
        let column = |&i: &usize| {
            let column = &self.table.columns[i];
            let found = &self.columns[i];
            let bytes = if found.is_bytes { " bytes" } else { "" };
            format!(
                "{} {} {} {}{bytes}",
                crate::core::schema::quote(&column.name),
                found.cast,
                found.sorted_by,
                column.kind.name()
            )
        };
        let all: Vec<_> = self.order.iter().chain(&self.table.key).map(column).collect();
        all.join(", ")
    }

    /// Whether the replica sorts the keys as this table's index does, so that a range of keys is the same
    /// on both sides.
    pub(crate) fn sorts_alike(&self) -> bool {
        !self.order.is_empty() && self.order == self.table.key && self.order.iter().all(|&i| self.is_sorted_alike(i))
    }

    fn is_sorted_alike(&self, position: usize) -> bool {
        let column = &self.columns[position];
        match self.table.columns[position].kind {
            ColumnType::Integer => [Type::INT2, Type::INT4, Type::INT8].contains(&column.base),
            ColumnType::Boolean => column.base == Type::BOOL,
            ColumnType::Blob => column.base == Type::BYTEA,
            ColumnType::Text => {
                column.base == Type::UUID || ([Type::TEXT, Type::VARCHAR].contains(&column.base) && column.by_bytes)
            }
            _ => false,
        }
    }
}

/// What shows a table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RelationKind {
    /// A table.
    Table,
    /// A partitioned one.
    Partitioned,
    /// A view.
    View,
    /// A materialized view.
    Materialized,
    /// A foreign table.
    Foreign,
}

impl RelationKind {
    /// By `pg_class.relkind`.
    fn of(relkind: &str) -> Self {
        match relkind {
            "p" => Self::Partitioned,
            "v" => Self::View,
            "m" => Self::Materialized,
            "f" => Self::Foreign,
            _ => Self::Table,
        }
    }

    /// Whether it has no rows of its own, but shows those of others: then it has no key either.
    pub fn shows_others(self) -> bool {
        matches!(self, Self::View | Self::Materialized | Self::Foreign)
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Partitioned => "partitioned table",
            Self::View => "view",
            Self::Materialized => "materialized view",
            Self::Foreign => "foreign table",
        }
    }
}

/// Whether the worker can read a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Yes.
    Readable,
    /// There is no such table.
    Missing,
    /// The role may not.
    Forbidden,
    /// It lacks this column.
    Lacks(String),
    /// Reading it would run somebody's function: the column's path and the problem with the remedy.
    Unsafe(String),
}

impl Access {
    /// What is wrong and the remedy; `None` where nothing is.
    pub fn problem(&self, table: &Table) -> Option<String> {
        let source = table.source.quoted();
        match self {
            Self::Readable => None,
            Self::Missing => Some(format!(
                "{source} does not exist, or is no table: create it, or remove {:?} from schema.json",
                table.name
            )),
            Self::Forbidden => Some(format!("{source} may not be read: grant select on it to the worker's role")),
            Self::Lacks(column) => Some(format!("{source} lacks the column {column:?}: correct schema.json")),
            Self::Unsafe(problem) => Some(problem.clone()),
        }
    }
}

/// One column as Postgres has it.
#[derive(Debug, Clone)]
pub(crate) struct SourceColumn {
    /// The type under its domains, as SQL that casts text into it: a row is there whatever a domain asks by now, and
    /// what it asks may be somebody's function.
    pub cast: String,
    /// Whether its own type is a domain.
    pub is_domain: bool,
    /// Whether its text may be anything but UTF-8.
    pub is_bytes: bool,
    /// Whether a function that somebody wrote is run where its type is made from text, as keys are.
    pub runs_from_text: bool,
    /// The type under its domains.
    pub base: Type,
    /// How its values come.
    pub wire: Wire,
    /// The equality that its index uses: an extension's type has its own outside the search path.
    pub equals: String,
    /// The comparison `>` of the same index.
    pub greater: String,
    /// Its `>=`.
    pub at_least: String,
    /// Its `<=`.
    pub at_most: String,
    /// Whether its order is that of its bytes.
    pub by_bytes: bool,
    /// Its type with length, digits and the like.
    pub declared: String,
    /// The same under its domains.
    pub under_domains: String,
    /// What the order of its values depends on beside the type: collation, an enum's labels.
    pub sorted_by: String,
    /// Its number in the table: another one is another column, whatever its name.
    pub number: i16,
    /// Whether it is an array.
    pub is_array: bool,
    /// Whether there are arrays inside: in a composite, or in the elements of an array.
    pub has_arrays_inside: bool,
    /// Whether it, or each element of it, is of an enum or a range that is not Postgres' own.
    pub is_string_in_json: bool,
    /// Whether the table is partitioned by it.
    pub partitions: bool,
}

impl SourceColumn {
    /// Whether its type is Postgres' own: nobody but a superuser can make a cast of it.
    fn is_own(&self) -> bool {
        self.base != Type::UNKNOWN
    }

    /// SQL for a value's text. Of a type that is not Postgres' own it is what the output function gives: somebody may
    /// make a cast between a look at the catalog and the read.
    pub fn text_of(&self, value: &str) -> String {
        if self.is_own() {
            return format!("{value}::pg_catalog.text");
        }
        format!(
            "case when pg_catalog.num_nulls({value}) operator(pg_catalog.=) 0 then pg_catalog.format('%s', {value}) end"
        )
    }

    /// SQL for the value that a text says, of the type under the domains. Of a type that is not Postgres' own it is
    /// what the input function gives.
    pub fn made_from(&self, text: &str) -> String {
        let cast = &self.cast;
        if self.is_own() {
            return format!("{text}::{cast}");
        }
        format!(
            "(select _pgflume_j.x from pg_catalog.jsonb_to_record(pg_catalog.jsonb_build_object('x', {text}::pg_catalog.text)) as _pgflume_j(x {cast}))"
        )
    }
}

/// All replicated tables as Postgres has them at one moment.
#[derive(Debug)]
pub struct Catalog {
    /// By their names in `schema.json`.
    pub tables: BTreeMap<String, SourceTable>,
}

/// Reads the catalog for every table of `schema`, at a snapshot of its own.
pub async fn read(client: &Client, schema: &Schema, queue: &QueueName) -> Result<Catalog> {
    begin(client).await?;
    let read = read_within(client, schema, queue).await?;
    client.commit().await?;
    Ok(read)
}

/// The same, with whatever else shows rows: views and foreign tables, whose key is what `schema` says.
pub(crate) async fn read_shown(client: &Client, schema: &Schema, queue: &QueueName) -> Result<Catalog> {
    begin(client).await?;
    let mut read = read_by(client, schema, queue, &with_shown(COLUMNS)).await?;
    client.commit().await?;
    for entry in read.tables.values_mut().filter(|entry| entry.kind.shows_others() && entry.order.is_empty()) {
        entry.order.clone_from(&entry.table.key);
    }
    Ok(read)
}

const COLUMNS: &str = include_str!("../../../sql/catalog_columns.sql");

/// A question about tables, asked of whatever shows rows.
pub(crate) fn with_shown(sql: &str) -> String {
    sql.replace("c.relkind in ('r', 'p')", "c.relkind in ('r', 'p', 'v', 'm', 'f')")
}

/// Begins to read the catalog, at one snapshot.
pub async fn begin(client: &Client) -> Result<()> {
    // format_type() leaves out schemas that are on the search path, and steps run with an empty one.
    client
        .begin(
            "isolation level repeatable read read only",
            "set local quote_all_identifiers = off; set local jit = off",
        )
        .await?;
    Ok(())
}

/// The same in a transaction that [`begin`] began.
pub(crate) async fn read_within(client: &Client, schema: &Schema, queue: &QueueName) -> Result<Catalog> {
    read_by(client, schema, queue, COLUMNS).await
}

async fn read_by(client: &Client, schema: &Schema, queue: &QueueName, columns_sql: &str) -> Result<Catalog> {
    let tables: Vec<&Arc<Table>> = schema.tables().collect();
    let names: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
    let schemas: Vec<&str> = tables.iter().map(|t| t.source.schema.as_str()).collect();
    let sources: Vec<&str> = tables.iter().map(|t| t.source.table.as_str()).collect();
    let prefix = format!("pgflume_{}_", queue.as_str());
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> =
        vec![(&names, Type::TEXT_ARRAY), (&schemas, Type::TEXT_ARRAY), (&sources, Type::TEXT_ARRAY)];
    let keys = client.query_typed(include_str!("../../../sql/catalog_keys.sql"), &parameters).await?;
    parameters.push((&prefix, Type::TEXT));
    let columns = client.query_typed(columns_sql, &parameters).await?;
    let mut found: BTreeMap<_, _> = tables.iter().map(|t| (t.name.clone(), SourceTable::missing(t))).collect();
    add_columns(&mut found, &columns)?;
    add_order(&mut found, &keys)?;
    let oids: Vec<u32> = found.values().map(|entry| entry.oid).filter(|oid| *oid != 0).collect();
    distrust(&mut found, &casts::read(client, &oids).await?);
    Ok(Catalog { tables: found })
}

fn add_columns(found: &mut BTreeMap<String, SourceTable>, rows: &[Row]) -> Result<()> {
    let mut columns: BTreeMap<String, BTreeMap<String, SourceColumn>> = BTreeMap::new();
    for row in rows {
        let name: String = row.try_get(0)?;
        let Some(entry) = found.get_mut(&name) else { continue };
        entry.oid = row.try_get(1)?;
        entry.access = if row.try_get(2)? { Access::Readable } else { Access::Forbidden };
        entry.captured = row.try_get(3)?;
        entry.kind = RelationKind::of(row.try_get(20)?);
        columns.entry(name).or_default().insert(row.try_get(4)?, column(row)?);
    }
    for (name, entry) in found.iter_mut().filter(|(_, entry)| entry.access == Access::Readable) {
        complete(entry, &columns.remove(name).unwrap_or_default());
    }
    Ok(())
}

/// A column, as `sql/catalog_columns.sql` tells it.
fn column(row: &Row) -> Result<SourceColumn> {
    Ok(SourceColumn {
        cast: row.try_get(5)?,
        base: Type::from_oid(row.try_get(6)?).unwrap_or(Type::UNKNOWN),
        wire: Wire::Text, // until it is known for what
        equals: row.try_get(7)?,
        greater: row.try_get(8)?,
        at_least: row.try_get(9)?,
        at_most: row.try_get(10)?,
        by_bytes: row.try_get(11)?,
        is_array: row.try_get(12)?,
        has_arrays_inside: row.try_get(13)?,
        declared: row.try_get(14)?,
        sorted_by: row.try_get(15)?,
        number: row.try_get(16)?,
        is_domain: row.try_get(17)?,
        is_bytes: row.try_get(18)?,
        runs_from_text: row.try_get(19)?,
        is_string_in_json: row.try_get(21)?,
        under_domains: row.try_get(22)?,
        partitions: row.try_get(23)?,
    })
}

/// Gives a table its columns, or says why it cannot be read.
fn complete(entry: &mut SourceTable, there: &BTreeMap<String, SourceColumn>) {
    let names = entry.table.columns.iter().map(|c| &c.name);
    entry.lacking = names.filter(|name| !there.contains_key(*name)).cloned().collect();
    let wanted = entry.table.columns.iter().map(|c| {
        let column = there.get(&c.name).ok_or(&c.name)?;
        Ok(SourceColumn { wire: Wire::of(c.kind, &column.base), ..column.clone() })
    });
    match wanted.collect::<Result<_, &String>>() {
        Ok(all) => entry.columns = all,
        Err(missing) => entry.access = Access::Lacks(missing.clone()),
    }
    if let Some(column) = entry.runs_code() {
        let problem = format!(
            "{}.columns.{column}: looking a key up would run a function of somebody's own with the rights of the worker, a cast from text to its type or the check of a domain inside of it: drop that, or give the key another type",
            entry.table.name
        );
        (entry.access, entry.columns) = (Access::Unsafe(problem), Vec::new());
    }
}

/// Tables whose rows cannot be read without running somebody's function.
fn distrust(found: &mut BTreeMap<String, SourceTable>, own: &[OwnCast]) {
    for entry in found.values_mut().filter(|entry| entry.access == Access::Readable) {
        let of_table: Vec<OwnCast> = own.iter().filter(|cast| cast.table == entry.oid).cloned().collect();
        if let Some((path, problem)) = casts::problems(&entry.table, &of_table).into_iter().next() {
            entry.access = Access::Unsafe(format!("{path}: {problem}"));
        }
    }
}

/// The first index on exactly the key's columns: primary keys come first.
fn add_order(found: &mut BTreeMap<String, SourceTable>, rows: &[Row]) -> Result<()> {
    for row in rows {
        let (name, columns): (String, Vec<String>) = (row.try_get(0)?, row.try_get(1)?);
        let Some(entry) = found.get_mut(&name).filter(|entry| entry.order.is_empty()) else { continue };
        let positions: Option<Vec<usize>> = columns.iter().map(|c| entry.table.position(c)).collect();
        if let Some(positions) = positions
            && positions.iter().collect::<BTreeSet<_>>() == entry.table.key.iter().collect()
        {
            entry.order = positions;
        }
    }
    Ok(())
}
