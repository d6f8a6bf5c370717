//! The comparing part of a step: both sides at one snapshot, row by row.

mod comparison;
mod exempt;
mod pages;
pub mod report;

pub use comparison::Comparison;
pub(super) use comparison::Finished;
