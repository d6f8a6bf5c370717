//! Of which tables the binlog has to tell, and what follows from their rows without its telling. No IO.

use crate::mysql::binlog::Layout;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A table of which events are of interest.
#[derive(Debug, Clone, Default)]
pub(super) struct Watched {
    /// By which names it is replicated, and how its rows stand in the log.
    pub targets: Vec<(Arc<str>, Layout)>,
    /// What follows from its rows.
    pub parent: Option<Parent>,
}

/// What the log does not tell of rows that follow others.
#[derive(Debug, Clone, Default)]
pub(super) struct Parent {
    /// How rows stand in the log; `None` where that is not known.
    pub layout: Option<Layout>,
    /// What follows when rows go.
    pub on_delete: Following,
    /// What follows when they get other keys.
    pub on_update: Following,
}

/// Tables that follow another.
#[derive(Debug, Clone, Default)]
pub(super) struct Following {
    /// They lose rows.
    pub counted: BTreeSet<Arc<str>>,
    /// Their rows change.
    pub changed: BTreeSet<Arc<str>>,
}

impl Following {
    pub fn is_empty(&self) -> bool {
        self.counted.is_empty() && self.changed.is_empty()
    }
}
