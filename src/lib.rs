//! pgflume keeps a libSQL/SQLite copy of chosen Postgres tables fresh.

pub mod batch;
pub mod config;
pub mod error;
pub mod message;
pub mod postgres;
pub mod replica;
pub mod schema;
pub mod secret;
pub mod value;
