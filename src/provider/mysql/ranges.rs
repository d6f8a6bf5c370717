//! What of a table without stamps has changed: by a digest of the rows of each range of its keys, kept from one look to
//! the next. A range whose rows are as they were costs an aggregate, and none of its rows is sent.

use super::reading::key_texts;
use super::statements::{Bounds, Readable};
use crate::core::error::{Cause, Result};
use crate::core::message::MarkedKey;
use crate::mysql::catalog::get;
use crate::mysql::session::{Session, of_table};
use crate::provider::stamps::Range;
use std::collections::VecDeque;

/// Rows of a range, and where they may be long.
const ROWS: i64 = 10_000;
const LONG_ROWS: i64 = 500;

/// So many ranges a large table has at most, about: a mark is written with each change.
const MOST: i64 = 1_000;

/// By what a range is known to be as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Digests,
    /// By the number of its rows.
    Counts,
}

/// What a look at all ranges has found.
#[derive(Default)]
pub(super) struct Digested {
    /// The ranges now.
    pub ranges: Vec<Range>,
    /// Those whose rows are not as they were, and how many rows they have.
    pub changed: VecDeque<Bounds>,
    pub rows: i64,
    /// Which of the ranges these are in.
    doubtful: Vec<bool>,
}

/// About how many rows the ranges of a table have that has so many.
pub(super) fn size(is_long: bool, rows: i64) -> i64 {
    (if is_long { LONG_ROWS } else { ROWS }).max(rows / MOST)
}

/// Looks at all ranges of a table, `before` as they were; without a `size` it is one.
pub(super) async fn look(
    session: &mut Session,
    readable: &Readable,
    before: &[Range],
    size: Option<i64>,
    by: By,
) -> Result<Digested> {
    let (is_split, size) = (size.is_some(), size.unwrap_or(i64::MAX / 4));
    let all = [Range { until: None, rows: UNKNOWN, digest: 0 }];
    let (mut found, mut after) = (Digested::default(), None);
    for range in if before.is_empty() { &all } else { before } {
        let bounds = Bounds { after: after.clone(), until: range.until.clone() };
        after.clone_from(&range.until);
        if by == By::Counts && range.rows != UNKNOWN && count(session, readable, &bounds).await? == range.rows {
            found.push(bounds, range.rows, range.digest, true, size);
            continue;
        }
        let mut left = VecDeque::from([(bounds, false)]);
        while let Some((bounds, is_rest)) = left.pop_front() {
            // The last one grows, and may have grown much; and so has one of which there is a rest.
            let may_be_much = is_split && (is_rest || bounds.until.is_none());
            let middle = if may_be_much { key_at(session, readable, &bounds, size * 2).await? } else { None };
            let now = match middle {
                Some(_) => None,
                None => digest(session, readable, &bounds).await?,
            };
            match now {
                Some((rows, digest)) if rows <= size * 2 || (rows, digest) == (range.rows, range.digest) => {
                    let is_as_before = (rows, digest) == (range.rows, range.digest);
                    found.push(bounds, rows, digest, is_as_before, size);
                }
                // In parts.
                _ => {
                    let end = key_at(session, readable, &bounds, size - 1).await?;
                    match end.filter(|end| Some(end) != bounds.until.as_ref()) {
                        Some(end) => {
                            left.push_front((Bounds { after: Some(end.clone()), until: bounds.until }, true));
                            left.push_front((Bounds { after: bounds.after, until: Some(end) }, false));
                        }
                        // Not even so many rows can be digested in time: they are read.
                        None => found.push(bounds, UNKNOWN, 0, false, size),
                    }
                }
            }
        }
    }
    Ok(found)
}

/// Rows of a range of which that is not known.
const UNKNOWN: i64 = -1;

impl Digested {
    fn push(&mut self, bounds: Bounds, rows: i64, digest: u64, is_as_before: bool, size: i64) {
        let range = Range { until: bounds.until.clone(), rows, digest };
        if !is_as_before {
            self.rows += rows.max(1);
            match self.changed.back_mut().filter(|last| last.until == bounds.after && last.until.is_some()) {
                Some(last) => last.until = bounds.until,
                None => self.changed.push_back(bounds),
            }
        }
        // Small ones become one: else a table whose rows come at one end and go at the other has ever more.
        let is_small = |last: &Range| last.rows >= 0 && rows >= 0 && last.rows + rows <= size / 2;
        match (self.ranges.last_mut().filter(|last| is_small(last)), self.doubtful.last_mut()) {
            (Some(last), Some(is_doubtful)) => {
                *last = Range { until: range.until, rows: last.rows + rows, digest: last.digest ^ digest };
                *is_doubtful |= !is_as_before;
            }
            _ => {
                self.ranges.push(range);
                self.doubtful.push(!is_as_before);
            }
        }
    }

    /// The ranges now, of which nothing is known where they are not as they were.
    pub fn doubted(&self) -> Vec<Range> {
        let doubt = |(range, is_doubtful): (&Range, &bool)| match is_doubtful {
            true => Range { until: range.until.clone(), rows: UNKNOWN, digest: 0 },
            false => range.clone(),
        };
        self.ranges.iter().zip(&self.doubtful).map(doubt).collect()
    }
}

async fn count(session: &mut Session, readable: &Readable, bounds: &Bounds) -> Result<i64> {
    let (sql, parameters) = readable.count_within(bounds);
    let row = session.row(&sql, parameters).await.map_err(|e| of_table(e, &readable.table.name))?;
    get(&row, 0)
}

/// Rows of a range, and their digest; `None` where that takes too long.
async fn digest(session: &mut Session, readable: &Readable, bounds: &Bounds) -> Result<Option<(i64, u64)>> {
    let (sql, parameters) = readable.digest(&session.server, bounds);
    match session.row(&sql, parameters).await {
        Ok(row) => Ok(Some((get(&row, 0)?, get(&row, 1)?))),
        Err(e) if e.cause() == Some(Cause::Cancelled) => Ok(None),
        Err(e) => Err(of_table(e, &readable.table.name)),
    }
}

async fn key_at(session: &mut Session, readable: &Readable, bounds: &Bounds, rows: i64) -> Result<Option<MarkedKey>> {
    let (sql, parameters) = readable.key_at(bounds, rows);
    let found = session.rows(&sql, parameters).await.map_err(|e| of_table(e, &readable.table.name))?;
    found.into_iter().next().map(|row| key_texts(readable, row)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(after: i32, until: i32) -> Bounds {
        let key = |at: i32| (at > 0).then(|| vec![at.to_string()]);
        Bounds { after: key(after), until: key(until) }
    }

    #[test]
    fn small_ranges_become_one_and_changed_neighbours_are_read_at_once() {
        let mut found = Digested::default();
        for (range, rows, digest, is_as_before) in [
            (bounds(0, 10), 3, 1, true),
            (bounds(10, 20), 2, 6, false),
            (bounds(20, 30), 90, 7, false),
            (bounds(30, 40), 0, 0, true),
            (bounds(40, 0), 40, 9, false),
        ] {
            found.push(range, rows, digest, is_as_before, 100);
        }
        let ranges: Vec<_> = found.ranges.iter().map(|range| (range.rows, range.digest)).collect();
        assert_eq!(ranges, [(5, 7), (90, 7), (40, 9)]);
        assert_eq!(found.changed, [bounds(10, 30), bounds(40, 0)]);
        assert_eq!(found.rows, 132);
        let doubted: Vec<_> = found.doubted().iter().map(|range| range.rows).collect();
        assert_eq!(doubted, [UNKNOWN, UNKNOWN, UNKNOWN]);
    }
}
