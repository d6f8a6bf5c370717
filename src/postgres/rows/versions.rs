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
use crate::postgres::catalog::{RelationKind, SourceTable};
use crate::postgres::client::{Parameters, RowStream};
use crate::postgres::error::of_rows;
use futures_util::Stream;
use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
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
        Self { xid: xid.filter(|xid| is_told(*xid, now)), whole }
    }
}

/// Whether ids can tell what is not older than `xid` at a snapshot whose oldest is `now`.
pub fn is_told(xid: u64, now: u64) -> bool {
    (xid..xid.saturating_add(HALF_ROUND)).contains(&now)
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
    /// Its key and all of its cells.
    Row(Key, Vec<Cell>),
    /// It cannot be taken over: its key as a mark would name it, as the replica has it, and why.
    Unfit(MarkedKey, Option<Key>, String),
}

/// What a table consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaves {
    /// The file of each relation that has rows, by its oid: another one where a walk over several snapshots has to
    /// begin anew, because its rows have moved.
    pub files: BTreeMap<u32, u32>,
    /// Blocks of the largest of them.
    pub blocks: u32,
    /// Blocks of all of them.
    pub all_blocks: u64,
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
        let blocks = row.try_get::<_, i64>(2)?;
        leaves.blocks = leaves.blocks.max(u32::try_from(blocks).unwrap_or(u32::MAX));
        leaves.all_blocks = leaves.all_blocks.saturating_add(blocks.unsigned_abs());
    }
    Ok(leaves)
}

/// The oldest transaction that was open at this snapshot: a full transaction id, which does not wrap around.
pub async fn oldest_open(client: &Client) -> Result<u64> {
    let sql = "select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::pg_catalog.text";
    let text: String = first(client, sql, &[]).await?;
    text.parse().map_err(|_| Error::retry("Postgres gave a transaction id that is no number"))
}

/// Walks through these blocks of every leaf, or through all of them: the latter takes a third less, and leaves what
/// others keep in the server's cache (a scan of a range of blocks has no ring of buffers, heapam.c). Grouping by leaf
/// would take as long as the walk itself: only where there may be several do places name theirs.
pub async fn walk(
    client: &Client,
    source: &SourceTable,
    blocks: Option<Range<u32>>,
    since: Since<'_>,
) -> Result<Walked> {
    let within = if blocks.is_some() { WITHIN } else { ANYWHERE };
    let blocks = blocks.unwrap_or_default();
    let (from, to) = (tid(blocks.start), tid(blocks.end));
    // A transaction's age wraps around with its short id; what is frozen keeps its id, and is read once too often.
    let xid = since.xid.map(|xid| (xid as u32).to_string());
    // As an oid, which has no sign, an age that is negative is a large one; the other age is asked for once. That is a
    // fifth of the walk's time.
    let is_young = "pg_catalog.age(t.xmin)::pg_catalog.oid
                    <= (select pg_catalog.age($3::pg_catalog.text::pg_catalog.xid)::pg_catalog.oid)";
    let is_wanted = match (&xid, since.whole) {
        (Some(_), []) => format!("{is_young} and $4::pg_catalog.oid[] is not null"),
        (Some(_), _) => format!("({is_young} or t.tableoid = any($4))"),
        (None, _) => "($3::pg_catalog.text is null and $4::pg_catalog.oid[] is not null)".to_owned(),
    };
    let count = match &source.table.filter {
        Some(filter) => format!("pg_catalog.count(*) filter (where (\n{filter}\n))"),
        None => "pg_catalog.count(*)".to_owned(),
    };
    let is_partitioned = source.kind == RelationKind::Partitioned;
    let place = if is_partitioned { "pg_catalog.concat(t.tableoid, t.ctid)" } else { "t.ctid" };
    let sql = format!(
        "select {count}, pg_catalog.array_agg({place}) filter (where {is_wanted}) from {} as t{within}",
        source.table.source.quoted()
    );
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&from, Type::TEXT), (&to, Type::TEXT), (&xid, Type::TEXT), (&since.whole, Type::OID_ARRAY)];
    let row = client.query_typed_one(&sql, &parameters).await.map_err(|e| of_rows(e.into()))?;
    let mut walked = Walked { count: row.try_get(0)?, places: BTreeMap::new() };
    if !is_partitioned {
        let mut places = row.try_get::<_, Option<Vec<Tid>>>(1)?.unwrap_or_default();
        // One scan may have begun where another one was (synchronize_seqscans).
        places.sort_unstable();
        walked.places.extend((!places.is_empty()).then_some((source.oid, places)));
        return Ok(walked);
    }
    for text in row.try_get::<_, Option<Vec<&str>>>(1)?.unwrap_or_default() {
        let (leaf, place) = placed(text).ok_or_else(|| Error::retry("Postgres gave a place that is none"))?;
        walked.places.entry(leaf).or_default().push(place);
    }
    walked.places.values_mut().for_each(|places| places.sort_unstable());
    Ok(walked)
}

/// `16384(7,2)`: the leaf, then the place in it.
fn placed(text: &str) -> Option<(u32, Tid)> {
    let (leaf, place) = text.strip_suffix(')')?.split_once('(')?;
    let (block, offset) = place.split_once(',')?;
    Some((leaf.parse().ok()?, Tid { block: block.parse().ok()?, offset: offset.parse().ok()? }))
}

/// The first place of a block.
fn tid(block: u32) -> String {
    format!("({block},0)")
}

/// Versions as they come.
pub struct Versions {
    source: Arc<SourceTable>,
    rows: Pin<Box<RowStream>>,
}

impl Stream for Versions {
    type Item = Result<(Version, usize)>;

    /// The next one, and the bytes that Postgres sent for it.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(match ready!(self.rows.as_mut().poll_next(context)) {
            None => None,
            Some(Err(e)) => Some(Err(of_rows(e.into()))),
            Some(Ok(row)) => {
                let row = SourceRow::from(row);
                let bytes = row.raw_size_bytes();
                Some(version(&self.source, &row).map(|version| (version, bytes)))
            }
        })
    }
}

impl Versions {
    /// The rows of a statement that selects what [`select_sql`] does.
    pub(super) fn of(source: &Arc<SourceTable>, rows: RowStream) -> Self {
        Self { source: source.clone(), rows: Box::pin(rows) }
    }
}

/// Starts reading the replicated rows that lie at these places of a leaf; in any order.
pub async fn at(client: &Client, source: &Arc<SourceTable>, leaf: u32, places: &[Tid]) -> Result<Versions> {
    let at_places = texts(places);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&leaf, Type::OID), (&at_places, Type::TEXT_ARRAY)];
    select(client, source, AT, &parameters).await
}

/// Blocks of all leaves, with the same parameters.
const ANYWHERE: &str = " where $1::pg_catalog.text is not null and $2::pg_catalog.text is not null";

/// Starts reading the replicated rows that lie in these blocks of all leaves.
pub async fn within(client: &Client, source: &Arc<SourceTable>, blocks: Range<u32>) -> Result<Versions> {
    let (from, to) = (tid(blocks.start), tid(blocks.end));
    select(client, source, WITHIN, &[(&from, Type::TEXT), (&to, Type::TEXT)]).await
}

/// Places of a leaf.
const AT: &str = " where t.tableoid = $1 and t.ctid = any($2::pg_catalog.text[]::pg_catalog.tid[])";

/// Blocks of all leaves.
const WITHIN: &str =
    " where t.ctid >= $1::pg_catalog.text::pg_catalog.tid and t.ctid < $2::pg_catalog.text::pg_catalog.tid";

async fn select(
    client: &Client,
    source: &Arc<SourceTable>,
    condition: &str,
    parameters: Parameters<'_>,
) -> Result<Versions> {
    let rows = client.query_typed_raw(&select_sql(source, condition), parameters).await?;
    Ok(Versions::of(source, rows))
}

/// The replicated rows under a condition, with its `where`.
pub(super) fn select_sql(source: &SourceTable, condition: &str) -> String {
    let filter = source.table.filter.as_ref().map(|filter| format!(" and (\n{filter}\n)")).unwrap_or_default();
    let select: Vec<_> = page::places(source).into_iter().chain(values(source)).collect();
    let rows = size::rows(source, &format!("{condition}{filter}"), "");
    format!("select {} from {rows}", select.join(", "))
}

/// Keys of the rows at these places of a leaf that `where` leaves out: whatever is wrong with the rest of such a row is
/// why it may have been.
pub async fn left_out(client: &Client, source: &SourceTable, leaf: u32, places: &[Tid]) -> Result<Vec<Key>> {
    let Some(filter) = &source.table.filter else { return Ok(Vec::new()) };
    let keys: Vec<_> = source.table.key.iter().map(|&i| key(source, i)).collect();
    let table = source.table.source.quoted();
    let sql = format!("select {} from {table} as t{AT} and (\n{filter}\n) is not true", keys.join(", "));
    let at_places = texts(places);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&leaf, Type::OID), (&at_places, Type::TEXT_ARRAY)];
    let rows = client.query_typed(&sql, &parameters).await.map_err(|e| of_rows(e.into()))?;
    Ok(rows
        .iter()
        .map(|row| own_key(source, row, 0, false))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// The key of the row at one place, as a mark would name it and as the replica has it; whether it is replicated is not
/// asked.
pub async fn key_at(
    client: &Client,
    source: &SourceTable,
    leaf: u32,
    place: Tid,
) -> Result<Option<(MarkedKey, Option<Key>)>> {
    let texts_of_key = source.order.iter().map(|&i| page::key_text(source, i));
    let keys: Vec<_> = texts_of_key.chain(source.table.key.iter().map(|&i| key(source, i))).collect();
    let sql = format!("select {} from {} as t{AT}", keys.join(", "), source.table.source.quoted());
    let at_places = texts(&[place]);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&leaf, Type::OID), (&at_places, Type::TEXT_ARRAY)];
    let rows = client.query_typed(&sql, &parameters).await.map_err(|e| of_rows(e.into()))?;
    let both = |row: &Row| {
        let width = source.order.len();
        Ok((page::marked(source, &page::texts(row, width)?), own_key(source, row, width, false)?))
    };
    rows.first().map(both).transpose()
}

/// Where all versions in these blocks lie that this snapshot sees, by leaf: nothing of them is looked at.
pub async fn places(client: &Client, source: &SourceTable, blocks: Range<u32>) -> Result<BTreeMap<u32, Vec<Tid>>> {
    let (from, to) = (tid(blocks.start), tid(blocks.end));
    let table = source.table.source.quoted();
    let sql = format!("select t.tableoid, pg_catalog.array_agg(t.ctid) from {table} as t{WITHIN} group by t.tableoid");
    let rows = client.query_typed(&sql, &[(&from, Type::TEXT), (&to, Type::TEXT)]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn texts(places: &[Tid]) -> Vec<String> {
    places.iter().map(|tid| format!("({},{})", tid.block, tid.offset)).collect()
}

fn key(source: &SourceTable, position: usize) -> String {
    let column = &source.table.columns[position];
    selected(column.kind, &source.columns[position], &format!("t.{}", quote(&column.name)))
}

/// The key of a row as the replica has it; none where it does not fit its column, and so was never replicated. Its
/// columns begin at `first`: those of the key alone, or all of the table's.
fn own_key(source: &SourceTable, row: &Row, first: usize, is_whole: bool) -> Result<Option<Key>> {
    let place = |i: usize, position: usize| first + if is_whole { position } else { i };
    let cell = |(i, &position): (usize, &usize)| Ok(cell(source, position, row.try_get(place(i, position))?));
    Ok(fit(source.table.key.len(), source.table.key.iter().enumerate().map(cell))?.ok())
}

fn version(source: &SourceTable, row: &SourceRow) -> Result<Version> {
    Ok(match decode(source, row)? {
        Ok((key, cells)) => Version::Row(key, cells),
        Err(unfit) => {
            let first = page::places(source).len();
            Version::Unfit(
                page::marked(source, &cursor(source, row)?),
                own_key(source, row, first, true)?,
                unfit.to_string(),
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_names_its_leaf() {
        assert_eq!(placed("16384(7,2)"), Some((16384, Tid { block: 7, offset: 2 })));
        assert_eq!((placed("16384"), placed("(1,2)"), placed("1(2)")), (None, None, None));
    }

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
