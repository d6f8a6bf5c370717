//! How much is read, and held, for answers.

use super::memory::Memory;

/// How much one answer holds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows that are read first; then as many as come to `page_bytes`.
    pub rows: usize,
    /// What is read at once, about.
    pub page_bytes: usize,
    /// A part of a walk ends behind so many bytes.
    pub part_bytes: usize,
    /// What has changed is not given in more bytes than this, nor of more keys: the client begins anew.
    pub most_bytes: usize,
    /// See there.
    pub most_keys: usize,
}

/// Those of a server. A row may be as large as `MAX_ROW_BYTES`, so it begins with few; a server of libSQL answers 10 MB.
pub const LIMITS: Limits =
    Limits { rows: 20, page_bytes: 1 << 20, part_bytes: 1 << 20, most_bytes: 64 << 20, most_keys: 200_000 };

/// Most rows that are read at once.
const MOST_ROWS: usize = 5_000;

impl Limits {
    /// How many rows are read next, after so many that came to so many bytes.
    pub(super) fn next(&self, rows: usize, bytes: usize) -> usize {
        let fitting = (rows * self.page_bytes).checked_div(bytes).unwrap_or(MOST_ROWS);
        fitting.clamp(1, (rows * 10).clamp(1, MOST_ROWS))
    }
}

/// How much is read and held for answers.
#[derive(Debug, Clone)]
pub struct Means {
    /// Of one answer.
    pub limits: Limits,
    /// Of all answers.
    pub memory: Memory,
    /// Of all changes that are kept for the late.
    pub kept: Memory,
    /// Of the values by which those who wait are found.
    pub found: Memory,
}
