//! Why a request of a client has no result. No IO.

use crate::core::error::Error;

/// Why a request has no result.
#[derive(Debug)]
pub enum Failure {
    /// Nothing is known to be done: the same request again, with the same key.
    Again(Error),
    /// The token may not write. What is wrong with it.
    Forbidden(&'static str),
    /// The key stands for another request, or belongs to somebody else.
    KeyTaken,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Again(error)
    }
}
