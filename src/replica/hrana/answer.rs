//! What a server answers to a batch.

use crate::core::value::Cell;
use crate::core::words;
use std::collections::HashMap;

/// Longest code of a server's error that is kept, in characters: SQLite's have 40 at most.
const CODE_CHARS: usize = 64;

/// Longest message, in characters.
const MESSAGE_CHARS: usize = 1_000;

/// A server's error, in words that may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Like `SQLITE_CONSTRAINT`.
    pub code: String,
    /// Its words; may quote SQL.
    pub message: String,
}

impl Failure {
    /// Bounded, and without what could forge a line of the log.
    pub fn new(code: &str, message: &str) -> Self {
        Self { code: words::clean(code, CODE_CHARS), message: words::clean(message, MESSAGE_CHARS) }
    }
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Rows of the steps that ran.
    pub results: HashMap<u32, Vec<Vec<Cell>>>,
    /// The first step that failed.
    pub error: Option<(u32, Failure)>,
}

/// Why a body is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not Hrana: {0}")]
pub struct Garbled(pub(super) String);
