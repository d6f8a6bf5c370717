//! Rows that are too large are not fetched: Postgres measures each, where values may be large at all. A table whose
//! values all lie in its rows, a page of which has 8 KiB, is not measured. Takes tables, gives SQL.

use super::expression::expression;
use crate::core::error::Result;
use crate::core::schema::{ColumnType, quote};
use crate::core::value::binary::Wire;
use crate::postgres::Client;
use crate::postgres::catalog::SourceTable;
use std::sync::atomic::Ordering;
use tokio_postgres::types::Type;

/// The column that says whether the row is too large.
pub const LARGE: &str = "t._pgflume_large";

/// More tables are not looked at for each step: then all of their rows are measured.
const MOST_TABLES: usize = 100;

/// A value that is larger, as stored, or compressed, has its size taken unpacked.
const COMPRESSED_BYTES: usize = 2000;

/// What the values of one page may have, unpacked: lz4 makes 255 bytes of one.
const MOST_PAGE_BYTES: i64 = 8192 * 255;

/// Looks which of these tables keep values outside of their rows. In a transaction, after its snapshot.
pub(crate) async fn note_large(client: &Client, sources: Vec<&SourceTable>) -> Result<()> {
    let is_open = |s: &&SourceTable| s.oid != 0 && s.most_bytes > MOST_PAGE_BYTES && !s.is_wide.load(Ordering::Relaxed);
    let sources: Vec<_> = sources.into_iter().filter(is_open).collect();
    if sources.len() > MOST_TABLES {
        sources.iter().for_each(|s| s.is_wide.store(true, Ordering::Relaxed));
    }
    if sources.is_empty() || sources.len() > MOST_TABLES {
        return Ok(());
    }
    let oids: Vec<u32> = sources.iter().map(|s| s.oid).collect();
    let sql = "select c.oid from pg_catalog.pg_class c where c.oid = any($1) and (c.relkind <> 'r'
                   or pg_catalog.pg_relation_size(nullif(c.reltoastrelid, 0)) > 0)";
    for row in client.query_typed(sql, &[(&oids, Type::OID_ARRAY)]).await? {
        let oid: u32 = row.try_get(0)?;
        sources.iter().filter(|s| s.oid == oid).for_each(|s| s.is_wide.store(true, Ordering::Relaxed));
    }
    Ok(())
}

/// Whether the rows of this table are measured.
pub(crate) fn is_measured(source: &SourceTable) -> bool {
    let is_wide = source.is_wide.load(Ordering::Relaxed) || source.most_bytes <= MOST_PAGE_BYTES;
    is_wide && sizes(source).next().is_some()
}

/// The rows of the table as `t`, under `conditions` (with their `where`) and in the order and number of `tail`.
pub fn rows(source: &SourceTable, conditions: &str, tail: &str) -> String {
    let table = source.table.source.quoted();
    if !is_measured(source) {
        return format!("{table} as t{conditions}{tail}");
    }
    let columns: Vec<_> = source.table.columns.iter().map(|c| format!("t.{}", quote(&c.name))).collect();
    let sizes: Vec<_> = sizes(source).map(|size| format!("coalesce({size}, 0)::pg_catalog.int8")).collect();
    format!(
        "(select {}, {} > {} as _pgflume_large from {table} as t{conditions}{tail} offset 0) t",
        columns.join(", "),
        sizes.join(" + "),
        source.most_bytes
    )
}

/// The value of a row that is not too large.
pub(crate) fn unless_large(value: &str) -> String {
    format!("case when {LARGE} then null else {value} end")
}

/// SQL for the bytes of each column that can have many.
fn sizes(source: &SourceTable) -> impl Iterator<Item = String> + '_ {
    let columns = source.table.columns.iter().zip(&source.columns);
    columns.filter_map(|(c, s)| {
        let found = format!("t.{}", quote(&c.name));
        let is = |types: &[Type]| types.contains(&s.base);
        match s.wire {
            Wire::Integer | Wire::Float8 | Wire::Bool | Wire::Uuid | Wire::Date | Wire::Numeric | Wire::Timestamp { .. } => {
                None
            }
            // Without unpacking it.
            _ if is(&[Type::TEXT, Type::VARCHAR, Type::BPCHAR]) || s.wire == Wire::Bytes => {
                Some(format!("pg_catalog.octet_length({found})"))
            }
            _ if is(&[Type::BYTEA]) && c.kind == ColumnType::Text => {
                Some(format!("2 * pg_catalog.octet_length({found})::pg_catalog.int8"))
            }
            _ => Some(format!(
                "case when pg_catalog.pg_column_size({found}) > {COMPRESSED_BYTES} or pg_catalog.pg_column_compression({found}) is not null then pg_catalog.octet_length({}) else pg_catalog.pg_column_size({found}) end",
                expression(c.kind, s, &found)
            )),
        }
    })
}
