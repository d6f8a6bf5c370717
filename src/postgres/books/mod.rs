//! The books: pgflume's own tables beside the queue. Each file holds all SQL of one of them.

pub mod comparisons;
pub mod dead_letters;
pub mod progress;
pub mod rebuilds;
pub mod retained;
