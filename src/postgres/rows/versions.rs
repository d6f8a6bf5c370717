//! Row versions by the transaction that wrote them, read where they lie: what has changed since a snapshot, without
//! triggers and without an index. Takes a client inside a transaction of one snapshot, which has no transaction id of its
//! own (`age` would count from it); changes nothing. For tables whose pages can be read: they have a key with an index.
//!
//! A version that is not visible at a snapshot was written by a transaction, or a part of one, whose id is not older
//! than the snapshot's `xmin`, the oldest transaction that was still open. So what a later snapshot sees and the earlier
//! one did not is among the versions with such an id. `pg_visible_in_snapshot` looks sharper and is wrong: a snapshot
//! lists no parts of transactions (savepoints).
//!
//! Blocks are walked in order, never keys: random keys would ask for each block many times.

use super::cells::{SourceRow, cell, fit};
use super::expression::selected;
use super::page::{self, cursor, decode};
use super::{first, size, values};
use crate::core::error::{Error, Result};
use crate::core::message::MarkedKey;
use crate::core::schema::quote;
use crate::core::value::{Cell, Key};
use crate::postgres::Client;
use crate::postgres::catalog::SourceTable;
use crate::postgres::error::of_rows;
use futures_util::TryStreamExt;
use std::collections::BTreeMap;
use std::ops::Range;
use tokio_postgres::Row;
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
    xid: Option<u64>,
    whole: &'a [u32],
}

/// Transaction ids of 32 bits tell older from younger within so many.
const HALF_ROUND: u64 = 1 << 31;

impl<'a> Since<'a> {
    /// Those of transactions that are not older than `xid`, with all of the leaves `whole`, which brought their rows
    /// along. All versions where `xid` is `None`, or older than ids can tell at a snapshot whose oldest is `now`.
    pub fn new(xid: Option<u64>, now: u64, whole: &'a [u32]) -> Self {
        Self { xid: xid.filter(|xid| (*xid..*xid + HALF_ROUND).contains(&now)), whole }
    }
}

/// What a walk through some blocks has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Rows that are replicated, with those that cannot be taken over.
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
    /// The file of each relation that has rows, by its oid: another one where a walk over several snapshots has to
    /// begin anew, because its rows have moved.
    pub files: BTreeMap<u32, u32>,
    /// Blocks of the largest of them.
    pub blocks: u32,
}

/// The relations in which the rows of the table lie. What comes by ATTACH PARTITION, or goes by DETACH PARTITION
/// CONCURRENTLY, does so without waiting for whoever reads the table: asked again after the rows, it tells whether they
/// were all.
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
    let at_places: Vec<String> = places.iter().map(|tid| format!("({},{})", tid.block, tid.offset)).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&leaf, Type::OID), (&at_places, Type::TEXT_ARRAY)];
    let mut versions = Vec::with_capacity(places.len());
    let at = " where t.tableoid = $1 and t.ctid = any($2::pg_catalog.text[]::pg_catalog.tid[])";
    let filter = source.table.filter.as_ref();
    let replicated = filter.map(|filter| format!(" and (\n{filter}\n)")).unwrap_or_default();
    let select: Vec<_> = page::places(source).into_iter().chain(values(source)).collect();
    let rows = size::rows(source, &format!("{at}{replicated}"), "");
    let mut rows =
        client.query_typed_raw(&format!("select {} from {rows}", select.join(", ")), parameters.clone()).await?;
    while let Some(row) = rows.try_next().await.map_err(|e| of_rows(e.into()))? {
        versions.push(version(source, &SourceRow::from(row))?);
    }
    if let Some(filter) = filter {
        // Of what is left out only the key: whatever is wrong with the rest is why it may have been.
        let keys: Vec<_> = source.table.key.iter().map(|&i| key(source, i)).collect();
        let table = source.table.source.quoted();
        let sql = format!("select {} from {table} as t{at} and (\n{filter}\n) is not true", keys.join(", "));
        let mut rows = client.query_typed_raw(&sql, parameters).await?;
        while let Some(row) = rows.try_next().await.map_err(|e| of_rows(e.into()))? {
            versions.extend(gone(source, &row)?);
        }
    }
    Ok(versions)
}

fn key(source: &SourceTable, position: usize) -> String {
    let column = &source.table.columns[position];
    selected(column.kind, &source.columns[position], &format!("t.{}", quote(&column.name)))
}

/// A key that does not fit its column was never replicated.
fn gone(source: &SourceTable, row: &Row) -> Result<Option<Version>> {
    let cells = source.table.key.iter().enumerate().map(|(i, &position)| Ok(cell(source, position, row.try_get(i)?)));
    Ok(fit(source.table.key.len(), cells)?.ok().map(Version::Gone))
}

fn version(source: &SourceTable, row: &SourceRow) -> Result<Version> {
    Ok(match decode(source, row)? {
        Ok((key, cells)) => Version::Row(key, cells),
        Err(unfit) => Version::Unfit(page::marked(source, &cursor(source, row)?), unfit.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ids_of_32_bits_cannot_tell_is_read_whole() {
        let half = HALF_ROUND;
        for (since, now, is_told) in [(5, 5, true), (5, 4 + half, true), (5, 5 + half, false), (5, 5 + 2 * half, false)]
        {
            assert_eq!(Since::new(Some(since), now, &[]).xid, is_told.then_some(since), "{since} {now}");
        }
        assert_eq!(Since::new(Some(7), 6, &[]).xid, None, "another server, or an older one");
        assert_eq!(Since::new(None, 6, &[]).xid, None);
    }
}
