//! Everything with IO, against real parts: one Postgres for the run, a database a test, and a file or
//! an sqld of its own for each replica.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod borrowed_types;
mod bounds;
mod capture;
mod capture_sql;
mod chain;
mod command;
mod corpus;
mod crowds;
mod dead;
mod demo;
mod drift;
mod encodings;
mod errors;
mod faults;
mod first_contact;
mod first_hour;
mod follow;
mod frozen;
mod gives_way;
mod init;
mod intruders;
mod json_schema;
mod kills;
mod letters;
mod liars;
mod limits;
mod link;
mod locked;
mod marks;
mod migrations;
mod newcomers;
mod open_sessions;
mod owners;
mod pairs;
mod parts;
mod pulls;
mod quick_start;
mod recovery;
mod replica_keys;
mod restores;
#[path = "../seam/mod.rs"]
mod seam;
mod security;
mod serving;
mod setup;
mod snapshot;
#[path = "../store/mod.rs"]
mod store;
mod stores;
mod support;
mod syncs;
mod takeover;
mod tampered_queue;
mod tls;
mod tutorials;
mod types;
mod unconverted;
mod unmarked;
mod verify;
mod volume;
mod web;
mod words;
mod written;
mod zombies;
