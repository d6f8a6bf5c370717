//! What of a table clients may write: the member `writable` of its definition. No IO.

use super::names::SourceName;

/// What clients may do to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writable {
    /// Columns that they may set, beside those of the key, which they give with each change.
    pub columns: Vec<String>,
    /// What they may do.
    pub ops: Vec<Op>,
    /// What becomes of a change whose row has changed meanwhile.
    pub conflict: Conflict,
    /// It is meant to have no row-level security.
    pub unchecked: bool,
}

/// One kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A new row.
    Insert,
    /// Other values in a row.
    Update,
    /// The end of a row.
    Delete,
}

impl Op {
    const ALL: [Self; 3] = [Self::Insert, Self::Update, Self::Delete];

    /// Its name, in `schema.json` and in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }
}

/// Who wins where a row is not as the client knew it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Both, unless they set the same column.
    Merge,
    /// Whoever was there first.
    ServerWins,
    /// The client.
    ClientWins,
    /// The later one, by the times in this column.
    LastWriteWins {
        /// A column of type timestamptz, which each change sets.
        stamp: String,
    },
    /// A function of the operator's decides.
    Custom {
        /// `f(base jsonb, now jsonb, wanted jsonb) returns jsonb`.
        function: SourceName,
    },
}
