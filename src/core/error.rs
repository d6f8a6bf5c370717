//! The four classes of failure. The class is decided where the error arises, because only there is it
//! known whether anything was applied; whoever catches it decides by the class alone.

use crate::core::words;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

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

/// What stands behind a failure of Postgres, as far as a step decides by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A row that was read, or something that a function raised at it.
    Row,
    /// The table of which rows were read: the same is said of each row.
    Table,
    /// The statement was cancelled: by its limit, or by somebody.
    Cancelled,
    /// Somebody else has a lock that was needed (55P03).
    Locked,
    /// Somebody else was quicker: a new snapshot is needed (40001, 40P01).
    Overtaken,
    /// A text is no UTF-8.
    NoUtf8,
    /// None of these: connections, resources, rights.
    Other,
}

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
    /// What Postgres said, if it did: the SQLSTATE and what it stands for.
    postgres: Option<(Box<str>, Cause)>,
    /// When it may be tried again, where somebody said so.
    retry_after: Option<Duration>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Without the cause: Postgres' DETAIL holds row values.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, message, scope, postgres, retry_after, source: _ } = self;
        f.debug_struct("Error")
            .field("class", class)
            .field("message", message)
            .field("scope", scope)
            .field("postgres", postgres)
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
        Self { class, message, scope: Scope::Any, postgres: None, retry_after: None, source: None }
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

    /// Postgres said it, under this SQLSTATE.
    #[must_use]
    pub fn of_postgres(self, sqlstate: &str, cause: Cause) -> Self {
        Self { postgres: Some((sqlstate.into(), cause)), ..self }
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

    /// The SQLSTATE, if Postgres said it.
    pub fn sqlstate(&self) -> Option<&str> {
        self.postgres.as_ref().map(|(sqlstate, _)| &**sqlstate)
    }

    /// Whether somebody else has a lock that was needed.
    pub fn is_locked(&self) -> bool {
        self.sqlstate() == Some("55P03")
    }

    /// What stands behind it, if Postgres said it.
    pub fn cause(&self) -> Option<Cause> {
        self.postgres.as_ref().map(|(_, cause)| *cause)
    }

    /// What it was made of.
    pub(crate) fn made_of<T: StdError + 'static>(&self) -> Option<&T> {
        self.source.as_ref()?.downcast_ref()
    }

    /// The same in other words.
    #[must_use]
    pub(crate) fn in_words(self, message: String) -> Self {
        Self { message, ..self }
    }
}
