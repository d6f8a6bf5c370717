//! All rows of all tables on both sides, value by value as text, by the contract's rules: written without the
//! product's own conversions.

use crate::stage::Failure;
use pgflume::core::value::Cell;
use pgflume::replica::{Statement, Store};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// Rows of the replica read at once: a server answers at most 10 MB.
const PAGE_ROWS: usize = 5_000;
/// Differences that are told in words.
const EXAMPLES: usize = 5;

/// A row: its columns, each with the class in which SQLite keeps it; NULL is none.
type Row = Vec<Option<String>>;

/// What both sides have.
#[derive(Default)]
pub struct Comparison {
    pub rows: u64,
    pub differences: u64,
    pub examples: Vec<String>,
}

/// Compares every table of the schema. Nobody may write meanwhile.
pub async fn compare(client: &Client, store: &dyn Store, schema: &str) -> Result<Comparison, Failure> {
    client.batch_execute("set timezone = 'UTC'; set datestyle = 'ISO'; set extra_float_digits = 1").await?;
    let schema: Map<String, Value> = serde_json::from_str(schema)?;
    let mut comparison = Comparison::default();
    for (name, definition) in &schema {
        let columns = definition["columns"].as_object().ok_or("columns")?;
        let key = key_columns(definition, columns);
        let source = index(source_rows(client, name, columns, definition["where"].as_str()).await?, &key);
        let replica = index(replica_rows(store, name, columns).await?, &key);
        comparison.add(name, &source, &replica);
    }
    Ok(comparison)
}

impl Comparison {
    fn add(&mut self, table: &str, source: &BTreeMap<Row, Row>, replica: &BTreeMap<Row, Row>) {
        self.rows += source.len() as u64;
        let keys = source.keys().chain(replica.keys().filter(|key| !source.contains_key(*key)));
        for key in keys.filter(|key| source.get(*key) != replica.get(*key)) {
            self.differences += 1;
            if self.examples.len() < EXAMPLES {
                let (there, here) = (source.get(key), replica.get(key));
                self.examples.push(format!("{table} {key:?}: Postgres has {there:?}, the replica {here:?}"));
            }
        }
    }
}

fn key_columns(definition: &Value, columns: &Map<String, Value>) -> Vec<usize> {
    let names: Vec<&str> = match &definition["primaryKey"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        name => name.as_str().into_iter().collect(),
    };
    names.iter().filter_map(|name| columns.keys().position(|column| column == name)).collect()
}

fn index(rows: Vec<Row>, key: &[usize]) -> BTreeMap<Row, Row> {
    rows.into_iter().map(|row| (key.iter().map(|&i| row[i].clone()).collect(), row)).collect()
}

async fn source_rows(
    client: &Client,
    table: &str,
    columns: &Map<String, Value>,
    filter: Option<&str>,
) -> Result<Vec<Row>, Failure> {
    let list: Vec<String> = columns.iter().map(|(name, kind)| as_text(name, kind.as_str().unwrap_or(""))).collect();
    let sql = format!("select {} from public.{table} where {}", list.join(", "), filter.unwrap_or("true"));
    let rows = client.query(&sql, &[]).await?;
    let cell = |text: Option<String>, kind: &Value| text.map(|text| class(kind.as_str().unwrap_or(""), &text));
    Ok(rows.iter().map(|row| columns.values().enumerate().map(|(i, kind)| cell(row.get(i), kind)).collect()).collect())
}

/// A column as the contract says that SQLite has it.
fn as_text(name: &str, kind: &str) -> String {
    match kind {
        "BOOLEAN" => format!("{name}::int::text"),
        "BLOB" => format!("encode({name}, 'hex')"),
        "TEXT" => format!("to_jsonb({name}) #>> '{{}}'"),
        _ => format!("{name}::text"),
    }
}

fn class(kind: &str, text: &str) -> String {
    match kind {
        "INTEGER" | "BOOLEAN" => format!("integer {text}"),
        "BLOB" => format!("blob {text}"),
        "REAL" => match text.parse::<f64>() {
            Ok(real) if real.is_finite() => format!("real {real:?}"),
            _ => format!("text {text}"),
        },
        _ => format!("text {text}"),
    }
}

async fn replica_rows(store: &dyn Store, table: &str, columns: &Map<String, Value>) -> Result<Vec<Row>, Failure> {
    let names = columns.keys().cloned().collect::<Vec<_>>().join(", ");
    let mut all = Vec::new();
    loop {
        let sql = format!("SELECT {names} FROM {table} ORDER BY rowid LIMIT {PAGE_ROWS} OFFSET {}", all.len());
        let page = store.read(Statement::new(sql, Vec::new())).await?;
        let count = page.len();
        all.extend(page.iter().map(|row| row.iter().map(cell).collect::<Row>()));
        if count < PAGE_ROWS {
            return Ok(all);
        }
    }
}

fn cell(cell: &Cell) -> Option<String> {
    Some(match cell {
        Cell::Null => return None,
        Cell::Integer(integer) => format!("integer {integer}"),
        Cell::Real(real) => format!("real {real:?}"),
        Cell::Text(text) => format!("text {text}"),
        Cell::Blob(bytes) => format!("blob {}", hex::encode(bytes)),
        Cell::Lent(_) => panic!("a store lends nothing"),
    })
}
