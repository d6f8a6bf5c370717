//! Who asks, as a token that was checked says. No IO.

use crate::core::claims::Claims;
use std::time::{Duration, SystemTime};

/// How long a token that was found good is not checked again: it may be revoked.
pub(super) const KEPT: Duration = Duration::from_secs(60);

/// Who asks.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// What the token says.
    pub claims: Claims,
    /// Until when.
    pub until: SystemTime,
}

impl Bearer {
    /// How long the token is good for from now on.
    pub fn rest(&self) -> Duration {
        self.until.duration_since(SystemTime::now()).unwrap_or_default()
    }
}

/// Why nobody is known by a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It has no token, or a wrong one: what is wrong, behind "the token".
    Token(&'static str),
    /// Whether it is good cannot be known now.
    Unknown,
}
