//! Row versions by the transaction that wrote them, read where they lie: what has changed since a snapshot, without
//! triggers and without an index. Takes a client inside a transaction of one snapshot; changes nothing.
//!
//! A version that is not visible at a snapshot was written by a transaction, or a part of one, whose id is not older
//! than the snapshot's `xmin`, the oldest transaction that was still open. So what a later snapshot sees and the earlier
//! one did not is among the versions with such an id. `pg_visible_in_snapshot` looks sharper and is wrong: a snapshot
//! lists no parts of transactions (savepoints).
//!
//! Blocks are walked in order, never keys: random keys would ask for each block many times.

use super::cells::SourceRow;
use super::page::{self, cursor, decode, places};
use super::{first, size, values};
use crate::core::error::{Error, Result};
use crate::core::message::MarkedKey;
use crate::core::value::{Cell, Key};
use crate::postgres::Client;
use crate::postgres::catalog::SourceTable;
use crate::postgres::error::of_rows;
use futures_util::TryStreamExt;
use std::collections::BTreeMap;
use std::ops::Range;
use tokio_postgres::types::{FromSql, ToSql, Type};

/// Where a version lies in its leaf: a block and a place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tid {
    /// The block.
    pub block: u32,
    /// Its line pointer.
    pub offset: u16,
}

impl<'a> FromSql<'a> for Tid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        match raw {
            [a, b, c, d, e, f] => {
                Ok(Self { block: u32::from_be_bytes([*a, *b, *c, *d]), offset: u16::from_be_bytes([*e, *f]) })
            }
            _ => Err("a tid has six bytes".into()),
        }
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TID
    }
}

/// Which versions are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Since<'a> {
    /// Those of transactions that are not older than this one; a full transaction id. `None`: all.
    pub xid: Option<u64>,
    /// Leaves of which all are wanted: they brought their rows along.
    pub whole: &'a [u32],
}

/// What a walk through some blocks has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Rows that are replicated.
    pub count: i64,
    /// Where the wanted versions lie, by leaf.
    pub places: BTreeMap<u32, Vec<Tid>>,
}

/// A row of which a version was wanted.
#[derive(Debug, Clone, PartialEq)]
pub enum Version {
    /// It is replicated.
    Row(Key, Vec<Cell>),
    /// `where` leaves it out.
    Gone(Key),
    /// It cannot be taken over: its key as a mark would name it, and why.
    Unfit(MarkedKey, String),
}

/// What a table consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaves {
    /// The file of each relation that has rows, by its oid.
    pub files: BTreeMap<u32, u32>,
    /// Blocks of the largest of them.
    pub blocks: u32,
}

/// The relations in which the rows of the table lie. What comes or goes by ATTACH or DETACH PARTITION does so without
/// waiting for whoever reads the table: asked after the rows it tells of what was not read.
pub async fn leaves(client: &Client, source: &SourceTable) -> Result<Leaves> {
    let sql = "select c.oid, coalesce(pg_catalog.pg_relation_filenode(c.oid), 0),
                      coalesce(pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::pg_catalog.int8, 0)
               from pg_catalog.pg_class c
               where c.oid in (select $1 union all select i.relid from pg_catalog.pg_partition_tree($1) i) and c.relkind = 'r'";
    let mut leaves = Leaves::default();
    for row in client.query_typed(sql, &[(&source.oid, Type::OID)]).await? {
        leaves.files.insert(row.try_get(0)?, row.try_get(1)?);
        leaves.blocks = leaves.blocks.max(u32::try_from(row.try_get::<_, i64>(2)?).unwrap_or(u32::MAX));
    }
    Ok(leaves)
}

/// The oldest transaction that was open at this snapshot: a full transaction id, which does not wrap around.
pub async fn oldest_open(client: &Client) -> Result<u64> {
    let sql = "select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::pg_catalog.text";
    let text: String = first(client, sql, &[]).await?;
    text.parse().map_err(|_| Error::retry("Postgres gave a transaction id that is no number"))
}

/// Walks through these blocks of every leaf.
pub async fn walk(client: &Client, source: &SourceTable, blocks: Range<u32>, since: Since<'_>) -> Result<Walked> {
    let (from, to) = (tid(blocks.start), tid(blocks.end));
    // A transaction's age wraps around with its short id; what is frozen keeps its id, and is read once too often.
    let xid = since.xid.map(|xid| (xid as u32).to_string());
    let is_wanted = match xid {
        Some(_) => {
            "(pg_catalog.age(t.xmin) between 0 and pg_catalog.age($3::pg_catalog.text::pg_catalog.xid) or t.tableoid = any($4))"
        }
        None => "($3::pg_catalog.text is null and $4::pg_catalog.oid[] is not null)",
    };
    let count = match &source.table.filter {
        Some(filter) => format!("pg_catalog.count(*) filter (where (\n{filter}\n))"),
        None => "pg_catalog.count(*)".to_owned(),
    };
    let sql = format!(
        "select t.tableoid, {count}, pg_catalog.array_agg(t.ctid) filter (where {is_wanted}) from {} as t \
         where t.ctid >= $1::pg_catalog.text::pg_catalog.tid and t.ctid < $2::pg_catalog.text::pg_catalog.tid group by t.tableoid",
        source.table.source.quoted()
    );
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&from, Type::TEXT), (&to, Type::TEXT), (&xid, Type::TEXT), (&since.whole, Type::OID_ARRAY)];
    let mut walked = Walked::default();
    for row in client.query_typed(&sql, &parameters).await.map_err(|e| of_rows(e.into()))? {
        walked.count += row.try_get::<_, i64>(1)?;
        if let Some(places) = row.try_get::<_, Option<Vec<Tid>>>(2)? {
            walked.places.insert(row.try_get(0)?, places);
        }
    }
    Ok(walked)
}

/// The first place of a block.
fn tid(block: u32) -> String {
    format!("({block},0)")
}

/// The rows that lie at these places of a leaf; in any order.
pub async fn fetch(client: &Client, source: &SourceTable, leaf: u32, places: &[Tid]) -> Result<Vec<Version>> {
    let places: Vec<String> = places.iter().map(|tid| format!("({},{})", tid.block, tid.offset)).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&leaf, Type::OID), (&places, Type::TEXT_ARRAY)];
    let mut versions = Vec::with_capacity(places.len());
    let at = " where t.tableoid = $1 and t.ctid = any($2::pg_catalog.text[]::pg_catalog.tid[])";
    let filter = source.table.filter.as_ref();
    let replicated = filter.map(|filter| format!(" and (\n{filter}\n)")).unwrap_or_default();
    let sql = select(source, &format!("{at}{replicated}"));
    let mut rows = client.query_typed_raw(&sql, parameters.clone()).await?;
    while let Some(row) = rows.try_next().await.map_err(|e| of_rows(e.into()))? {
        versions.push(version(source, &SourceRow::from(row))?);
    }
    if let Some(filter) = filter {
        let sql = select(source, &format!("{at} and (\n{filter}\n) is not true"));
        let mut rows = client.query_typed_raw(&sql, parameters).await?;
        while let Some(row) = rows.try_next().await.map_err(|e| of_rows(e.into()))? {
            versions.push(match version(source, &SourceRow::from(row))? {
                Version::Row(key, _) => Version::Gone(key),
                other => other,
            });
        }
    }
    Ok(versions)
}

fn select(source: &SourceTable, conditions: &str) -> String {
    let select: Vec<_> = places(source).into_iter().chain(values(source)).collect();
    format!("select {} from {}", select.join(", "), size::rows(source, conditions, ""))
}

fn version(source: &SourceTable, row: &SourceRow) -> Result<Version> {
    Ok(match decode(source, row)? {
        Ok((key, cells)) => Version::Row(key, cells),
        Err(unfit) => Version::Unfit(page::marked(source, &cursor(source, row)?), unfit.to_string()),
    })
}
