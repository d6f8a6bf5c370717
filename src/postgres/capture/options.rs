//! What `setup` may be asked for.

use crate::core::secret::Secret;
use std::collections::BTreeSet;

/// What `setup` is asked for beyond `schema.json`.
#[derive(Debug, Clone, Default)]
pub struct SetupOptions {
    /// Also remove the row triggers and the cron job of the original migration.
    pub take_over: bool,
    /// Leave the rights on the original migration's functions as they are.
    pub keep_grants: bool,
    /// Where cron posts. `None` leaves what is stored.
    pub sync_url: Option<String>,
    /// The secret of that post. `None` leaves what is stored.
    pub webhook_signature: Option<Secret>,
    /// Tables (by their name in `schema.json`) that get row triggers, because logical replication fills them.
    pub row_triggers: BTreeSet<String>,
    /// When cron posts, if it has no job yet.
    pub schedule: Option<String>,
    /// End the capture of tables that `schema.json` no longer names.
    pub allow_drop: bool,
}
