//! Reads what has become of a table's rows behind a cut: of each key that was touched, what it was then and what it is.

use super::limits::Limits;
use crate::core::error::Result;
use crate::core::schema::Table;
use crate::core::value::{Cell, Key};
use crate::replica::Replica;
use crate::replica::feed_reads::Fed;
use std::collections::BTreeSet;

/// How often a reading is begun that batches overtake.
const TRIES: usize = 4;

/// A key that was touched.
#[derive(Debug)]
pub(super) struct Change {
    /// The key.
    pub key: Key,
    /// The columns by which rows are told apart, as they were; `None`: there was no row.
    pub was: Option<Vec<Cell>>,
    /// All of its cells; `None`: there is no row.
    pub now: Option<Vec<Cell>>,
}

impl Change {
    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let cells = self.key.iter().chain(self.was.iter().flatten()).chain(self.now.iter().flatten());
        cells.map(|cell| size_of::<Cell>() + cell.bytes()).sum::<usize>() + size_of::<Self>()
    }
}

/// What has changed up to a cut.
#[derive(Debug)]
pub(super) struct Changes {
    /// The first position at which the table was touched, if it was.
    pub first: Option<i64>,
    /// Those that were kept.
    pub all: Vec<Change>,
    /// About how much memory they take.
    pub bytes: usize,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// Nobody keeps the log of what is there.
    Unready,
    /// Batches came again and again while it was read.
    Overtaken,
    /// What one had at the cut does not lead to what is there.
    Broken(Fed),
    /// It is not as at a cut.
    Apart(Fed),
    /// More has changed than is worth telling.
    TooMuch(Fed, i64),
    /// All that has changed up to this cut.
    Changes(Fed, i64, Changes),
}

/// What to read.
pub(super) struct Wanted<'a, K> {
    /// Of which table.
    pub table: &'a Table,
    /// Which columns of it, by position, beside the key's.
    pub needed: &'a BTreeSet<usize>,
    /// Behind which cut.
    pub since: i64,
    /// Which changes are worth keeping.
    pub keep: K,
    /// How much.
    pub limits: Limits,
}

impl<K: Fn(&Change) -> bool> Wanted<'_, K> {
    /// Reads it, where the cut leads to what is there, as far as `leads` knows.
    pub async fn read(&self, replica: &Replica, leads: impl Fn(&Fed) -> bool) -> Result<Found> {
        for _ in 0..TRIES {
            if let Some(found) = self.read_once(replica, &leads).await? {
                return Ok(found);
            }
        }
        Ok(Found::Overtaken)
    }

    /// The same; `None` where batches touched the table meanwhile.
    async fn read_once(&self, replica: &Replica, leads: impl Fn(&Fed) -> bool) -> Result<Option<Found>> {
        let Self { table, needed, since, limits, .. } = self;
        let touched = replica.fed_touched(table, *since, limits.most_keys + 1).await?;
        let Some((fed, touched)) = touched else { return Ok(Some(Found::Unready)) };
        if !leads(&fed) || *since < fed.floor {
            return Ok(Some(Found::Broken(fed)));
        }
        let Some(cut) = fed.at_cut().filter(|cut| since <= cut) else { return Ok(Some(Found::Apart(fed))) };
        if touched.len() > limits.most_keys {
            return Ok(Some(Found::TooMuch(fed, cut)));
        }
        let first = touched.iter().map(|touched| touched.pos).min();
        let (mut all, mut kept) = (Vec::new(), 0);
        let (mut rest, mut size) = (&touched[..], limits.rows);
        while !rest.is_empty() {
            let (part, others) = rest.split_at(size.min(rest.len()));
            let read = replica.fed_rows(table, needed, part).await?;
            let Some((now, rows)) = read else { return Ok(Some(Found::Unready)) };
            if now.generation != fed.generation || now.last != fed.last {
                return Ok(None);
            }
            let mut bytes = 0;
            for (touched, (key, now)) in part.iter().zip(rows) {
                let change = Change { key, was: touched.was.clone(), now };
                bytes += change.bytes();
                if (self.keep)(&change) {
                    kept += change.bytes();
                    all.push(change);
                }
            }
            if kept > limits.most_bytes {
                return Ok(Some(Found::TooMuch(fed, cut)));
            }
            (rest, size) = (others, limits.next(size, bytes));
        }
        Ok(Some(Found::Changes(fed, cut, Changes { first, all, bytes: kept })))
    }
}
