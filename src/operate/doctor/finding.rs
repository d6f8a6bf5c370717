//! A finding in words.

use crate::core::codes::{self, Code};
use crate::core::error::Result;
use crate::core::words;
use crate::postgres::{Client, Parameters};
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Changes do not arrive, or a secret lies open.
    Error,
    /// It works, and will hurt.
    Warning,
}

/// What is run to mend it, where that is safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fix {
    /// SQL in Postgres.
    Postgres(String),
    /// SQL in the replica.
    Replica(String),
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub code: &'static Code,
    /// What it is about: a table, a role, a job.
    pub subject: String,
    /// What was found.
    pub found: String,
    /// The command that mends it.
    pub command: Option<String>,
    pub(super) fix: Option<Fix>,
}

/// Codes of what works all the same.
const WARNINGS: [&Code; 28] = [
    &codes::SUPERUSER,
    &codes::NOT_SET_UP,
    &codes::QUEUE_NOTIFIES,
    &codes::QUEUE_VACUUM,
    &codes::QUEUE_BLOAT,
    &codes::OLD_TRANSACTION,
    &codes::ARCHIVE,
    &codes::CRON_DISABLED,
    &codes::SYNC_URL_PLAIN,
    &codes::PLAIN_CONNECTION,
    &codes::CLOCK,
    &codes::CONNECTIONS,
    &codes::OLD_TRIGGERS,
    &codes::DEAD_LETTERS,
    &codes::BEHIND,
    &codes::RESYNC,
    &codes::REPLICA_FOREIGN_KEYS,
    &codes::REPLICA_UNIQUE,
    &codes::REPLICA_TRIGGERS,
    &codes::REPLICA_JOURNAL,
    &codes::DISK,
    &codes::SLOW_TARGET,
    &codes::TARGET_LIMITS,
    &codes::SECRET_SHORT,
    &codes::PUSH_JOURNAL_OLD,
    &codes::FEED_UNWHOLE,
    &codes::FEED_HELD,
    &codes::FEED_LOG,
];

impl Finding {
    /// Of that code.
    pub(super) fn new(code: &'static Code, subject: impl Into<String>, found: impl Into<String>) -> Self {
        // Names are those of whoever owns the objects.
        let clean = |text: String| words::clean(&text, words::ERROR_CHARS);
        Self { code, subject: clean(subject.into()), found: clean(found.into()), command: None, fix: None }
    }

    /// With the command that mends it.
    pub(super) fn mended_by(self, command: impl Into<String>) -> Self {
        Self { command: Some(words::clean(&command.into(), words::ERROR_CHARS)), ..self }
    }

    /// With SQL that mends it and harms nobody.
    pub(super) fn fixed_by(self, fix: Fix) -> Self {
        let (Fix::Postgres(sql) | Fix::Replica(sql)) = &fix;
        let command = sql.clone();
        Self { fix: Some(fix), ..self.mended_by(command) }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        if WARNINGS.contains(&self.code) { Severity::Warning } else { Severity::Error }
    }

    /// Whether `--fix` mends it.
    pub fn is_fixable(&self) -> bool {
        self.fix.is_some()
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Finding", 8)?;
        object.serialize_field("code", self.code.code)?;
        object.serialize_field("severity", &self.severity())?;
        object.serialize_field("title", self.code.title)?;
        object.serialize_field("subject", &self.subject)?;
        object.serialize_field("found", &self.found)?;
        object.serialize_field("command", &self.command)?;
        object.serialize_field("remedy", self.code.remedy)?;
        object.serialize_field("fixable", &self.is_fixable())?;
        object.end()
    }
}

/// Worst first, then by code.
pub(super) fn sort(found: &mut Vec<Finding>) {
    found.sort_by(|a, b| (a.severity(), a.code.code, &a.subject).cmp(&(b.severity(), b.code.code, &b.subject)));
    found.dedup();
}

/// What a query of `sql/doctor*.sql` finds.
pub(super) async fn asked(client: &Client, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Finding>> {
    let rows = client.query_typed(sql, parameters).await?;
    let finding = |row: &tokio_postgres::Row| {
        let (code, command, is_safe): (&str, Option<String>, bool) =
            (row.try_get(0)?, row.try_get(3)?, row.try_get(4)?);
        let code = codes::ALL.iter().find(|known| known.code == code).copied().unwrap_or(&codes::DRIFT);
        let finding = Finding::new(code, row.try_get::<_, String>(1)?, row.try_get::<_, String>(2)?);
        Ok(match command {
            Some(command) if is_safe => finding.fixed_by(Fix::Postgres(command)),
            Some(command) => finding.mended_by(command),
            None => finding,
        })
    };
    rows.iter().map(finding).collect()
}
