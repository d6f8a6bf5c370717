//! What others may be told of: outgoing events (`EVENTS_URL`), each of a type that never changes its meaning. No keys
//! and no row values.

use serde::Serialize;
use serde_json::{Value, json};

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// `dead_letter`, `drift`, `copy.started`, `copy.finished`, `difference`, `healed`, `side.down`, `side.up`,
    /// `table.paused`, `sync.before` or `sync.after`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What belongs to it.
    pub data: Value,
}

impl Event {
    /// The type of [`side_down`](Self::side_down).
    pub const SIDE_DOWN: &str = "side.down";

    /// A row or message became a dead letter.
    pub fn dead_letter(table: Option<&str>, class: &str, reason: &str) -> Self {
        Self { kind: "dead_letter", data: json!({"table": table, "class": class, "reason": reason}) }
    }

    /// Something is no longer as it was set up.
    pub fn drift(table: &str, problem: &str, remedy: &str) -> Self {
        Self { kind: "drift", data: json!({"table": table, "problem": problem, "mend": remedy}) }
    }

    /// A table is copied from now on.
    pub fn copy_started(table: &str) -> Self {
        Self { kind: "copy.started", data: json!({ "table": table }) }
    }

    /// It is copied: rows written and removed.
    pub fn copy_finished(table: &str, rows: i64, removed: i64) -> Self {
        Self { kind: "copy.finished", data: json!({"table": table, "rows": rows, "removed": removed}) }
    }

    /// It is copied by a sync that pulls, whose rows are counted later.
    pub fn pull_copied(table: &str) -> Self {
        Self { kind: "copy.finished", data: json!({ "table": table }) }
    }

    /// A comparison of all rows of a table has found some that differed.
    pub fn difference(table: &str, rows: i64, different: i64) -> Self {
        Self { kind: "difference", data: json!({"table": table, "rows": rows, "different": different}) }
    }

    /// The two sides had diverged, and are being healed.
    pub fn healed(from: &str) -> Self {
        Self { kind: "healed", data: json!({ "from": from }) }
    }

    /// A side does not answer, or refuses.
    pub fn side_down(reason: &str) -> Self {
        Self { kind: Self::SIDE_DOWN, data: json!({ "reason": reason }) }
    }

    /// It works again.
    pub fn side_up() -> Self {
        Self { kind: "side.up", data: json!({}) }
    }

    /// Changes of a table wait for somebody to act.
    pub fn table_paused(table: &str, problem: &str) -> Self {
        Self { kind: "table.paused", data: json!({"table": table, "problem": problem}) }
    }

    /// A drain or pass begins that was called for, or is due.
    pub fn before() -> Self {
        Self { kind: "sync.before", data: json!({}) }
    }

    /// It has ended: what it did, or why it failed.
    pub fn after(done: Result<Value, String>) -> Self {
        let data = match done {
            Ok(done) => json!({"success": true, "done": done}),
            Err(error) => json!({"success": false, "error": error}),
        };
        Self { kind: "sync.after", data }
    }
}

/// One that waits to be delivered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Waiting {
    /// Its number.
    pub id: i64,
    /// What it is delivered by.
    pub uid: String,
    /// Since when.
    pub at: String,
    /// Its type.
    pub kind: String,
    /// What belongs to it.
    pub data: Value,
}

/// Events of a queue or sync that are kept for an address that does not take them; the oldest go first.
pub(crate) const MOST_WAITING: i64 = 10_000;
