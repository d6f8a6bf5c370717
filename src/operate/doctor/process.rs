//! What the worker's own settings say.

use super::finding::Finding;
use crate::core::codes;
use crate::core::secret::Secret;
use crate::postgres::PgUrl;
use std::time::Duration;

/// Shorter ones can be guessed.
const SECRET_BYTES: usize = 16;

/// What this process would be started with.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// `WEBHOOK_SIGNATURE`, if it is set.
    pub signature: Option<Secret>,
    /// Whether anything says how clients' tokens are checked.
    pub has_tokens: bool,
    /// `PUSH_URL`, if it is set.
    pub push: Option<PgUrl>,
    /// How long the log of changes is kept that clients are fed from; `None`: as long as is usual.
    pub feed_retention: Option<Duration>,
}

impl Process {
    pub(super) fn secret(&self) -> Option<&str> {
        self.signature.as_ref().map(Secret::expose)
    }

    pub(super) fn examine(&self, postgres: &PgUrl) -> Vec<Finding> {
        let command = "openssl rand -hex 32";
        let mut found = Vec::new();
        match self.secret() {
            None => found.push(
                Finding::new(&codes::SECRET_MISSING, "WEBHOOK_SIGNATURE", "it is not set here").mended_by(command),
            ),
            Some(secret) if secret.len() < SECRET_BYTES => found.push(
                Finding::new(&codes::SECRET_SHORT, "WEBHOOK_SIGNATURE", format!("it has {} bytes", secret.len()))
                    .mended_by(command),
            ),
            Some(_) => {}
        }
        if postgres.is_open_to_others() {
            found.push(
                Finding::new(
                    &codes::PLAIN_CONNECTION,
                    postgres.place(),
                    "it is not checked whom it talks to, or not encrypted",
                )
                .mended_by("PGMQ_URL='...?sslmode=verify-full'"),
            );
        }
        found
    }
}
