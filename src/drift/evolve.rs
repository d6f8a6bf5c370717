//! Tables with `"evolve": true`: columns that were added to their source since `setup` become part of the
//! definition. Takes what is recorded and what is there, gives the definition in force; stores nothing,
//! so that every worker comes to the same.

use super::recorded::{self, Recorded, Records, SourceColumn};
use super::source::{self, Found};
use crate::config::QueueName;
use crate::error::Result;
use crate::schema::{Column, ColumnType, Schema, Table};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::Client;

/// `schema` with the columns that came since.
pub async fn effective(client: &Client, schema: &Arc<Schema>, queue: &QueueName) -> Result<Arc<Schema>> {
    if !schema.tables().any(|table| table.evolve) {
        return Ok(schema.clone());
    }
    let records = recorded::read(client, queue).await?;
    if records.is_empty() {
        return Ok(schema.clone());
    }
    let found = source::read(client, schema, &records, queue).await?;
    Ok(Arc::new(extend(schema, &records, &found)))
}

/// The same of what is known already.
pub fn extend(schema: &Schema, records: &Records, found: &BTreeMap<String, Found>) -> Schema {
    let mut more = BTreeMap::new();
    for table in schema.tables().filter(|table| table.evolve) {
        if let (Some(recorded), Some(found)) = (records.get(&table.name), found.get(&table.name)) {
            let columns = new_columns(table, recorded, found).into_iter();
            more.insert(table.name.clone(), columns.map(column).collect::<Vec<_>>());
        }
    }
    schema.extended(&more)
}

fn column(column: &SourceColumn) -> Column {
    Column { name: column.name.clone(), kind: default_kind(&column.declared) }
}

/// The source's columns that came since `setup` and that `table` does not name. A renamed column keeps its
/// number and is not new: it may have been left out on purpose.
pub fn new_columns<'a>(table: &Table, recorded: &Recorded, found: &'a Found) -> Vec<&'a SourceColumn> {
    let definition = &recorded.definition;
    let is_same_table = found.oid == recorded.oid;
    let is_new = |c: &&SourceColumn| {
        let lower = c.name.to_lowercase();
        let is_named = table.columns.iter().any(|named| named.name.to_lowercase() == lower);
        let came_since = match is_same_table {
            true => c.number > definition.known,
            false => !definition.source_columns.iter().any(|before| before.name == c.name),
        };
        !is_named && came_since
    };
    found.columns.iter().filter(is_new).collect()
}

/// How a column of a Postgres type is kept where nobody says.
pub fn default_kind(declared: &str) -> ColumnType {
    let base = declared.split('(').next().unwrap_or(declared).trim();
    match base {
        _ if declared.ends_with("[]") => ColumnType::Json,
        "smallint" | "integer" | "bigint" => ColumnType::Integer,
        "real" | "double precision" => ColumnType::Real,
        "boolean" => ColumnType::Boolean,
        "json" | "jsonb" => ColumnType::Json,
        "bytea" => ColumnType::Blob,
        "numeric" => ColumnType::Decimal,
        _ => ColumnType::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_column_is_kept_without_loss() {
        for (declared, kind) in [
            ("bigint", ColumnType::Integer),
            ("numeric(10,2)", ColumnType::Decimal),
            ("numeric(10,2)[]", ColumnType::Json),
            ("timestamp(3) with time zone", ColumnType::Text),
            ("jsonb", ColumnType::Json),
            ("bytea", ColumnType::Blob),
            ("shop.mood", ColumnType::Text),
        ] {
            assert_eq!(default_kind(declared), kind, "{declared}");
        }
    }
}
