//! Whose matter a failure is that comes up while rows of a table are read: by where it arose. Whatever Postgres says
//! about them concerns one of them, or their table; but for the connection, resources, locks and what others cancel.
//! No IO.

use crate::core::error::Error;
use std::time::{Duration, Instant};
use tokio_postgres::error::{DbError, Severity, SqlState};

/// How long one statement of a step may run; `rows::begin` of the wing `postgres` sets it.
pub(super) const STATEMENT_TIME: Duration = Duration::from_secs(60);

/// How long a part may run of what took [`STATEMENT_TIME`]: only a single row may take that long again.
pub(super) const PART_TIME: Duration = Duration::from_secs(8);

/// A statement that was cancelled sooner than so much before its limit was cancelled by somebody.
const MARGIN: Duration = Duration::from_millis(500);

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
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
        let Some(db) = error.of_postgres() else { return Self::Other };
        if error.is_raised() {
            return Self::Row;
        }
        match db.code() {
            _ if is_of_connection(db) => Self::Other,
            code if *code == SqlState::QUERY_CANCELED => match since.elapsed() + MARGIN >= limit {
                true => Self::Slow,
                false => Self::Other,
            },
            code => Self::by_code(code.code()),
        }
    }

    /// By SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
    fn by_code(code: &str) -> Self {
        let is = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
        // Temporary files have a limit of their own, which this table's rows exceed; what cannot be reached is a
        // foreign server, and a file that is not there is the table's, or a library's.
        if is(&["08", "0A", "3F", "42", "53400", "58P01"]) {
            Self::Table
        } else if is(&["25", "40", "53", "55P03", "57", "58"]) {
            Self::Other
        } else {
            Self::Row
        }
    }
}

/// The connection ends, or a pooler speaks.
fn is_of_connection(db: &DbError) -> bool {
    db.file().is_none() || matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

/// `sql` in a transaction, and the time that its statements may take from then on.
pub(super) fn limited(sql: &str, time: Duration) -> String {
    format!("{sql}; set local statement_timeout = {}", time.as_millis())
}

/// Why a key is a dead letter that no encoding can tell.
pub(super) const NO_UTF8_KEY: &str = "the key is no UTF-8: correct it, then drop this letter";

/// Why a key is a dead letter whose row takes too long.
pub(super) fn too_slow() -> String {
    let seconds = STATEMENT_TIME.as_secs();
    format!("reading the row under this key takes longer than {seconds} s: make the row or `where` cheaper")
}

/// Why a key is a dead letter whose row Postgres cannot read, or not in time.
pub(super) fn unreadable(error: &Error, fault: Fault) -> String {
    if fault == Fault::Slow {
        return too_slow();
    }
    let code = error.sql_state().map_or("?", SqlState::code);
    format!("Postgres cannot read the row under this key (SQLSTATE {code}): correct the row")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_matter_of_connections_resources_or_locks_is_one_of_rows() {
        let cases = [
            (Fault::Row, &["22012", "22P02", "22021", "23514", "2F005", "38000", "39P01", "54000", "54001"][..]),
            (Fault::Row, &["ABC01", "P0001", "P0004", "XX000", "XX001", "XX002", "21000", "55000", "28P01"]),
            (Fault::Table, &["42501", "42883", "42P01", "42804", "0A000", "3F000", "53400", "08001", "58P01"]),
            (Fault::Other, &["25006", "25P02", "40001", "40P01", "53100", "53200", "55P03", "57P01", "58030"]),
        ];
        for (fault, codes) in cases {
            for code in codes {
                assert_eq!(Fault::by_code(code), fault, "{code}");
            }
        }
    }
}
