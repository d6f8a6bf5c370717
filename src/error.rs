//! The four classes of failure. The class is decided where the error arises, because only there is it
//! known whether anything was applied; whoever catches it decides by the class alone.

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

/// A failure with its class. The message is for operators: it ends with the mend and holds neither
/// secrets nor row values.
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct Error {
    class: Class,
    message: String,
    /// The table that it concerns and leaves others alone.
    table: Option<String>,
    /// A smaller request might have passed.
    is_of_size: bool,
    /// The whole source or target: whatever is tried there fails in the same way.
    is_of_side: bool,
    /// When it may be tried again, where somebody said so.
    retry_after: Option<Duration>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Without the cause: Postgres' DETAIL holds row values.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, message, table, is_of_size, is_of_side, retry_after, source: _ } = self;
        f.debug_struct("Error")
            .field("class", class)
            .field("message", message)
            .field("table", table)
            .field("is_of_size", is_of_size)
            .field("is_of_side", is_of_side)
            .field("retry_after", retry_after)
            .finish_non_exhaustive()
    }
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `class`.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            table: None,
            is_of_size: false,
            is_of_side: false,
            retry_after: None,
            source: None,
        }
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

    /// Concerns this table only: others can go on without it.
    #[must_use]
    pub fn of_table(mut self, table: &str) -> Self {
        self.table = Some(table.to_owned());
        self
    }

    /// A smaller request might have passed.
    #[must_use]
    pub fn of_size(mut self) -> Self {
        self.is_of_size = true;
        self
    }

    /// Concerns the whole source or target: whatever is tried there fails in the same way.
    #[must_use]
    pub fn of_side(mut self) -> Self {
        self.is_of_side = true;
        self
    }

    /// Not to be tried again before so much time has passed.
    #[must_use]
    pub fn come_back_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait.min(MOST_RETRY_AFTER));
        self
    }

    /// Whether it concerns the whole source or target.
    pub fn is_of_side(&self) -> bool {
        self.is_of_side
    }

    /// When it may be tried again, where somebody said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether a smaller request might have passed.
    pub fn is_of_size(&self) -> bool {
        self.is_of_size
    }

    /// The one table that it concerns.
    pub fn table(&self) -> Option<&str> {
        self.table.as_deref()
    }

    /// The class that decides what happens next.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Whether Postgres asks for a new snapshot (SQLSTATE 40001 or 40P01).
    pub fn wants_new_snapshot(&self) -> bool {
        use tokio_postgres::error::SqlState;
        self.sql_state()
            .is_some_and(|s| *s == SqlState::T_R_SERIALIZATION_FAILURE || *s == SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// The SQLSTATE, if Postgres raised this.
    pub fn sql_state(&self) -> Option<&tokio_postgres::error::SqlState> {
        self.source.as_ref()?.downcast_ref::<tokio_postgres::Error>()?.code()
    }
}

/// Describes a Postgres error without the DETAIL and without messages that may quote row values
/// (SQLSTATE classes 22 and 23, and whatever a user's function raises).
fn describe(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else {
        return match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
    };
    let code = db.code().code();
    if code.starts_with("22") || code.starts_with("23") {
        format!("SQLSTATE {code}")
    } else if code == "P0001" {
        format!("a function or trigger raised an exception, see Postgres' log (SQLSTATE {code})")
    } else {
        format!("{} (SQLSTATE {code})", db.message())
    }
}

/// Postgres errors: what a new try cannot mend is `Halt`, the rest is `Retry`, because a Postgres
/// transaction that failed has changed nothing.
impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let code = error.code().map(|c| c.code().to_owned()).unwrap_or_default();
        let text = describe(&error);
        let made = match code.as_str() {
            "28000" | "28P01" => {
                Self::halt(format!("Postgres refused the login: {text}; check the user and password in PGMQ_URL"))
            }
            "3D000" => Self::halt(format!("Postgres: {text}; check the database name in PGMQ_URL")),
            "42501" => Self::halt(format!(
                "Postgres: {text}; grant the worker's role what it needs (see `pgflume setup --print`), \
                 and BYPASSRLS if the table has row-level security"
            )),
            c if c.starts_with("42") || c.starts_with("3F") => {
                Self::halt(format!("Postgres: {text}; run `pgflume setup`"))
            }
            _ => Self::retry(format!("Postgres: {text}; it will be tried again, nothing is lost")),
        };
        made.caused_by(error)
    }
}
