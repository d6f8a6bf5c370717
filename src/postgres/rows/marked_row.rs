//! What was found under a key.

use super::cells::Unfit;
use crate::core::value::{Cell, Key};

/// One marked key as it was found.
#[derive(Debug)]
pub struct MarkedRow {
    /// Its position among those asked for.
    pub position: usize,
    /// The key as SQLite has it.
    pub key: Result<Key, Unfit>,
    /// Bytes that Postgres sent for it.
    pub bytes: usize,
    /// The cells of the row under it, if there is one; its own key may be written differently.
    pub cells: Option<Result<Vec<Cell>, Unfit>>,
}
