//! The applying half of a step: batches to the replica, each from the head that the one before left.

pub(super) mod budget;
pub(super) mod displaced;
pub(super) mod rejected;
mod rivals;
mod taken_again;
pub(super) mod writer;
