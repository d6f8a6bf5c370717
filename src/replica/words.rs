//! What of a target's message may be shown: words that SQLite itself has, which name tables and columns. What a
//! trigger raises, or a function quotes, may hold values of rows. No IO.

use crate::core::words::clean;

/// Characters of a message that are shown.
const MOST_WORDS: usize = 400;

/// How SQLite's messages begin that name tables, columns and states only.
const OWN: [&str; 26] = [
    "UNIQUE constraint failed",
    "NOT NULL constraint failed",
    "PRIMARY KEY constraint failed",
    "CHECK constraint failed",
    "FOREIGN KEY constraint failed",
    "foreign key mismatch",
    "datatype mismatch",
    "cannot store ",
    "string or blob too big",
    "cannot modify ",
    "cannot INSERT into generated column",
    "cannot UPDATE generated column",
    "ON CONFLICT clause does not match",
    "too many ",
    "database is locked",
    "database table is locked",
    "database schema is locked",
    "database or disk is full",
    "database disk image is malformed",
    "attempt to write a readonly database",
    "disk I/O error",
    "file is not a database",
    "unable to open database file",
    "out of memory",
    "interrupted",
    "not an error",
];

/// How those begin that say what a table, or the statement, lacks: the same for each row.
const OF_SCHEMA: [&str; 20] = [
    "no such table",
    "no such column",
    "no such function",
    "no such module",
    "no such collation sequence",
    "no such index",
    "table ",
    "view ",
    "near ",
    "cannot modify ",
    "cannot start ",
    "cannot commit",
    "cannot rollback",
    "SQL logic error",
    "cannot INSERT into generated column",
    "cannot UPDATE generated column",
    "ON CONFLICT clause does not match",
    "foreign key mismatch",
    "malformed database schema",
    "too many ",
];

/// In place of words that somebody else wrote.
const NOT_SHOWN: &str = "it says why in words that may hold values, and are not shown";

/// The message without what a server puts before it.
pub(super) fn bare(message: &str) -> &str {
    let is_code = |word: &str| word.starts_with("SQLITE_") || word.starts_with("SQLite ") || word == "SQL_PARSE_ERROR";
    match message.split_once(": ") {
        Some((word, rest)) if is_code(word) => bare(rest),
        _ => message,
    }
}

/// How `message` begins, where that is SQLite's own: what follows may be anything.
pub(super) fn beginning(message: &str) -> String {
    let bare = bare(message);
    match OWN.iter().chain(&OF_SCHEMA).find(|own| bare.starts_with(**own)) {
        Some(own) => own.trim_end().to_owned(),
        None => NOT_SHOWN.to_owned(),
    }
}

/// What may be shown of `message`: all of it where it is SQLite's own, as one bounded line.
pub(super) fn shown(message: &str, is_of_trigger: bool) -> String {
    let bare = bare(message);
    let is_own = OWN.iter().chain(&OF_SCHEMA).any(|own| bare.starts_with(own));
    match is_own && !is_of_trigger {
        true => clean(bare.lines().next().unwrap_or_default(), MOST_WORDS),
        false if is_of_trigger => "a trigger of the replica raised an error".to_owned(),
        false => NOT_SHOWN.to_owned(),
    }
}

/// Whether the tables are not what the statement takes them for, whatever the row.
pub(super) fn is_of_schema(message: &str) -> bool {
    let bare = bare(message);
    bare.is_empty() || OF_SCHEMA.iter().any(|own| bare.starts_with(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_of_sqlite_itself_are_shown() {
        let cases = [
            ("UNIQUE constraint failed: t.mail", false, "t.mail"),
            ("SQLITE_CONSTRAINT: SQLite error: UNIQUE constraint failed: t.mail", false, "t.mail"),
            ("SQLite error: CHECK constraint failed: v <> 'BLOCKED'", false, "BLOCKED"),
            ("no such column: z", false, "z"),
            ("mail alice@example.com", true, "trigger"),
            ("UNIQUE constraint failed: alice@example.com", true, "trigger"),
            ("bad JSON path: 'alice@example.com'", false, "not shown"),
            ("malformed MATCH expression: [alice@example.com]", false, "not shown"),
            ("fts5: syntax error near \"alice@example.com\"", false, "not shown"),
        ];
        for (message, is_of_trigger, words) in cases {
            let shown = shown(message, is_of_trigger);
            assert!(shown.contains(words) && !shown.contains("alice"), "{message}: {shown}");
        }
        assert!(shown("no such table: a\u{1b}[2Jb\nc", false).chars().all(|c| !c.is_control()));
    }

    #[test]
    fn what_a_row_causes_is_no_matter_of_the_table() {
        for row in ["malformed JSON", "integer overflow", "bad JSON path: 'x'", "LIKE or GLOB pattern too complex"] {
            assert!(!is_of_schema(row) && !is_of_schema(&format!("SQLite error: {row}")), "{row}");
        }
        for table in ["no such table: t", "table t has no column named z", "cannot modify t because it is a view", ""] {
            assert!(is_of_schema(table), "{table}");
        }
    }
}
