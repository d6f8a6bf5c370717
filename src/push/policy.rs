//! What a change is compared with before it is applied: the table's policy, as far as it concerns it. No IO.

use super::change::Change;
use crate::core::schema::{Conflict, Op, SourceName};

/// What has to hold of a row so that a change of it is applied.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Guard<'a> {
    /// Nothing: it is there.
    Nothing,
    /// These columns are as the client knew them.
    Unchanged {
        /// The columns.
        columns: &'a [String],
        /// Or as it wants them: two who write the same are of one mind.
        or_wanted: bool,
    },
    /// The time in this column is not later than the change's.
    NotLater(&'a str),
    /// What the operator's function says.
    Asks(&'a SourceName),
}

/// The guard of a change of a row that is there.
pub(super) fn guard(change: &Change) -> Guard<'_> {
    let base = change.base.as_ref().map(|base| base.columns.as_slice()).unwrap_or_default();
    match (&change.writable.conflict, change.op) {
        (_, Op::Insert) | (Conflict::ClientWins, _) => Guard::Nothing,
        (Conflict::LastWriteWins { stamp }, _) => Guard::NotLater(stamp),
        (Conflict::Custom { function }, _) => Guard::Asks(function),
        (Conflict::Merge, Op::Update) => Guard::Unchanged { columns: &change.set, or_wanted: true },
        // Whoever deletes a row may say what they have seen of it.
        (Conflict::Merge, Op::Delete) | (Conflict::ServerWins, _) => {
            Guard::Unchanged { columns: base, or_wanted: false }
        }
    }
}

/// The column of the time that a change carries, where the later one wins.
pub(super) fn stamp(change: &Change) -> Option<&str> {
    match &change.writable.conflict {
        Conflict::LastWriteWins { stamp } => Some(stamp),
        _ => None,
    }
}

/// Whether a change says all that its table's policy goes by. The error: which part, and what is wrong with it.
pub(super) fn check(change: &Change) -> Result<(), (String, String)> {
    let wrong = |part: String, problem: &str| Err((part, problem.to_owned()));
    let is_more = |name: &&String| Some(name.as_str()) != stamp(change);
    match change.op {
        Op::Insert if change.base.is_some() => return wrong("base".into(), "is for rows that are there"),
        Op::Delete if change.set.iter().any(|name| is_more(&name)) => {
            return wrong("set".into(), "is for rows that stay");
        }
        _ => {}
    }
    let needs_base = match (&change.writable.conflict, change.op) {
        (Conflict::Merge, op) => op == Op::Update,
        (Conflict::ServerWins, op) => op != Op::Insert,
        _ => false,
    };
    match &change.base {
        None if needs_base => wrong("base".into(), "is missing: it says what the client knew of the row"),
        Some(base) if needs_base => match change.set.iter().find(|name| !base.columns.contains(name)) {
            Some(name) => wrong(format!("base.{name}"), "is missing: it is set, so say what it was"),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}
