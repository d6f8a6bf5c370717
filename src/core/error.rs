//! The four classes of failure. The class is decided where the error arises, because only there is it
//! known whether anything was applied; whoever catches it decides by the class alone.

use crate::core::words;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;
use tokio_postgres::error::{DbError, ErrorPosition, Severity};

/// What the caller should do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Nothing was applied; the same thing may simply be tried again.
    Retry,
    /// It is not known whether it was applied: read the replica's head, then go on from what it says.
    Unknown,
    /// The target cannot take this row, and never will: split, then dead-letter it.
    Reject,
    /// Going on would not help (credentials, quota, a missing table, a replaced database): keep
    /// everything where it is and tell the operator what to do.
    Halt,
}

/// Longest time that a server may ask for before it is tried again: it may be wrong.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// Characters of a server's message that are shown.
const MOST_WORDS: usize = 400;

/// How far a failure reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Scope {
    /// Nobody knows.
    #[default]
    Any,
    /// The request: a smaller one might have passed.
    Size,
    /// The whole source or target: whatever is tried there fails in the same way.
    Side,
    /// A table or column that the target lacks.
    Schema,
    /// This table, which the source cannot give; others can go on without it.
    Table(String),
    /// This table, of which the target takes nothing: none of its messages may be taken.
    TargetTable(String),
}

/// A failure with its class. The message is for operators: it ends with the remedy and holds neither
/// secrets nor row values.
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct Error {
    class: Class,
    message: String,
    scope: Scope,
    /// When it may be tried again, where somebody said so.
    retry_after: Option<Duration>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Without the cause: Postgres' DETAIL holds row values.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, message, scope, retry_after, source: _ } = self;
        f.debug_struct("Error")
            .field("class", class)
            .field("message", message)
            .field("scope", scope)
            .field("retry_after", retry_after)
            .finish_non_exhaustive()
    }
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `class`.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        // Names and words from outside are in many of them.
        let message = words::clean_list(&message.into(), words::ERROR_CHARS);
        Self { class, message, scope: Scope::Any, retry_after: None, source: None }
    }

    /// Nothing was applied; try again.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(Class::Retry, message)
    }

    /// The outcome is unknown.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Class::Unknown, message)
    }

    /// The row cannot be applied.
    pub fn reject(message: impl Into<String>) -> Self {
        Self::new(Class::Reject, message)
    }

    /// Somebody has to act.
    pub fn halt(message: impl Into<String>) -> Self {
        Self::new(Class::Halt, message)
    }

    /// Keeps the cause for whoever wants to look at its type; it is never printed.
    #[must_use]
    pub fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    fn with(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// Concerns this table of the source only: others can go on without it.
    #[must_use]
    pub fn of_table(self, table: &str) -> Self {
        self.with(Scope::Table(table.to_owned()))
    }

    /// The target cannot take changes of this table: none of its messages may be taken.
    #[must_use]
    pub fn of_target_table(self, table: &str) -> Self {
        self.with(Scope::TargetTable(table.to_owned()))
    }

    /// A smaller request might have passed.
    #[must_use]
    pub fn of_size(self) -> Self {
        self.with(Scope::Size)
    }

    /// Concerns the whole source or target: whatever is tried there fails in the same way.
    #[must_use]
    pub fn of_side(self) -> Self {
        self.with(Scope::Side)
    }

    /// The target lacks a table or a column that the statement names.
    #[must_use]
    pub fn of_schema(self) -> Self {
        self.with(Scope::Schema)
    }

    /// Not to be tried again before so much time has passed.
    #[must_use]
    pub fn come_back_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait.min(MOST_RETRY_AFTER)), ..self }
    }

    /// When it may be tried again, where somebody said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether a smaller request might have passed.
    pub fn is_of_size(&self) -> bool {
        self.scope == Scope::Size
    }

    /// Whether it concerns the whole source or target.
    pub fn is_of_side(&self) -> bool {
        self.scope == Scope::Side
    }

    /// Whether the target lacks a table or a column.
    pub fn is_of_schema(&self) -> bool {
        self.scope == Scope::Schema
    }

    /// Whether it is the target that has trouble with its table.
    pub fn is_of_target(&self) -> bool {
        matches!(self.scope, Scope::TargetTable(_))
    }

    /// The one table that it concerns.
    pub fn table(&self) -> Option<&str> {
        match &self.scope {
            Scope::Table(table) | Scope::TargetTable(table) => Some(table),
            _ => None,
        }
    }

    /// The class that decides what happens next.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Whether Postgres asks for a new snapshot (SQLSTATE 40001 or 40P01).
    pub fn wants_new_snapshot(&self) -> bool {
        use tokio_postgres::error::SqlState;
        self.sql_state()
            .filter(|_| !self.is_raised())
            .is_some_and(|s| *s == SqlState::T_R_SERIALIZATION_FAILURE || *s == SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// The SQLSTATE, if Postgres raised this.
    pub fn sql_state(&self) -> Option<&tokio_postgres::error::SqlState> {
        self.of_postgres().map(DbError::code)
    }

    /// What Postgres said while it read rows of a table: `v::regclass` in a filter quotes the value as a name.
    #[must_use]
    pub(crate) fn of_rows(mut self) -> Self {
        if let Some(cause) = self.source.as_ref().and_then(|source| source.downcast_ref::<tokio_postgres::Error>()) {
            let code = cause.as_db_error().filter(|db| !is_raised(db)).map_or("", |db| db.code().code());
            let remedy = verdict(code, "").remedy;
            self.message = format!("Postgres: {}; {remedy}", describe(cause, has_own_words_of_rows));
        }
        self
    }

    /// What Postgres said, if it did.
    pub(crate) fn of_postgres(&self) -> Option<&DbError> {
        self.source.as_ref()?.downcast_ref::<tokio_postgres::Error>()?.as_db_error()
    }

    /// Whether a function raised it, so that its code says nothing.
    pub(crate) fn is_raised(&self) -> bool {
        self.of_postgres().is_some_and(is_raised)
    }
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

/// What to do about a Postgres failure.
struct Verdict {
    class: Class,
    is_of_side: bool,
    remedy: &'static str,
}

/// By SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn verdict(code: &str, words: &str) -> Verdict {
    let of_side = |remedy| Verdict { class: Class::Halt, is_of_side: true, remedy };
    let halt = |remedy| Verdict { class: Class::Halt, is_of_side: false, remedy };
    let retry = |remedy| Verdict { class: Class::Retry, is_of_side: false, remedy };
    match code {
        "28000" | "28P01" => of_side("it refused the login: check the user and password in PGMQ_URL"),
        "3D000" => of_side("check the database name in PGMQ_URL"),
        "22P05" => halt(
            "the database's encoding lacks a character of what it was sent: use only characters that it has in \
             schema.json and in the names of tables and columns",
        ),
        "25006" => {
            of_side("it is read-only: name the primary in PGMQ_URL, or switch default_transaction_read_only off")
        }
        "53100" => of_side("its disk is full: make room; everything stays queued"),
        "53300" => retry("raise max_connections or the role's limit, or use a pooler; it will be tried again"),
        "55000" => of_side("name the primary in PGMQ_URL, and a database that takes connections"),
        "XX001" | "XX002" => halt("its data is damaged: see its log and mend it, nothing is lost"),
        "42501" if words.contains("for database") => of_side("grant the worker's role CONNECT on the database"),
        "42501" => halt(
            "grant the worker's role what it needs (see `pgflume setup --print`), \
             and BYPASSRLS if the table has row-level security",
        ),
        c if c.starts_with("42") || c.starts_with("3F") => halt("run `pgflume setup`"),
        c if c.starts_with("08") || c == "XX000" => of_pooler(words),
        _ => retry("it will be tried again, nothing is lost"),
    }
}

/// pgbouncer and Supavisor give all their errors one SQLSTATE, and often Postgres' words, which stay as they are.
fn of_pooler(words: &str) -> Verdict {
    let words = words.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    let of_side = |remedy| Verdict { class: Class::Halt, is_of_side: true, remedy };
    let retry = |remedy| Verdict { class: Class::Retry, is_of_side: false, remedy };
    if has(&["no more connections", "connections exceeded", "max client", "too many"]) {
        retry("raise the pooler's limit of clients; it will be tried again")
    } else if has(&["no such user", "authentication failed", "auth failed", "login failed", "not found"]) {
        of_side("the pooler has no such login: check the user and password in PGMQ_URL, and the pooler's own")
    } else if has(&["no such database", "does not exist"]) {
        of_side("check the database name in PGMQ_URL and in the pooler")
    } else {
        retry("it will be tried again, nothing is lost")
    }
}

/// Postgres errors: what a new try cannot remedy is `Halt`, the rest is `Retry`, because a Postgres
/// transaction that failed has changed nothing.
impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let code = error.code().map(|c| c.code().to_owned()).unwrap_or_default();
        let db = error.as_db_error();
        let words = db.filter(|db| has_own_words(db)).map(DbError::message).unwrap_or_default();
        // What a function raises may have any code.
        let code = if db.is_some_and(is_raised) { "" } else { &code };
        let Verdict { class, is_of_side, remedy } = verdict(code, words);
        let made = Self::new(class, format!("Postgres: {}; {remedy}", describe(&error, has_own_words)));
        let made = if is_of_side { made.of_side() } else { made };
        made.caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_has_its_class_and_mend() {
        use Class::{Halt, Retry};
        let cases = [
            ("28P01", "password authentication failed for user \"x\"", Halt, true, "PGMQ_URL"),
            ("28000", "no pg_hba.conf entry", Halt, true, "PGMQ_URL"),
            ("3D000", "database \"x\" does not exist", Halt, true, "database name"),
            ("42501", "permission denied for database \"x\"", Halt, true, "CONNECT"),
            ("42501", "permission denied for table x", Halt, false, "setup --print"),
            ("42P01", "relation \"x\" does not exist", Halt, false, "pgflume setup"),
            ("3F000", "schema \"x\" does not exist", Halt, false, "pgflume setup"),
            ("25006", "cannot execute UPDATE in a read-only transaction", Halt, true, "primary"),
            ("55000", "database \"x\" is not currently accepting connections", Halt, true, "takes connections"),
            ("22P05", "has no equivalent in encoding \"LATIN1\"", Halt, false, "encoding lacks"),
            ("53100", "could not extend file", Halt, true, "make room"),
            ("53200", "out of memory", Retry, false, "tried again"),
            ("53300", "sorry, too many clients already", Retry, false, "max_connections"),
            ("57P01", "terminating connection due to administrator command", Retry, false, "tried again"),
            ("57P02", "terminating connection because of crash", Retry, false, "tried again"),
            ("57P03", "the database system is starting up", Retry, false, "tried again"),
            ("57014", "canceling statement due to statement timeout", Retry, false, "tried again"),
            ("40001", "could not serialize access", Retry, false, "tried again"),
            ("08006", "connection failure", Retry, false, "tried again"),
            ("XX000", "cache lookup failed", Retry, false, "tried again"),
            ("XX001", "invalid page in block 1", Halt, false, "damaged"),
            ("58030", "could not read block", Retry, false, "tried again"),
            ("", "", Retry, false, "tried again"),
        ];
        for (code, words, class, is_of_side, remedy) in cases {
            let verdict = verdict(code, words);
            assert_eq!((verdict.class, verdict.is_of_side), (class, is_of_side), "{code} {words}");
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
        use Class::{Halt, Retry};
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
                Halt,
                "password",
            ),
            ("server login has been failing, cached error: database \"x\" does not exist", Halt, "database name"),
            ("no such user: x", Halt, "password"),
            ("no such database: x", Halt, "database name"),
            ("SASL authentication failed", Halt, "password"),
            ("Tenant or user not found", Halt, "password"),
            ("(ENOTFOUND) tenant/user postgres.x not found", Halt, "password"),
        ];
        for (words, class, remedy) in cases {
            for code in ["08P01", "XX000"] {
                let verdict = verdict(code, words);
                assert_eq!((verdict.class, verdict.is_of_side), (class, class == Halt), "{words}");
                assert!(verdict.remedy.contains(remedy), "{words}: {}", verdict.remedy);
            }
        }
    }
}
