//! What messages say.

use crate::core::batch::Batch;
use crate::core::message::{self, MarkedKey, Message};
use crate::core::schema::Table;
use crate::postgres::queue::Taken;
use std::collections::{BTreeMap, BTreeSet};

/// What a message says.
pub(in crate::sync) type Parsed = Result<Message, message::Problem>;

/// What a group of messages says.
#[derive(Default)]
pub(in crate::sync) struct Intake {
    /// Images, merged.
    pub batch: Batch,
    /// Marked keys of each table, once each, in an order that its index likes.
    pub marks: BTreeMap<String, Vec<MarkedKey>>,
    /// Truncated tables.
    pub truncated: BTreeSet<String>,
    /// Messages that carry the images.
    pub images: Vec<i64>,
    /// Messages that mark keys, or count as such.
    pub marking: Vec<i64>,
    /// Messages for tables that are not replicated.
    pub skipped: BTreeMap<String, u64>,
}

impl Intake {
    pub(super) fn mark(&mut self, table: &Table, keys: Vec<MarkedKey>, message: &Taken) {
        self.marks.entry(table.name.clone()).or_default().extend(keys);
        self.marking.push(message.msg_id);
    }

    pub(super) fn marks_table(&self, table: &str) -> bool {
        self.marks.contains_key(table) || self.truncated.contains(table)
    }

    pub(super) fn order_keys(&mut self) {
        for keys in self.marks.values_mut() {
            // Shorter ones first: numbers are then in their order, as their index has them.
            keys.sort_unstable_by(|a, b| {
                a.iter().map(String::len).cmp(b.iter().map(String::len)).then_with(|| a.cmp(b))
            });
            keys.dedup();
        }
    }
}
