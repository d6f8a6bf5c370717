//! What capture reacts to, and the names of its triggers and functions. No IO.

use crate::core::queue_name::QueueName;
use crate::core::schema::SourceName;
use sha2::{Digest, Sha256};

/// Longest name that Postgres keeps whole (NAMEDATALEN − 1).
const NAME_BYTES: usize = 63;

/// Hexadecimal digits that tell shortened names apart.
const HASH_DIGITS: usize = 10;

/// What a trigger reacts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// Statement trigger.
    Insert,
    /// Statement trigger.
    Update,
    /// Statement trigger.
    Delete,
    /// Statement trigger.
    Truncate,
    /// Row trigger for insert, update and delete.
    Row,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Insert, Self::Update, Self::Delete, Self::Truncate, Self::Row];

    /// As in the names of triggers and functions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::Row => "row",
        }
    }

    /// The trigger's name, the same on every table; a queue's name leaves room for it.
    pub fn trigger(self, queue: &QueueName) -> String {
        format!("{}{}", trigger_prefix(queue), self.name())
    }
}

/// The first part of the names of all triggers of a queue.
pub(crate) fn trigger_prefix(queue: &QueueName) -> String {
    format!("pgflume_{}_", queue.as_str())
}

/// The first part of the names of all capture functions of a queue: no queue's name holds a dot.
pub(crate) fn function_prefix(queue: &QueueName) -> String {
    format!("{}.", queue.as_str())
}

/// `queue.schema.table.event`, shortened with a hash where it is too long or could be read in two ways.
pub(crate) fn function_name(queue: &QueueName, source: &SourceName, event: Event) -> String {
    let parts = [queue.as_str(), &source.schema, &source.table, event.name()];
    let plain = parts.join(".");
    if plain.len() <= NAME_BYTES && !source.schema.contains('.') && !source.table.contains('.') {
        return plain;
    }
    let hash = hex::encode(Sha256::digest(parts.join("\0").as_bytes()));
    let hash = &hash[..HASH_DIGITS];
    let room = NAME_BYTES - HASH_DIGITS - 1;
    let end = (0..=room.min(plain.len())).rev().find(|&i| plain.is_char_boundary(i)).unwrap_or(0);
    format!("{}.{hash}", &plain[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source_name(schema: &str, table: &str) -> SourceName {
        SourceName { schema: schema.into(), table: table.into() }
    }

    #[test]
    fn function_names_are_unique_and_fit() {
        let q = QueueName::parse("replicate_data_libsql").unwrap();
        assert_eq!(
            function_name(&q, &source_name("public", "apps"), Event::Insert),
            "replicate_data_libsql.public.apps.insert"
        );
        let dotted = [
            function_name(&q, &source_name("a.b", "c"), Event::Row),
            function_name(&q, &source_name("a", "b.c"), Event::Row),
        ];
        assert_ne!(dotted[0], dotted[1]);
        for name in ["é".repeat(31), "x".repeat(63)] {
            let made = function_name(&q, &source_name("public", &name), Event::Truncate);
            assert!(made.len() <= NAME_BYTES && made.starts_with("replicate_data_libsql."), "{made}");
            assert_ne!(made, function_name(&q, &source_name("public", &name), Event::Insert));
        }
    }

    #[test]
    fn every_trigger_name_fits() {
        let longest = QueueName::parse(&"q".repeat(42)).unwrap();
        assert!(Event::ALL.iter().all(|e| e.trigger(&longest).len() <= NAME_BYTES));
    }
}
