//! Tells which keys of the replica the source does not have at the step's snapshot. Takes a client inside
//! the step's transaction; changes nothing.

use super::expression::expression;
use crate::core::error::Result;
use crate::core::schema::{ColumnType, quote};
use crate::postgres::Client;
use crate::postgres::catalog::SourceTable;
use tokio_postgres::types::{ToSql, Type};

/// The positions of those `keys` (as text, in the order of `schema.json`) that no replicated row has. A key
/// that Postgres writes differently is absent: the row is in the replica under its own text.
pub async fn among(client: &Client, source: &SourceTable, keys: &[Vec<String>]) -> Result<Vec<usize>> {
    positions(client, &sql(source), source, keys).await
}

async fn positions(client: &Client, sql: &str, source: &SourceTable, keys: &[Vec<String>]) -> Result<Vec<usize>> {
    let columns: Vec<Vec<&str>> =
        (0..source.table.key.len()).map(|i| keys.iter().map(|key| key[i].as_str()).collect()).collect();
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> = columns.iter().map(|c| (c as _, Type::TEXT_ARRAY)).collect();
    let rows = client.query_typed(sql, &parameters).await?;
    rows.iter().map(|row| Ok(usize::try_from(row.try_get::<_, i64>(0)? - 1).unwrap_or_default())).collect()
}

/// The same by the texts of all rows: for keys that Postgres does not take as values of their type.
///
/// Without `filtered`, among all rows, replicated or not: a filter may fail at any.
pub(crate) async fn among_texts(
    client: &Client,
    source: &SourceTable,
    keys: &[Vec<String>],
    filtered: bool,
) -> Result<Vec<usize>> {
    // One walk through the table for all of them.
    client.batch_execute("set local enable_seqscan = on; set local enable_hashjoin = on").await?;
    let found = positions(client, &texts_sql(source, filtered), source, keys).await?;
    client.batch_execute("set local enable_seqscan = off; set local enable_hashjoin = off").await?;
    Ok(found)
}

/// Fails with a data error where Postgres cannot even read `key` as one: then no row can have it.
pub async fn try_key(client: &Client, source: &SourceTable, key: &[String]) -> Result<()> {
    // A result of a known type: of others, the client would ask Postgres in the transaction that has failed.
    let cast = |(i, &p): (usize, &usize)| format!("{} is null", source.columns[p].made_from(&format!("${}", i + 1)));
    let casts: Vec<_> = source.table.key.iter().enumerate().map(cast).collect();
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> = key.iter().map(|k| (k as _, Type::TEXT)).collect();
    client.query_typed(&format!("select {}", casts.join(", ")), &parameters).await?;
    Ok(())
}

fn sql(source: &SourceTable) -> String {
    let table = &source.table;
    let (mut names, mut arrays, mut casts, mut equal) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (i, &position) in table.key.iter().enumerate() {
        let (column, kind) = (&source.columns[position], table.columns[position].kind);
        let found = format!("t.{}", quote(&table.columns[position].name));
        names.push(format!("_pgflume_k{i}"));
        arrays.push(format!("pg_catalog.unnest(${}::pg_catalog.text[])", i + 1));
        casts.push(format!("{} as _pgflume_v{i}", column.made_from(&format!("_pgflume_k{i}"))));
        equal.push(format!("{} {} k._pgflume_v{i}", source.compared(position), column.equals));
        // The other kinds have one way to be written.
        if matches!(kind, ColumnType::Text | ColumnType::Json | ColumnType::Decimal) {
            equal.push(format!(
                "({}) collate pg_catalog.\"C\" operator(pg_catalog.=) k._pgflume_k{i}",
                expression(kind, column, &found)
            ));
        }
    }
    // Kept apart, so that the filter sees the rows of these keys only.
    let filter = table.filter.as_ref().map(|f| format!(" and (\n{f}\n) offset 0")).unwrap_or_default();
    format!(
        "select k._pgflume_n from (select *, {} from rows from ({}) with ordinality as u({}, _pgflume_n)) k \
         where not exists (select from {} as t where {}{filter}{}) order by 1",
        casts.join(", "),
        arrays.join(", "),
        names.join(", "),
        table.source.quoted(),
        equal.join(" and "),
        source.fence(),
    )
}

fn texts_sql(source: &SourceTable, filtered: bool) -> String {
    let table = &source.table;
    let (mut names, mut arrays, mut equal) = (Vec::new(), Vec::new(), Vec::new());
    for (i, &position) in table.key.iter().enumerate() {
        let column = &table.columns[position];
        let text = expression(column.kind, &source.columns[position], &format!("t.{}", quote(&column.name)));
        names.push(format!("_pgflume_k{i}"));
        arrays.push(format!("pg_catalog.unnest(${}::pg_catalog.text[])", i + 1));
        equal.push(format!("({text}) collate pg_catalog.\"C\" operator(pg_catalog.=) k._pgflume_k{i}"));
    }
    let filter = table.filter.as_ref().filter(|_| filtered).map(|f| format!(" and (\n{f}\n)")).unwrap_or_default();
    format!(
        "select k._pgflume_n from rows from ({}) with ordinality as k({}, _pgflume_n) \
         where not exists (select from {} as t where {}{filter}) order by 1",
        arrays.join(", "),
        names.join(", "),
        table.source.quoted(),
        equal.join(" and "),
    )
}
