//! Reads what has become of a table's rows behind a cut: of each key that was touched, what it was then and what it is.

use super::limits::Limits;
use crate::core::error::Result;
use crate::core::schema::Table;
use crate::core::value::{Cell, Key};
use crate::replica::Replica;
use crate::replica::feed_reads::{Current, Fed, Touched};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// How often in a row batches overtake a reading before it has read anything more.
const TRIES: usize = 20;

/// Longest time of a reading.
const MOST_TIME: Duration = Duration::from_secs(20);

/// Rest where there is no cut, when some is read.
const REST: Duration = Duration::from_millis(10);

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
        let mut reading = Reading {
            wanted: self,
            listed: self.since,
            touched: vec![],
            changes: vec![],
            kept: 0,
            size: self.limits.rows,
        };
        let (begun_at, mut in_vain) = (Instant::now(), 0);
        while in_vain < TRIES && begun_at.elapsed() < MOST_TIME {
            let before = reading.changes.len();
            match reading.go_on(replica, &leads).await? {
                // What was read is not given up because its writer has more to write.
                Some(Found::Apart(_)) if before > 0 => tokio::time::sleep(REST).await,
                Some(found) => return Ok(found),
                None => {}
            }
            in_vain = if reading.changes.len() > before { 0 } else { in_vain + 1 };
        }
        Ok(Found::Overtaken)
    }
}

/// What was read so far. Batches may come meanwhile, and under writers that never rest they do: what they touch is read again,
/// and no more than that, so that who reads faster than others write comes to an end.
struct Reading<'a, K> {
    wanted: &'a Wanted<'a, K>,
    /// Up to this cut all that was touched is listed.
    listed: i64,
    touched: Vec<Touched>,
    /// What has become of the first of those; `None` of what is not kept, or was touched again.
    changes: Vec<Option<Change>>,
    /// Bytes of those.
    kept: usize,
    /// How many are read next.
    size: usize,
}

impl<K: Fn(&Change) -> bool> Reading<'_, K> {
    /// Reads the rest; `None` where batches touched the table meanwhile.
    async fn go_on(&mut self, replica: &Replica, leads: impl Fn(&Fed) -> bool) -> Result<Option<Found>> {
        let Wanted { table, needed, limits, .. } = self.wanted;
        // Behind a cut and not behind any position: where the replica fell back meanwhile, that cut is known to be lost.
        let touched = replica.fed_touched(table, self.listed, limits.most_keys + 1).await?;
        let Some((fed, touched)) = touched else { return Ok(Some(Found::Unready)) };
        if !leads(&fed) || self.listed < fed.floor {
            return Ok(Some(Found::Broken(fed)));
        }
        let Some(cut) = fed.at_cut().filter(|cut| self.listed <= *cut) else { return Ok(Some(Found::Apart(fed))) };
        self.list(touched);
        self.listed = cut;
        if self.touched.len() > limits.most_keys {
            return Ok(Some(Found::TooMuch(fed, cut)));
        }
        while self.changes.len() < self.touched.len() {
            let rest = &self.touched[self.changes.len()..];
            let part = &rest[..self.size.min(rest.len())];
            let read = replica.fed_rows(table, needed, part).await?;
            let Some((now, rows)) = read else { return Ok(Some(Found::Unready)) };
            if now.generation != fed.generation || now.last != fed.last || rows.len() < part.len() {
                return Ok(None);
            }
            self.take(rows);
            if self.kept > limits.most_bytes {
                return Ok(Some(Found::TooMuch(fed, cut)));
            }
        }
        let first = self.touched.iter().map(|touched| touched.pos).min();
        let all = std::mem::take(&mut self.changes).into_iter().flatten().collect();
        Ok(Some(Found::Changes(fed, cut, Changes { first, all, bytes: self.kept })))
    }

    /// These were touched since: of those that were before, what they were then is what counts.
    fn list(&mut self, later: Vec<Touched>) {
        let Self { touched, changes, kept, .. } = self;
        if touched.is_empty() {
            *touched = later;
            return;
        }
        let places: HashMap<&str, usize> = touched.iter().enumerate().map(|(at, one)| (one.place(), at)).collect();
        let again = |mut one: Touched| match places.get(one.place()) {
            None => Some(one),
            Some(&at) => {
                // What is not read yet will be.
                let before = changes.get_mut(at)?;
                *kept -= before.take().map_or(0, |change| change.bytes());
                one.was.clone_from(&touched[at].was);
                Some(one)
            }
        };
        let later: Vec<Touched> = later.into_iter().filter_map(again).collect();
        touched.extend(later);
    }

    /// What has become of the next of those that were touched.
    fn take(&mut self, rows: Vec<Current>) {
        let (mut bytes, count) = (0, rows.len());
        let rest = &self.touched[self.changes.len()..];
        for (touched, (key, now)) in rest.iter().zip(rows) {
            let change = Change { key, was: touched.was.clone(), now };
            bytes += change.bytes();
            let is_kept = (self.wanted.keep)(&change);
            self.kept += if is_kept { change.bytes() } else { 0 };
            self.changes.push(is_kept.then_some(change));
        }
        self.size = self.wanted.limits.next(count, bytes);
    }
}
