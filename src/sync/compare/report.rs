//! What to compare, and how far that is.

use crate::replica::target::Target;
use std::sync::atomic::{AtomicU64, Ordering};

/// What to compare, and what to do about it.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Names in `schema.json`.
    pub tables: Vec<String>,
    /// Write what should be there.
    pub repair: bool,
    /// Compare only this share of each table (0 to 1), going on where the last such check ended.
    pub sample: Option<f64>,
    /// Look at this database instead of the replica: a read replica of it.
    pub target: Option<Target>,
}

/// How far a check is, for whoever watches.
#[derive(Debug, Default)]
pub struct Counters {
    /// Rows compared.
    pub rows: AtomicU64,
    /// Differences found.
    pub differences: AtomicU64,
}

impl Counters {
    pub(super) fn add(&self, rows: u64, differences: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.differences.fetch_add(differences, Ordering::Relaxed);
    }
}
