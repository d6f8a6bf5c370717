//! Rows of what has no versions of its own to tell by (views, foreign tables, access methods other than `heap`), at the
//! step's snapshot: how many there are, and those that a condition chooses, through a cursor. Changes nothing.

use super::versions::{Versions, select_sql};
use crate::core::error::{Error, Result};
use crate::core::schema::quote;
use crate::postgres::Client;
use crate::postgres::catalog::SourceTable;
use crate::postgres::error::of_rows;
use std::sync::Arc;

/// What a look has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Rows that are replicated.
    pub rows: i64,
    /// Those of them that the condition chooses.
    pub chosen: i64,
    /// Those of them whose key is NULL.
    pub keyless: i64,
    /// What was asked for beside that, each as text.
    pub more: Vec<Option<String>>,
}

/// Lets Postgres choose its plans: what a view does is not by the key's index. In a transaction that is to read only
/// such.
pub async fn plan_freely(client: &Client) -> Result<()> {
    let sql = "set local enable_seqscan = on; set local enable_bitmapscan = on; set local enable_hashjoin = on; set local enable_mergejoin = on";
    client.batch_execute(sql).await.map_err(Error::from)
}

/// Plans by the key's index again.
pub async fn plan_by_index(client: &Client) -> Result<()> {
    let sql = "set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off";
    client.batch_execute(sql).await.map_err(Error::from)
}

/// Counts, and computes `more`: aggregates of the rows `t`, each a text. In one look at them.
pub async fn count(client: &Client, source: &SourceTable, condition: &str, more: &[String]) -> Result<Counted> {
    let filter = source.table.filter.as_ref().map(|filter| format!("(\n{filter}\n) and ")).unwrap_or_default();
    let keys: Vec<String> =
        source.table.key_columns().map(|column| format!("t.{} is null", quote(&column.name))).collect();
    let counted = |condition: &str| format!("pg_catalog.count(*) filter (where {filter}({condition}))");
    let sql = format!(
        "select {}, {}, {}, array[{}]::pg_catalog.text[] from {} as t",
        counted("true"),
        counted(condition),
        counted(&keys.join(" or ")),
        more.join(", "),
        source.table.source.quoted()
    );
    let row = client.query_typed_one(&sql, &[]).await.map_err(|e| of_rows(e.into()))?;
    Ok(Counted { rows: row.try_get(0)?, chosen: row.try_get(1)?, keyless: row.try_get(2)?, more: row.try_get(3)? })
}

/// Opens a cursor of this name over the replicated rows that a condition chooses.
pub async fn open(client: &Client, source: &SourceTable, condition: &str, cursor: &str) -> Result<()> {
    let rows = select_sql(source, &format!(" where ({condition})"));
    let sql = format!("declare {} no scroll cursor for {rows}", quote(cursor));
    client.batch_execute(&sql).await.map_err(Error::from)
}

/// Starts reading so many more of them.
pub async fn fetch(client: &Client, source: &Arc<SourceTable>, cursor: &str, rows: u32) -> Result<Versions> {
    let sql = format!("fetch forward {rows} from {}", quote(cursor));
    let rows = client.query_typed_raw(&sql, Vec::<(&(dyn tokio_postgres::types::ToSql + Sync), _)>::new()).await?;
    Ok(Versions::of(source, rows))
}
