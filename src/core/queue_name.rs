//! The name of the PGMQ queue, checked.

use super::config_error::{ConfigError, wrong};

/// The queue that Capgo's migration creates.
pub const DEFAULT_QUEUE: &str = "replicate_data_libsql";

/// PGMQ builds index names of up to 63 bytes from a queue's name; `_dead` has to fit too.
const QUEUE_NAME_BYTES: usize = 42;

/// A checked queue name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueName(String);

impl QueueName {
    /// Lower case letters, digits and `_`, at most 42 bytes: what PGMQ takes and what leaves room for `_dead`.
    pub fn parse(name: &str) -> Result<Self, ConfigError> {
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if name.is_empty() || !plain || name.len() > QUEUE_NAME_BYTES {
            return wrong(format!(
                "QUEUE_NAME must be 1 to {QUEUE_NAME_BYTES} lower case letters, digits and underscores, such as {DEFAULT_QUEUE}"
            ));
        }
        Ok(Self(name.to_owned()))
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The queue's table, quoted.
    pub fn table(&self) -> String {
        format!("pgmq.\"q_{}\"", self.0)
    }
    /// The name of the dead-letter queue.
    pub fn dead(&self) -> String {
        format!("{}_dead", self.0)
    }
    /// The dead-letter queue's table, quoted.
    pub(crate) fn dead_table(&self) -> String {
        format!("pgmq.\"q_{}_dead\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_names_are_plain() {
        assert!(QueueName::parse("replicate_data_libsql").is_ok());
        for bad in ["", "A", "a-b", "a'; drop table x; --", "a b", &"a".repeat(43)] {
            assert!(QueueName::parse(bad).is_err(), "{bad}");
        }
    }
}
