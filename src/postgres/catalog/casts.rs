//! Casts that would run somebody's own function wherever a value is written as text or as JSON, with the rights of
//! whoever reads. `setup` refuses columns of such types, and the worker leaves their tables alone. Reads the catalog only.

use crate::core::error::Result;
use crate::core::schema::{ColumnType, Table};
use crate::postgres::Client;
use tokio_postgres::types::Type;

/// A column, and a cast of its type that is somebody's own function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCast {
    /// The OID of the table.
    pub table: u32,
    column: String,
    from: String,
    to: String,
}

/// Of all columns of these tables.
pub async fn read(client: &Client, tables: &[u32]) -> Result<Vec<OwnCast>> {
    let sql = include_str!("../../../sql/inspect_casts.sql");
    let rows = client.query_typed(sql, &[(&tables, Type::OID_ARRAY)]).await?;
    let cast = |row: &tokio_postgres::Row| {
        Ok(OwnCast { table: row.try_get(0)?, column: row.try_get(1)?, from: row.try_get(2)?, to: row.try_get(3)? })
    };
    rows.iter().map(cast).collect()
}

/// Those that concern `table`: the path of the column, and the problem with the remedy.
pub fn problems(table: &Table, casts: &[OwnCast]) -> Vec<(String, String)> {
    let concerns = |cast: &&OwnCast| {
        let position = table.position(&cast.column);
        // Keys and all other kinds are written by the cast to text.
        position.is_some_and(|i| cast.to == "text" || table.columns[i].kind == ColumnType::Json)
    };
    let problem = |cast: &OwnCast| {
        // On one line, whatever the name is.
        let from: String = cast.from.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let to = &cast.to;
        let problem = format!(
            "the cast from {from} to {to} is a function of somebody's own, which would run with the rights of the worker: run `drop cast ({from} as {to})`, or give the column another type"
        );
        (format!("{}.columns.{}", table.name, cast.column), problem)
    };
    casts.iter().filter(concerns).map(problem).collect()
}
