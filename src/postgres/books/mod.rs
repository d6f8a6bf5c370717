//! The books: pgflume's own tables beside the queue. Each file holds all SQL of one of them.

pub mod dead_letters;
pub mod progress;
pub mod resyncs;
pub mod retained;
pub mod verified;
