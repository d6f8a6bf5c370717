//! pgflume keeps a libSQL/SQLite copy of chosen Postgres tables fresh.
//!
//! A write in Postgres *marks* its keys on a PGMQ queue. A *step* takes the marks and, at the very same
//! snapshot, reads those rows as they are, applies them to libSQL in fenced transactions, and then
//! acknowledges by committing the Postgres transaction that took the marks ([`sync`]).
//!
//! What always holds; the tests attack it:
//!
//! 1. **Nothing lost.** A committed change is marked on the queue, in the replica, or among the dead letters.
//! 2. **Nothing stale.** For one key the replica never goes back. (For images: as far as their order allows.)
//! 3. **Provably equal.** A step that has drained the queue leaves the replica equal to its snapshot.
//! 4. **Capture is honest and harmless.** It depends on no setting of the writer, and no content makes a write fail.
//! 5. **Durable before visible.** Nothing reaches the replica that Postgres could still lose in a crash.
//! 6. **A poison row stops its own key and nothing else.**
//! 7. **No SQL from outside.** Identifiers come from the checked schema or the catalog, quoted; values are parameters.
//! 8. **Bounded.** Rows, bytes and time of a batch, tries, memory and bodies are named constants with their reason.
//!
//! Arrows point one way, and no two files use each other in a circle; `tests/house.rs` holds both:
//!
//! - [`cli`], [`http`], [`demo`]: who comes in, and by which door;
//! - [`operate`]: what people ask for; [`sync`]: the drain and its steps; [`feed`]: changes of the replica to clients;
//!   [`push`]: writes of clients;
//! - [`config`]: flags and variables; [`postgres`], [`mysql`]: all that speaks to either; [`replica`]: all that speaks libSQL;
//! - [`mod@core`]: what is known without asking anybody. No IO.

pub mod cli;
pub mod config;
pub mod core;
pub mod demo;
pub mod feed;
pub mod http;
pub mod mysql;
pub mod operate;
pub mod postgres;
pub mod provider;
pub mod pull;
pub mod push;
pub mod replica;
pub mod sync;
