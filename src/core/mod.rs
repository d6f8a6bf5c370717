//! What pgflume knows without asking anybody: definitions, values, messages, batches, positions, decisions and
//! errors. No IO.

pub mod absent;
pub(crate) mod backoff;
pub mod batch;
pub mod chance;
pub mod claims;
pub mod codes;
pub(crate) mod config_error;
pub mod crypto;
pub mod difference;
pub mod distribution;
pub mod draft;
pub mod error;
pub mod event;
pub mod failpoint;
pub(crate) mod halving;
pub(crate) mod json;
pub(crate) mod keys;
pub mod memory;
pub mod message;
pub(crate) mod pattern;
pub mod position;
pub mod queue_name;
pub mod reconcile;
pub mod schema;
pub mod secret;
pub mod token;
pub mod value;
pub mod words;
