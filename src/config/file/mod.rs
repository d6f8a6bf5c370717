//! `pgflume.json`: named connections, and the syncs between them. Parsed once and checked completely, wrong nowhere
//! afterwards; [`Connection`]s are resolved when somebody needs them. No IO but what a connection names: variables and
//! files of secrets.

mod config_file;
mod connection;
mod read;
mod secrets;
mod sync;

pub use config_file::{BUILT_IN, ConfigFile, JSON_SCHEMA, RESERVED};
pub use connection::{Connection, Limit, Resolved};
pub use sync::{Interval, SyncDefinition};

#[cfg(test)]
mod tests;
