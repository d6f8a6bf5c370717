//! The real parts that the suite runs against: sqld, pgbouncer, a stand-in for pg_net, a TCP proxy with
//! faults, and pgflume's own binary. (Postgres itself is `pgflume::demo::postgres`.)
//!
//! Each listens on a free port of 127.0.0.1, is waited for by condition, logs to a file that a
//! panic shows the end of, and is gone with its value; a guard ends it even when it sits in a
//! `static` or the test process is killed.

#![allow(dead_code, unused_imports, reason = "a harness offers more than each user needs")]
#![expect(clippy::expect_used, clippy::panic, reason = "a part that does not start fails the test")]

pub mod freezer;
pub mod http;
pub mod mysql_server;
pub mod pg_net;
pub mod pgbouncer;
pub mod process;
pub mod program;
pub mod proxy;
pub mod sqld;

pub use freezer::Freezer;
pub use mysql_server::MySqlServer;
pub use pg_net::PgNet;
pub use pgbouncer::Pgbouncer;
pub use program::Program;
pub use proxy::{Fault, Proxy};
pub use sqld::{Sqld, SqldOptions, Tokens};
