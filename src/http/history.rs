//! The last hour of a process: how much was written and how fresh it was, by sync. Only what the process knows anyway:
//! nobody is asked.

use crate::core::distribution::Distribution;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between two points.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// An hour of them.
const POINTS: usize = 360;

/// What a sync has done so far, and how it stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    /// Rows written and deleted since the process began.
    pub rows: u64,
    /// From commit to applied, since the process began.
    pub arrived: Distribution,
    /// Messages on the queue, where one is known.
    pub queued: Option<i64>,
}

/// What it did in the time before one point.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Point {
    /// Seconds since the Epoch.
    at: u64,
    /// Rows written and deleted, a second.
    rows: f64,
    /// Half of the changes were readable within so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    half: Option<f64>,
    /// Nearly all (95 %) were.
    #[serde(skip_serializing_if = "Option::is_none")]
    most: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued: Option<i64>,
}

/// The last hour of all syncs.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<BTreeMap<String, (Sample, VecDeque<Point>)>>);

impl History {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, (Sample, VecDeque<Point>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a point of a sync.
    pub fn add(&self, sync: &str, now: Sample) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut all = self.all();
        let (last, points) = all.entry(sync.to_owned()).or_default();
        let arrived = now.arrived.since(&last.arrived);
        let rows = now.rows.saturating_sub(last.rows) as f64 / EVERY.as_secs_f64();
        points.push_back(Point {
            at,
            rows,
            half: arrived.quantile(0.5),
            most: arrived.quantile(0.95),
            queued: now.queued,
        });
        *last = now;
        if points.len() > POINTS {
            points.pop_front();
        }
    }

    /// The points of a sync, oldest first.
    pub fn of(&self, sync: &str) -> Vec<Point> {
        self.all().get(sync).map(|(_, points)| points.iter().copied().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_tell_what_happened_between_them_for_an_hour() {
        let history = History::default();
        let mut now = Sample::default();
        for n in 0..400_u64 {
            now.rows += n;
            now.arrived.observe(if n == 399 { 2.0 } else { 0.004 });
            history.add("a", now);
        }
        let points = history.of("a");
        assert_eq!((points.len(), points[359].rows, points[0].rows), (360, 39.9, 4.0));
        assert_eq!((points[359].half, points[358].half), (Some(2.5), Some(0.005)));
        assert!(history.of("b").is_empty());
    }
}
