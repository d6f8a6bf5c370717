//! What a client is told of a key that batches have touched. No IO.

/// What a message has a client do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It has no such row.
    Insert,
    /// It has the row, as it was.
    Update,
    /// It has the row; or it may have it, while it walks.
    Delete,
}

impl Operation {
    /// As clients read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// What brings a client from one state of a key to another: whether a row of its shape was there when it last heard of it,
/// and whether one is there now. `may_lack`: it walked through the rows meanwhile, and may not have come by this one.
pub fn operations(was: bool, is: bool, may_lack: bool) -> &'static [Operation] {
    match (was, is) {
        (true, true) if may_lack => &[Operation::Delete, Operation::Insert],
        (true, true) => &[Operation::Update],
        (true, false) => &[Operation::Delete],
        (false, true) => &[Operation::Insert],
        (false, false) => &[],
    }
}
