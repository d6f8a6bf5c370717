//! What was found in Postgres, from which the steps of a set-up are made.

use super::source::Source;
use crate::core::schema::SourceName;
use std::fmt;

/// Everything that the plan is made from.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The server.
    pub server: Server,
    /// The source tables.
    pub sources: Vec<Inspected>,
    /// What is not refused but has to be said.
    pub warnings: Vec<String>,
    /// The queue and its dead letters are both there.
    pub queues_exist: bool,
    /// Tables that this queue captures and `schema.json` does not name.
    pub forgotten: Vec<Forgotten>,
    /// Functions of the original migration that give the secret away.
    pub exposed: Vec<Exposed>,
}

impl Facts {
    /// Whether clients may write any of the tables.
    pub fn is_writable(&self) -> bool {
        self.sources.iter().flat_map(|s| &s.source.targets).any(|target| target.table.writable.is_some())
    }
}

/// A table that this queue captures and `schema.json` does not name.
#[derive(Debug)]
pub(crate) struct Forgotten {
    /// The table.
    pub on: SourceName,
    /// Our triggers on it.
    pub triggers: Vec<String>,
}

/// What this server has.
#[derive(Debug)]
pub struct Server {
    pub(super) version: i64,
    /// Who installs.
    pub user: String,
    /// Who installs may do anything.
    pub superuser: bool,
    pub(super) create_role: bool,
    pub(super) may_create: bool,
    /// `pgmq.create` is there.
    pub has_pgmq: bool,
    pub(super) pgmq_extension: Option<String>,
    pub(super) roles_exist: bool,
    pub(super) capture_usage: Option<bool>,
    pub(super) capture_admin: Option<bool>,
    pub(super) has_schema: bool,
    /// pg_cron is installed in this database.
    pub has_cron: bool,
    /// pg_cron could be installed in this database.
    pub can_cron: bool,
    /// pg_net or the http extension is installed.
    pub has_http: bool,
    /// Supabase Vault is installed.
    pub has_vault: bool,
    /// The queue that the row trigger with images feeds.
    pub image_queue: Option<String>,
}

/// A source table as it is now.
#[derive(Debug)]
pub(crate) struct Inspected {
    /// What is to be captured, and how.
    pub source: Source,
    /// Everything is in place already.
    pub is_captured: bool,
    /// Triggers of ours of the other kind.
    pub obsolete: Vec<(SourceName, String)>,
    /// Triggers of the original migration.
    pub leftovers: Vec<Leftover>,
    /// Triggers of ours fire for every change already, up to date or not.
    pub is_watched: bool,
    /// It has rows.
    pub has_rows: bool,
}

impl Inspected {
    /// Rows or changes that nothing has captured.
    pub fn has_uncaptured_rows(&self) -> bool {
        !self.is_watched && self.has_rows
    }
}

/// A trigger of the original migration on one of our source tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// The table.
    pub on: SourceName,
    /// The trigger.
    pub trigger: String,
}

/// A function of the original migration that returns the worker's address or secret to whoever may call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exposed {
    /// As SQL names it.
    pub function: String,
    /// The roles of the API that may, as SQL names them.
    pub grantees: Vec<String>,
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} may execute {}", self.grantees.join(", "), self.function)
    }
}
