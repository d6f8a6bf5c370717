//! Both sides, row by row: for the demo and the tests, which hold whole tables in memory. Reads the
//! source at one snapshot, the replica as it is.

use crate::core::error::{Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::{Schema, quote, quoted_list};
use crate::core::value::{Cell, Key};
use crate::postgres::catalog::SourceTable;
use crate::postgres::rows::Server;
use crate::postgres::{Client, catalog, rows};
use crate::replica::Replica;
use std::collections::BTreeMap;

/// Rows of the replica read at once: a server answers at most 10 MB.
const PAGE_ROWS: i64 = 2_000;

/// One table's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The table.
    pub table: String,
    /// Rows of the source.
    pub rows: usize,
    /// Rows that the replica lacks.
    pub missing: usize,
    /// Rows that only the replica has.
    pub extra: usize,
    /// Rows that differ.
    pub different: usize,
}

impl Verdict {
    /// Whether both sides are the same.
    pub fn is_equal(&self) -> bool {
        self.missing + self.extra + self.different == 0
    }
}

/// Compares every table of `schema` that Postgres has.
pub async fn compare(client: &Client, replica: &Replica, schema: &Schema, queue: &QueueName) -> Result<Vec<Verdict>> {
    let sources = catalog::read(client, schema, queue).await?.tables;
    let sources: Vec<&SourceTable> = sources.values().filter(|s| !s.columns.is_empty()).collect();
    rows::begin(client, &sources, Server::ask(client).await?).await?;
    let mut verdicts = Vec::with_capacity(sources.len());
    for table in sources {
        verdicts.push(compare_table(client, replica, table).await?);
    }
    client.commit().await?;
    Ok(verdicts)
}

async fn compare_table(client: &Client, replica: &Replica, source: &SourceTable) -> Result<Verdict> {
    let expected = read_source(client, source).await?;
    let mut found = read_replica(replica, source).await?;
    let mut verdict =
        Verdict { table: source.table.name.clone(), rows: expected.len(), missing: 0, extra: 0, different: 0 };
    for (key, cells) in &expected {
        match found.remove(key) {
            None => verdict.missing += 1,
            Some(there) if there != *cells => verdict.different += 1,
            Some(_) => {}
        }
    }
    verdict.extra = found.len();
    Ok(verdict)
}

async fn read_source(client: &Client, source: &SourceTable) -> Result<BTreeMap<Key, Vec<Cell>>> {
    let rows = client.query_typed(&rows::scan_sql(source), &[]).await?;
    rows.into_iter()
        .map(|row| {
            let cells = rows::decode_scan(source, &row.into())?.map_err(|e| Error::halt(e.to_string()))?;
            Ok((source.table.key.iter().map(|&i| cells[i].clone()).collect(), cells))
        })
        .collect()
}

async fn read_replica(replica: &Replica, source: &SourceTable) -> Result<BTreeMap<Key, Vec<Cell>>> {
    let table = &source.table;
    let columns = quoted_list(table.columns.iter().map(|c| c.name.as_str()));
    let sql = format!("SELECT {columns} FROM {} WHERE rowid > ?1 ORDER BY rowid LIMIT ?2", quote(&table.name));
    let last = format!(
        "SELECT max(rowid) FROM (SELECT rowid FROM {} WHERE rowid > ?1 ORDER BY rowid LIMIT ?2)",
        quote(&table.name)
    );
    let mut found = BTreeMap::new();
    let mut after = i64::MIN;
    loop {
        let arguments = vec![Cell::Integer(after), Cell::Integer(PAGE_ROWS)];
        let page = replica.query(&sql, arguments.clone()).await?;
        if page.is_empty() {
            return Ok(found);
        }
        for cells in page {
            found.insert(table.key.iter().map(|&i| cells[i].clone()).collect(), cells);
        }
        match replica.query(&last, arguments).await?.pop().as_deref() {
            Some([Cell::Integer(rowid)]) => after = *rowid,
            _ => return Ok(found),
        }
    }
}
