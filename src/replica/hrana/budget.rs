//! What an answer may hold once it is decoded: a byte or two of it can become a hundred in memory.

use super::answer::Garbled;

/// Cells of one answer; a row counts as two more. An inventory of 100,000 columns, or a page of 100,000 keys of
/// four columns, are in it.
const CELLS: usize = 1_000_000;

/// A row beside its cells.
const ROW_CELLS: usize = 2;

/// What is left; `None` once something was refused.
pub(super) struct Budget(Option<usize>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Some(CELLS))
    }

    /// For one row, before its cells.
    pub(super) fn row(&mut self) -> Result<(), Garbled> {
        self.take(ROW_CELLS)
    }

    /// For one cell.
    pub(super) fn cell(&mut self) -> Result<(), Garbled> {
        self.take(1)
    }

    fn take(&mut self, cells: usize) -> Result<(), Garbled> {
        self.0 = self.0.and_then(|left| left.checked_sub(cells));
        self.check()
    }

    /// Whether nothing was refused so far.
    pub(super) fn check(&self) -> Result<(), Garbled> {
        match self.0 {
            Some(_) => Ok(()),
            None => Err(Garbled(format!("it holds more than {CELLS} values"))),
        }
    }
}
