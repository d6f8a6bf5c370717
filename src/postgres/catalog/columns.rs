//! What types the columns of source tables have, under all domains. Takes oids of tables, one round trip
//! for all of them; changes nothing.

use crate::core::error::Result;
use crate::core::schema::fit::PgType;
use crate::postgres::Client;
use std::collections::BTreeMap;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// A column of a source table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedColumn {
    /// Its name.
    pub name: String,
    /// NOT NULL.
    pub not_null: bool,
    /// Its type.
    pub pg_type: PgType,
}

/// The columns of each table, in the table's order.
pub async fn read(client: &Client, oids: &[u32]) -> Result<BTreeMap<u32, Vec<TypedColumn>>> {
    let sql = include_str!("../../../sql/column_types.sql");
    let mut tables: BTreeMap<u32, Vec<TypedColumn>> = BTreeMap::new();
    for row in client.query_typed(sql, &[(&oids, Type::OID_ARRAY)]).await? {
        tables.entry(row.try_get(0)?).or_default().push(column(&row)?);
    }
    Ok(tables)
}

fn column(row: &Row) -> Result<TypedColumn> {
    let kind: String = row.try_get(4)?;
    Ok(TypedColumn {
        name: row.try_get(1)?,
        not_null: row.try_get(2)?,
        pg_type: PgType {
            name: row.try_get(3)?,
            kind: kind.chars().next().unwrap_or('b'),
            is_built_in: row.try_get(5)?,
            is_array: row.try_get(6)?,
            digits: row.try_get::<_, Option<i32>>(7)?.zip(row.try_get::<_, Option<i32>>(8)?),
        },
    })
}
