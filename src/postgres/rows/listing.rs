//! Rows of what has no versions of its own to tell by (views, foreign tables, access methods other than `heap`), at the
//! step's snapshot: how many there are, and those that a condition chooses, through a cursor. Changes nothing.

use super::first::first;
use super::page::key_text;
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
    /// Different keys.
    pub keys: i64,
    /// A number that other keys make another, all but certainly.
    pub digest: String,
    /// What was asked for beside that, each as text.
    pub more: Vec<Option<String>>,
}

/// Lets Postgres choose its plans: what a view does is not by the key's index. Until the settings are made anew.
pub async fn plan_freely(client: &Client) -> Result<()> {
    let sql = "set local enable_seqscan = on; set local enable_bitmapscan = on; set local enable_hashjoin = on; set local enable_mergejoin = on";
    client.batch_execute(sql).await.map_err(Error::from)
}

/// Counts, and computes `more`: aggregates of the rows `t`, each a text. In one look at them.
pub async fn count(client: &Client, source: &SourceTable, condition: &str, more: &[String]) -> Result<Counted> {
    let filter = source.table.filter.as_ref().map(|filter| format!("(\n{filter}\n) and ")).unwrap_or_default();
    let nulls: Vec<String> =
        source.table.key_columns().map(|column| format!("t.{} is null", quote(&column.name))).collect();
    // By their texts, as the replica has them.
    let texts: Vec<String> =
        source.table.key.iter().map(|&i| format!("({}) collate pg_catalog.\"C\"", key_text(source, i))).collect();
    let key = if let [text] = &texts[..] { text.clone() } else { format!("row({})", texts.join(", ")) };
    let hash = match &texts[..] {
        [_] => format!("pg_catalog.hashtextextended({key}, 0)"),
        _ => format!("pg_catalog.hash_record_extended({key}, 0)"),
    };
    let only = source.table.filter.as_ref().map(|filter| format!(" filter (where (\n{filter}\n))")).unwrap_or_default();
    let counted = |condition: &str| format!("pg_catalog.count(*) filter (where {filter}({condition}))");
    let sql = format!(
        "select {}, {}, {}, pg_catalog.count(distinct {key}){only}, coalesce(pg_catalog.sum({hash}){only}, 0)::pg_catalog.text, array[{}]::pg_catalog.text[] from {} as t",
        counted("true"),
        counted(condition),
        counted(&nulls.join(" or ")),
        more.join(", "),
        source.table.source.quoted()
    );
    let row = client.query_typed_one(&sql, &[]).await.map_err(|e| of_rows(e.into()))?;
    Ok(Counted {
        rows: row.try_get(0)?,
        chosen: row.try_get(1)?,
        keyless: row.try_get(2)?,
        keys: row.try_get(3)?,
        digest: row.try_get(4)?,
        more: row.try_get(5)?,
    })
}

/// Whether something that was read is another than the snapshot has, which then may lack rows that were there: its file
/// (TRUNCATE and a refill, a REFRESH), or the partitions it is among. What was read is what this transaction has locked,
/// also inside of functions. Nobody can move it any more.
pub async fn is_moved(client: &Client) -> Result<bool> {
    let sql = "select exists (
                   select from pg_catalog.pg_locks l
                   left join pg_catalog.pg_class c on c.oid = l.relation
                   where l.pid = pg_catalog.pg_backend_pid() and l.locktype = 'relation'
                       and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
                       and (c.oid is null
                            or c.relkind in ('r', 'm') and c.relfilenode <> 0 and c.relfilenode is distinct from pg_catalog.pg_relation_filenode(c.oid)
                            or not c.relispartition and pg_catalog.pg_partition_root(c.oid) <> c.oid))";
    first(client, sql, &[]).await
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
    let rows = client.query_typed_raw(&sql, &[]).await?;
    Ok(Versions::of(source, rows))
}
