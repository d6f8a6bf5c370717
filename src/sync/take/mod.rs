//! The taking half of a step: messages, the rows that they mark, and pages of tables that are rebuilt. Writes nothing.

pub(super) mod absent;
pub(super) mod ahead;
mod hand;
pub(super) mod intake;
mod marked_rows;
pub(super) mod page_sizes;
pub(super) mod pages;
pub(super) mod reader;
pub(super) mod slow;
mod taking;
pub(super) mod throttle;
