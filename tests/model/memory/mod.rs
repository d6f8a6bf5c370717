//! A Postgres in memory: what the seam asks of one, over a small transactional store, with applications that write, DDL
//! and faults. Deterministic: no real time, no chance. It passes the rules of `tests/seam`, as the real one does.

pub mod bell;
mod books;
#[cfg(test)]
mod conformance;
pub mod engine;
#[cfg(test)]
mod faults;
pub mod link;
pub mod postgres;
mod queue;
mod source;
pub mod tables;
pub mod writer;
