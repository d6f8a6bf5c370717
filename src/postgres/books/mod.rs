//! The books: pgflume's own tables beside the queue. Each file holds the SQL of one, or of those that change together; what
//! was captured, and by which definitions, stands with `drift`.

pub mod comparisons;
pub mod dead_letters;
pub(crate) mod outbox;
pub mod progress;
pub mod queue_health;
pub mod rebuilds;
pub mod retained;
