//! The comparing part of a step: both sides at one snapshot, row by row.

mod excused;
mod pages;
pub mod report;
mod verification;

pub(super) use verification::Finished;
pub use verification::Verification;
