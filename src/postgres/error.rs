//! What Postgres' errors mean, by their SQLSTATE and by where they arose; without words that may quote a row. No IO.

use crate::core::error::{Cause, Error, ErrorKind};
use crate::core::words;
use tokio_postgres::error::{DbError, ErrorPosition, Severity, SqlState};

/// Characters of a server's message that are shown.
const MOST_WORDS: usize = 400;

/// What Postgres said while it read rows of a table: `v::regclass` in a filter quotes the value as a name.
pub(super) fn of_rows(error: Error) -> Error {
    let Some(cause) = error.made_of::<tokio_postgres::Error>() else { return error };
    let code = cause.as_db_error().filter(|db| !is_raised(db)).map_or("", |db| db.code().code());
    let words = format!("Postgres: {}; {}", describe(cause, has_own_words_of_rows), verdict(code, "").remedy);
    error.in_words(words)
}

/// What stands behind an error: whatever Postgres says while rows are read is about one of them or their table, but for
/// the connection, resources, locks and what others cancel.
fn cause(db: &DbError) -> Cause {
    match db.code() {
        _ if is_raised(db) => Cause::Row,
        code if *code == SqlState::CHARACTER_NOT_IN_REPERTOIRE => Cause::NoUtf8,
        _ if is_of_connection(db) => Cause::Other,
        code if *code == SqlState::QUERY_CANCELED => Cause::Cancelled,
        code => cause_by_code(code.code()),
    }
}

/// By SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn cause_by_code(code: &str) -> Cause {
    let is = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
    // Temporary files have a limit of their own, which this table's rows exceed; what cannot be reached is a
    // foreign server, and a file that is not there is the table's, or a library's.
    if is(&["08", "0A", "3F", "42", "53400", "58P01"]) {
        Cause::Table
    } else if is(&["25", "40", "53", "55P03", "57", "58"]) {
        Cause::Other
    } else {
        Cause::Row
    }
}

/// The connection ends, or a pooler speaks.
fn is_of_connection(db: &DbError) -> bool {
    db.file().is_none() || matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

/// Describes a Postgres error without the DETAIL, and without words that may quote a row.
fn describe(error: &tokio_postgres::Error, has_own_words: fn(&DbError) -> bool) -> String {
    let Some(db) = error.as_db_error() else {
        return match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
    };
    let code = db.code().code();
    if has_own_words(db) {
        format!("{} (SQLSTATE {code})", words::clean(db.message(), MOST_WORDS))
    } else if is_raised(db) {
        format!("a function or trigger raised an exception, see Postgres' log (SQLSTATE {code})")
    } else {
        format!("SQLSTATE {code}, see Postgres' log")
    }
}

/// Whether a function raised it: any code and any words may stand in it. Postgres' own files are C, and those of
/// its languages begin like that.
fn is_raised(db: &DbError) -> bool {
    let languages = ["pl_", "plperl", "plpy", "pltcl"];
    let is_foreign = |file: &str| !file.ends_with(".c") || languages.iter().any(|prefix| file.starts_with(prefix));
    db.code().code().starts_with("P0") || db.file().is_some_and(|file| is_foreign(base_name(file)))
}

/// Some builds tell the whole path.
fn base_name(file: &str) -> &str {
    file.rsplit(['/', '\\']).next().unwrap_or(file)
}

/// Whether the message is about names, settings and states, and holds no value: not raised by a function, nor inside
/// of one, which may make statements out of values.
fn has_own_words(db: &DbError) -> bool {
    let code = db.code().code();
    let is = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
    // A pooler speaks without a file, of connections only.
    let is_of_server = db.file().is_some() || is(&["08", "28", "3D", "53", "57", "XX"]);
    is_of_server && !is_raised(db) && db.where_().is_none_or(is_own_context) && !is(&["22", "23"])
}

/// The same while rows are read: a cast such as `v::regclass` in a filter says of a name that it does not exist, and
/// the name is a value. The parser tells a place beside.
fn has_own_words_of_rows(db: &DbError) -> bool {
    let is_of_name = ["26", "34", "3D", "3F", "42", "58"].iter().any(|class| db.code().code().starts_with(class));
    let is_placed = matches!(db.position(), Some(ErrorPosition::Original(_)));
    let is_of_rights = db.routine().is_some_and(|routine| routine.starts_with("aclcheck_error"));
    let is_ended = matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
    has_own_words(db) && (!is_of_name || is_placed || is_of_rights || is_ended)
}

/// Whether an error arose within our own functions, or PGMQ's, and their statements only. A line names its function
/// before anything that a name of somebody else's may hold: their quotes and arguments.
fn is_own_context(context: &str) -> bool {
    let own = [" inline_code_block ", " pgflume.", " pgmq."];
    let is_own = |line: &str| {
        let named = line.split(['"', '(']).next().unwrap_or_default();
        own.iter().any(|name| named.contains(name)) || line.starts_with("SQL statement \"")
    };
    context.lines().all(is_own)
}

/// Where nobody has to do anything.
const AGAIN: &str = "it will be tried again, nothing is lost";

/// What to do about a Postgres failure.
struct Verdict {
    kind: ErrorKind,
    remedy: &'static str,
}

impl Verdict {
    fn retry(remedy: &'static str) -> Self {
        Self { kind: ErrorKind::Retry, remedy }
    }

    fn halt(remedy: &'static str) -> Self {
        Self { kind: ErrorKind::Halt, remedy }
    }

    fn side(remedy: &'static str) -> Self {
        Self { kind: ErrorKind::WholeSide, remedy }
    }
}

/// By SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn verdict(code: &str, words: &str) -> Verdict {
    match code {
        "28000" | "28P01" => Verdict::side("it refused the login: check the user and password in PGMQ_URL"),
        "3D000" => Verdict::side("check the database name in PGMQ_URL"),
        "22P05" => Verdict::halt(
            "the database's encoding lacks a character of what it was sent: use only characters that it has in \
             schema.json and in the names of tables and columns",
        ),
        "25006" => {
            Verdict::side("it is read-only: name the primary in PGMQ_URL, or switch default_transaction_read_only off")
        }
        "53100" => Verdict::side("its disk is full: make room; everything stays queued"),
        "53300" => Verdict::retry("raise max_connections or the role's limit, or use a pooler; it will be tried again"),
        "55000" => Verdict::side("name the primary in PGMQ_URL, and a database that takes connections"),
        "XX001" | "XX002" => Verdict::halt("its data is damaged: see its log and repair it, nothing is lost"),
        "42501" if words.contains("for database") => Verdict::side("grant the worker's role CONNECT on the database"),
        "42501" => Verdict::halt(
            "grant the worker's role what it needs (see `pgflume setup --print`), \
             and BYPASSRLS if the table has row-level security",
        ),
        c if c.starts_with("42") || c.starts_with("3F") => Verdict::halt("run `pgflume setup`"),
        c if c.starts_with("08") || c == "XX000" => of_pooler(words),
        "55P03" => Verdict { kind: ErrorKind::Locked, remedy: AGAIN },
        "40001" | "40P01" => Verdict { kind: ErrorKind::Overtaken, remedy: AGAIN },
        _ => Verdict::retry(AGAIN),
    }
}

/// pgbouncer and Supavisor give all their errors one SQLSTATE, and often Postgres' words, which stay as they are.
fn of_pooler(words: &str) -> Verdict {
    let words = words.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if has(&["no more connections", "connections exceeded", "max client", "too many"]) {
        Verdict::retry("raise the pooler's limit of clients; it will be tried again")
    } else if has(&["no such user", "authentication failed", "auth failed", "login failed", "not found"]) {
        Verdict::side("the pooler has no such login: check the user and password in PGMQ_URL, and the pooler's own")
    } else if has(&["no such database", "does not exist"]) {
        Verdict::side("check the database name in PGMQ_URL and in the pooler")
    } else {
        Verdict::retry(AGAIN)
    }
}

/// Postgres errors: what a new try cannot remedy is [`ErrorKind::WholeSide`] or [`ErrorKind::Halt`]; the rest passes,
/// because a Postgres transaction that failed has changed nothing.
impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let code = error.code().map(|c| c.code().to_owned()).unwrap_or_default();
        let db = error.as_db_error();
        let words = db.filter(|db| has_own_words(db)).map(DbError::message).unwrap_or_default();
        // What a function raises may have any code.
        let code = if db.is_some_and(is_raised) { "" } else { &code };
        let Verdict { kind, remedy } = verdict(code, words);
        let made = Self::new(kind, format!("Postgres: {}; {remedy}", describe(&error, has_own_words)));
        let made = match db {
            Some(db) => made.of_postgres(db.code().code(), cause(db)),
            None => made,
        };
        made.caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_has_its_kind_and_remedy() {
        use ErrorKind::{Halt, Locked, Overtaken, Retry, WholeSide};
        let cases = [
            ("28P01", "password authentication failed for user \"x\"", WholeSide, "PGMQ_URL"),
            ("28000", "no pg_hba.conf entry", WholeSide, "PGMQ_URL"),
            ("3D000", "database \"x\" does not exist", WholeSide, "database name"),
            ("42501", "permission denied for database \"x\"", WholeSide, "CONNECT"),
            ("42501", "permission denied for table x", Halt, "setup --print"),
            ("42P01", "relation \"x\" does not exist", Halt, "pgflume setup"),
            ("3F000", "schema \"x\" does not exist", Halt, "pgflume setup"),
            ("25006", "cannot execute UPDATE in a read-only transaction", WholeSide, "primary"),
            ("55000", "database \"x\" is not currently accepting connections", WholeSide, "takes connections"),
            ("22P05", "has no equivalent in encoding \"LATIN1\"", Halt, "encoding lacks"),
            ("53100", "could not extend file", WholeSide, "make room"),
            ("53200", "out of memory", Retry, "tried again"),
            ("53300", "sorry, too many clients already", Retry, "max_connections"),
            ("57P01", "terminating connection due to administrator command", Retry, "tried again"),
            ("57P02", "terminating connection because of crash", Retry, "tried again"),
            ("57P03", "the database system is starting up", Retry, "tried again"),
            ("57014", "canceling statement due to statement timeout", Retry, "tried again"),
            ("55P03", "could not obtain lock on row", Locked, "tried again"),
            ("40P01", "deadlock detected", Overtaken, "tried again"),
            ("40001", "could not serialize access", Overtaken, "tried again"),
            ("08006", "connection failure", Retry, "tried again"),
            ("XX000", "cache lookup failed", Retry, "tried again"),
            ("XX001", "invalid page in block 1", Halt, "damaged"),
            ("58030", "could not read block", Retry, "tried again"),
            ("", "", Retry, "tried again"),
        ];
        for (code, words, kind, remedy) in cases {
            let verdict = verdict(code, words);
            assert_eq!(verdict.kind, kind, "{code} {words}");
            assert!(verdict.remedy.contains(remedy), "{code}: {}", verdict.remedy);
        }
    }

    #[test]
    fn a_strangers_function_is_not_taken_for_ours_by_its_name() {
        for own in [
            "PL/pgSQL function pgflume.catalog_state(text[],text[],text,text,text) line 4 at RETURN",
            "PL/pgSQL-Funktion pgmq.send(text,jsonb) Zeile 5 bei SQL-Anweisung",
            "SQL statement \"select x\"\nPL/pgSQL function inline_code_block line 3 at EXECUTE",
        ] {
            assert!(is_own_context(own), "{own}");
        }
        for strange in [
            "PL/pgSQL function public.\"a pgflume.b\"(integer) line 3 at RAISE",
            "PL/pgSQL function \"s pgmq.\".f(integer) line 3 at RAISE",
            "PL/pgSQL function public.f(\" pgflume.t\") line 3 at RAISE",
            "SQL function \"f pgflume.\" statement 1",
            "SQL statement \"select pgflume.x()\"\nPL/pgSQL function public.f(integer) line 3 at RAISE",
        ] {
            assert!(!is_own_context(strange), "{strange}");
        }
    }

    #[test]
    fn poolers_are_told_by_their_words() {
        use ErrorKind::{Retry, WholeSide};
        let cases = [
            ("no more connections allowed (max_client_conn)", Retry, "limit of clients"),
            ("client connections exceeded (max_db_client_connections)", Retry, "limit of clients"),
            ("(EMAXCONN) max client connections reached, limit: 200", Retry, "limit of clients"),
            ("Max client connections reached", Retry, "limit of clients"),
            ("query_wait_timeout", Retry, "tried again"),
            ("server conn crashed?", Retry, "tried again"),
            ("pgbouncer cannot connect to server", Retry, "tried again"),
            ("server login has been failing, cached error: connect failed (server_login_retry)", Retry, "tried again"),
            (
                "server login has been failing, cached error: password authentication failed for user \"x\" (server_login_retry)",
                WholeSide,
                "password",
            ),
            ("server login has been failing, cached error: database \"x\" does not exist", WholeSide, "database name"),
            ("no such user: x", WholeSide, "password"),
            ("no such database: x", WholeSide, "database name"),
            ("SASL authentication failed", WholeSide, "password"),
            ("Tenant or user not found", WholeSide, "password"),
            ("(ENOTFOUND) tenant/user postgres.x not found", WholeSide, "password"),
        ];
        for (words, kind, remedy) in &cases {
            for code in ["08P01", "XX000"] {
                let verdict = verdict(code, words);
                assert_eq!(verdict.kind, *kind, "{words}");
                assert!(verdict.remedy.contains(remedy), "{words}: {}", verdict.remedy);
            }
        }
    }

    #[test]
    fn what_is_no_matter_of_connections_resources_or_locks_is_one_of_rows() {
        let cases = [
            (Cause::Row, &["22012", "22P02", "22021", "23514", "2F005", "38000", "39P01", "54000", "54001"][..]),
            (Cause::Row, &["ABC01", "P0001", "P0004", "XX000", "XX001", "XX002", "21000", "55000", "28P01"]),
            (Cause::Table, &["42501", "42883", "42P01", "42804", "0A000", "3F000", "53400", "08001", "58P01"]),
            (Cause::Other, &["25006", "25P02", "40001", "40P01", "53100", "53200", "55P03", "57P01", "58030"]),
        ];
        for (cause, codes) in cases {
            for code in codes {
                assert_eq!(cause_by_code(code), cause, "{code}");
            }
        }
    }
}
