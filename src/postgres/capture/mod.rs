//! Postgres' side: makes a database ready from `schema.json`, and takes it back. Takes a URL, the
//! schema and a queue; gives a report, or the same SQL as a script. Reads and writes no message.
//!
//! `inspect` and `tables` look and refuse, `plan` makes steps of what they saw with the SQL of `functions` and
//! `triggers`, `install` runs them: one transaction each, one table a transaction, with a bounded wait for
//! locks. Running again changes nothing that is right already.

mod facts;
mod functions;
mod inspect;
mod install;
mod keys;
mod losses;
mod names;
mod options;
mod plan;
mod report;
mod run;
mod source;
mod tables;
mod takeover;
mod teardown;
mod template;
mod triggers;
mod types;
mod uses;
mod writable;

pub use install::{plan, print, setup};
pub use options::SetupOptions;
pub use report::SetupReport;
pub use teardown::{TeardownOptions, teardown};
