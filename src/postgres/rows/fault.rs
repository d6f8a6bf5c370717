//! Whose matter a failure is that comes up while rows of a table are read, by its cause and the time that it took. No IO.

use super::STATEMENT_TIME;
use crate::core::error::{Cause, Error};
use std::time::Duration;
use tokio::time::Instant;

/// How long a part may run of what took [`STATEMENT_TIME`]: only a single row may take that long again.
pub(crate) const PART_TIME: Duration = Duration::from_secs(8);

/// A statement that was cancelled sooner than so much before its limit was cancelled by somebody.
const MARGIN: Duration = Duration::from_millis(500);

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One of the rows.
    Row,
    /// The table: Postgres says the same of each row.
    Table,
    /// One of the rows takes too long, or all of them together.
    Slow,
    /// None of them.
    Other,
}

impl Fault {
    /// The fault of a statement that was sent at `since` and may run for `limit`.
    pub fn of(error: &Error, since: Instant, limit: Duration) -> Self {
        match error.cause() {
            Some(Cause::Row | Cause::NoUtf8) => Self::Row,
            Some(Cause::Table) => Self::Table,
            Some(Cause::Cancelled) if since.elapsed() + MARGIN >= limit => Self::Slow,
            Some(Cause::Cancelled | Cause::Other) | None => Self::Other,
        }
    }
}

/// Why a key is a dead letter that no encoding can tell.
pub(crate) const NO_UTF8_KEY: &str = "the key is no UTF-8: correct it, then drop this letter";

/// Why a key is a dead letter whose row takes too long.
pub(crate) fn too_slow() -> String {
    let seconds = STATEMENT_TIME.as_secs();
    format!("reading the row under this key takes longer than {seconds} s: make the row or `where` cheaper")
}

/// Why a key is a dead letter whose row Postgres cannot read, or not in time.
pub(crate) fn unreadable(error: &Error, fault: Fault) -> String {
    if fault == Fault::Slow {
        return too_slow();
    }
    let code = error.sqlstate().unwrap_or("?");
    format!("Postgres cannot read the row under this key (SQLSTATE {code}): correct the row")
}
