//! What a store of SQLite's runs on its open connection: a statement, or a transaction of prepared statements. It knows
//! nothing of where the database lies, so that a file and memory cannot differ in what they do.

use super::sqlite::{Connection, Failure};
use super::store::{Rows, Statement, Work};
use super::{feed_touched, head, statements, words};
use crate::core::error::{Error, ErrorKind, Result};

/// What `RAISE` in a trigger gives, whatever its words (SQLITE_CONSTRAINT_TRIGGER).
const CONSTRAINT_TRIGGER: i32 = 1811;

/// Runs one statement and gives its rows. Fails as [`classify`] says.
pub fn query(connection: &Connection, statement: &Statement) -> Result<Rows> {
    rows(connection, statement).map_err(classify)
}

/// Runs SELECTs in one transaction and gives their rows. Fails as [`query`] does.
pub fn read_together(connection: &Connection, statements: &[Statement]) -> Result<Vec<Rows>> {
    connection.run("BEGIN", &[]).map_err(classify)?;
    let read = statements.iter().map(|statement| rows_kept(connection, statement)).collect();
    connection.run("ROLLBACK", &[]).map_err(classify)?;
    read
}

fn rows_kept(connection: &Connection, statement: &Statement) -> Result<Rows> {
    let mut rows = Rows::new();
    let mut kept = connection.kept(&statement.sql).map_err(classify)?;
    kept.rows(&statement.args, |row| rows.push(row)).map_err(classify)?;
    connection.keep(&statement.sql, kept);
    Ok(rows)
}

fn rows(connection: &Connection, statement: &Statement) -> std::result::Result<Rows, Failure> {
    let mut rows = Rows::new();
    connection.prepare(&statement.sql)?.rows(&statement.args, |row| rows.push(row))?;
    Ok(rows)
}

/// Runs one `BEGIN IMMEDIATE … COMMIT`. Fails as [`classify`] says, with nothing written, and as `Unknown` where it
/// could not be rolled back.
pub fn write(connection: &Connection, work: &Work) -> Result<()> {
    connection.run("BEGIN IMMEDIATE", &[]).map_err(classify)?;
    let Err(error) = apply(connection, work).and_then(|()| connection.run("COMMIT", &[])) else { return Ok(()) };
    if !connection.is_autocommit() {
        connection
            .run("ROLLBACK", &[])
            .map_err(|e| Error::unknown(format!("the replica could not roll back: {}", e.message)))?;
    }
    Err(classify(error))
}

fn apply(connection: &Connection, work: &Work) -> std::result::Result<(), Failure> {
    // What surrounds a batch's rows recurs with each; other work does not.
    let run: fn(&Connection, &Statement) -> _ = if work.range.is_empty() { run } else { run_kept };
    work.before.iter().try_for_each(|statement| run(connection, statement))?;
    work.touching.iter().try_for_each(|touching| feed_touched::write(connection, touching, work.items()))?;
    for table in &work.emptied {
        connection.run(&statements::empty(table), &[])?;
    }
    for group in statements::deletes(work.items()) {
        let sql = statements::delete_key(group.table);
        let mut statement = connection.kept(&sql)?;
        group.keys.iter().try_for_each(|key| statement.run(key))?;
        connection.keep(&sql, statement);
    }
    for group in statements::upserts(work.items()) {
        let sql = statements::upsert_row(group.table, group.columns);
        let mut statement = connection.kept(&sql)?;
        group.rows.iter().try_for_each(|row| statement.run(row))?;
        connection.keep(&sql, statement);
    }
    work.after.iter().try_for_each(|statement| run(connection, statement))
}

fn run(connection: &Connection, statement: &Statement) -> std::result::Result<(), Failure> {
    connection.run(&statement.sql, &statement.args)
}

fn run_kept(connection: &Connection, statement: &Statement) -> std::result::Result<(), Failure> {
    let mut kept = connection.kept(&statement.sql)?;
    kept.run(&statement.args)?;
    connection.keep(&statement.sql, kept);
    Ok(())
}

/// The kind of a SQLite result code (<https://sqlite.org/rescode.html>); the transaction was rolled back.
pub(crate) fn classify(failure: Failure) -> Error {
    let Failure { code: full, ref message } = failure;
    let is_of_trigger = full == CONSTRAINT_TRIGGER;
    if head::is_fence(message) && !is_of_trigger {
        return head::fenced();
    }
    // The same code stands for a table that is not there and for a value that a function does not take.
    let code = if full & 0xff == 1 && !words::is_of_schema(message) { 20 } else { full & 0xff };
    let (kind, remedy) = match code {
        5 | 6 => (ErrorKind::Retry, "another process holds the file's lock; it will be tried again"),
        7 | 9 | 10 => (ErrorKind::Retry, "it will be tried again"),
        18..=20 => (ErrorKind::Row, "this row does not fit the replica's table"),
        13 => (ErrorKind::WholeSide, "the disk is full: make room"),
        3 | 8 | 14 | 23 => (ErrorKind::WholeSide, "check the rights of the file and its directory"),
        11 | 26 => (ErrorKind::WholeSide, "the file is damaged or no SQLite database: move it away, then POST /nuke"),
        1 => (ErrorKind::Schema, "POST /nuke rebuilds the tables by schema.json"),
        _ => (ErrorKind::Halt, "POST /nuke rebuilds the tables by schema.json"),
    };
    let words = words::shown(message, is_of_trigger);
    Error::new(kind, format!("the replica: {words}: {remedy}")).caused_by(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_a_function_does_not_take_is_the_rows_matter_and_a_triggers_words_are_not_shown() {
        let error = classify(Failure { code: 1, message: "malformed JSON".into() });
        assert!(error.kind() == &ErrorKind::Row, "{error}");
        let forged = "NOT NULL constraint failed: _pgflume_head.seq alice";
        let error = classify(Failure { code: CONSTRAINT_TRIGGER, message: forged.into() });
        assert!(error.kind() == &ErrorKind::Row && !error.to_string().contains("alice"), "{error}");
    }

    #[test]
    fn each_result_code_has_its_kind_and_remedy() {
        use ErrorKind::{Retry, Row, Schema, WholeSide};
        let cases = [
            (5, Retry, "tried again"),
            (6, Retry, "tried again"),
            (5 | 2 << 8, Retry, "tried again"), // SQLITE_BUSY_SNAPSHOT
            (7, Retry, "tried again"),
            (10, Retry, "tried again"),
            (8, WholeSide, "rights"),
            (14, WholeSide, "rights"),
            (13, WholeSide, "make room"),
            (11, WholeSide, "move it away"),
            (26, WholeSide, "move it away"),
            (19, Row, "does not fit"),
            (18, Row, "does not fit"),
            (1, Schema, "/nuke"),
        ];
        for (code, kind, remedy) in cases {
            let error = classify(Failure { code, message: "no such table: t".into() });
            assert_eq!(error.kind(), &kind, "{code}");
            assert!(error.to_string().contains(remedy), "{code}: {error}");
        }
    }
}
