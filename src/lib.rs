//! pgflume keeps a libSQL/SQLite copy of chosen Postgres tables fresh.

pub mod config;
pub mod error;
pub mod postgres;
pub mod schema;
pub mod secret;
