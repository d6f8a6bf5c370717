//! The seam between a step and its Postgres: what [`sync`](crate::sync) asks of the source and of the books beside its
//! queue. [`Source`] reads, [`Journal`] keeps; one connection is both, so that what is read and what is acknowledged
//! are of one transaction. [`Pg`] is the real one; a simulator has one in memory. Both keep to `tests/seam`.
//!
//! No type of the driver shows here: errors have their [`Cause`](crate::core::error::Cause), values are cells.

mod connect;
mod journal;
mod known;
mod opening;
mod pg;
mod source;

pub use super::bell::Doze;
pub use connect::{Connect, Link};
pub use journal::{Begun, Bell, Books, Flight, Journal, Queue, ReadsMessage, Savepoint, Transaction};
pub use known::Known;
pub use opening::{Opened, Opening};
pub use pg::Pg;
pub use source::{Page, Pages, Reading, Source};
