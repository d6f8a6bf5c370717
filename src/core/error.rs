//! What may go wrong, as one enum. The kind is decided where the error arises, because only there is it known whether
//! anything was applied; whoever catches it decides by the kind, and where rows of Postgres were read, by what it said.

use crate::core::words;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// What a failure is about, and so what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nothing was applied; the same thing may simply be tried again.
    Retry,
    /// It is not known whether it was applied: read the replica's head, then go on from what it says.
    Unknown,
    /// As [`Unknown`](Self::Unknown), and it took long, or more memory than there was: a smaller request may pass.
    Overload,
    /// Somebody else has a lock that was needed, and it was not waited for, or not for longer: nothing was applied.
    Locked,
    /// Somebody else was quicker: nothing was applied, and a new snapshot is needed.
    Overtaken,
    /// The target takes no request of that size: split; a row that stands alone is treated as [`Row`](Self::Row).
    TooLarge,
    /// The target cannot take this row, and never will: split, then dead-letter it.
    Row,
    /// The target lacks a table or a column that the statement names, or it differs: cut it between tables.
    Schema,
    /// This table cannot be read, or takes nothing: its changes wait, others can go on without it.
    Table {
        /// Its name in `schema.json`.
        name: String,
        /// Who has trouble with it.
        side: Side,
    },
    /// The whole source or target, until somebody acts (credentials, quota, a full disk): whatever is tried there fails
    /// in the same way.
    WholeSide,
    /// Somebody has to act, and both sides answer: keep everything where it is and say what to do.
    Halt,
}

/// One of the two that are kept equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Postgres.
    Source,
    /// libSQL.
    Target,
}

/// Longest time that a server may ask for before it is tried again: it may be wrong.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// What Postgres fails at while rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A row that was read, or something that a function raised at it.
    Row,
    /// The table of which rows were read: the same is said of each row.
    Table,
    /// The statement was cancelled: by its limit, or by somebody.
    Cancelled,
    /// A text is no UTF-8.
    NoUtf8,
    /// None of these: connections, resources, rights, locks.
    Other,
}

/// A failure with its kind. The message is for operators: it ends with the remedy and holds neither
/// secrets nor row values.
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
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
        let Self { kind, message, postgres, retry_after, source: _ } = self;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("message", message)
            .field("postgres", postgres)
            .field("retry_after", retry_after)
            .finish_non_exhaustive()
    }
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        // Names and words from outside are in many of them.
        let message = words::clean_list(&message.into(), words::ERROR_CHARS);
        Self { kind, message, postgres: None, retry_after: None, source: None }
    }

    /// Nothing was applied; try again.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Retry, message)
    }

    /// The outcome is unknown.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unknown, message)
    }

    /// The row cannot be applied.
    pub fn reject(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Row, message)
    }

    /// The whole source or target refuses until somebody acts.
    pub fn side(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::WholeSide, message)
    }

    /// Somebody has to act.
    pub(crate) fn halt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Halt, message)
    }

    /// Keeps the cause for whoever wants to look at its type; it is never printed.
    #[must_use]
    pub(crate) fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Postgres said it, under this SQLSTATE.
    #[must_use]
    pub fn of_postgres(self, sqlstate: &str, cause: Cause) -> Self {
        Self { postgres: Some((sqlstate.into(), cause)), ..self }
    }

    /// Concerns this table only, of which this side has trouble: others can go on without it.
    #[must_use]
    pub fn of_table(self, name: &str, side: Side) -> Self {
        Self { kind: ErrorKind::Table { name: name.to_owned(), side }, ..self }
    }

    /// Concerns the whole source or target, if somebody has to act at all.
    #[must_use]
    pub(crate) fn of_side(self) -> Self {
        let kind = if self.needs_operator() { ErrorKind::WholeSide } else { self.kind };
        Self { kind, ..self }
    }

    /// Not to be tried again before so much time has passed.
    #[must_use]
    pub(crate) fn come_back_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait.min(MOST_RETRY_AFTER)), ..self }
    }

    /// When it may be tried again, where somebody said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What it is about, which decides what happens next.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Whether it may pass by itself.
    pub(crate) fn is_passing(&self) -> bool {
        use ErrorKind::{Locked, Overload, Overtaken, Retry, Unknown};
        matches!(self.kind, Retry | Unknown | Overload | Locked | Overtaken)
    }

    /// Whether the target took none of the rows that it was given because of one of them, or of their number.
    pub(crate) fn is_rejection(&self) -> bool {
        matches!(self.kind, ErrorKind::Row | ErrorKind::TooLarge)
    }

    /// Whether somebody has to act before it can succeed.
    pub fn needs_operator(&self) -> bool {
        !self.is_passing() && !self.is_rejection()
    }

    /// The SQLSTATE, if Postgres said it.
    pub fn sqlstate(&self) -> Option<&str> {
        self.postgres.as_ref().map(|(sqlstate, _)| &**sqlstate)
    }

    /// Whether somebody else has a lock that was needed.
    pub fn is_locked(&self) -> bool {
        self.kind == ErrorKind::Locked
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
