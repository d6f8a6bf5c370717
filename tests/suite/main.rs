//! Everything with IO, against real parts: one Postgres for the run, a database a test, and a file or
//! an sqld of its own for each replica.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod bounds;
mod capture;
mod chain;
mod command;
mod corpus;
mod dead;
mod drift;
mod errors;
mod faults;
mod first_contact;
mod follow;
mod init;
mod intruders;
mod json_schema;
mod kills;
mod letters;
mod limits;
mod locked;
mod marks;
mod migrations;
mod parts;
mod quick_start;
mod recovery;
mod replica_keys;
mod restores;
mod security;
mod setup;
mod snapshot;
mod store;
mod support;
mod takeover;
mod tls;
mod types;
mod unconverted;
mod verify;
mod volume;
mod web;
mod words;
mod written;
mod zombies;
