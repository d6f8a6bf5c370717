//! pgflume keeps a libSQL/SQLite copy of chosen Postgres tables fresh.

pub mod batch;
pub mod capture;
pub mod cli;
pub mod config;
pub mod demo;
pub mod error;
pub mod http;
pub mod message;
pub mod postgres;
pub mod queue;
pub mod reconcile;
pub mod replica;
pub mod schema;
pub mod secret;
pub mod source;
pub mod status;
pub mod sync;
pub mod value;
