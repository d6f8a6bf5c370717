//! What messages say, sorted: images to apply, keys to read, and dead letters. No IO.

use crate::core::batch::Batch;
use crate::core::message::{self, MarkedKey, Message};
use crate::core::schema::Table;
use crate::postgres::books::dead_letters::{DeadLetter, Refusal};
use crate::postgres::queue::Taken;
use crate::postgres::rows::fault::NO_UTF8_KEY;
use crate::sync::dead_letters::DeadLetters;
use crate::sync::session::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a message says.
pub(super) type Parsed = Result<Message, message::Problem>;

/// What a group of messages says.
#[derive(Default)]
pub(super) struct Intake {
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

/// Whether something in a key was replaced because it is no UTF-8.
pub(in crate::sync) fn is_damaged(key: &MarkedKey) -> bool {
    key.iter().any(|part| part.contains(char::REPLACEMENT_CHARACTER))
}

/// What `message` says to this session.
pub(super) fn parse(session: &Session<'_>, message: &Taken) -> Parsed {
    match message::parse(message.text.as_deref().unwrap_or("null"), &session.schema) {
        Ok(Message::Image(table, _, keys)) if message.is_damaged && !session.is_captured(&table.name) => {
            let reason = "holds a text that is no UTF-8: correct the row".to_owned();
            let keys = keys.into_iter().filter(|key| !is_damaged(key)).collect();
            Err(message::Problem { table: Some(table.name.clone()), reason, keys })
        }
        Ok(Message::Image(table, _, keys)) if message.is_damaged => Ok(Message::Marks(table, keys)),
        parsed => parsed,
    }
}

impl Intake {
    /// Adds what `message` says.
    pub fn add(&mut self, session: &Session<'_>, message: &Taken, parsed: Parsed, dead_letters: &mut DeadLetters) {
        match parsed {
            Ok(Message::Marks(table, keys)) => {
                let (damaged, keys): (Vec<_>, _) =
                    keys.into_iter().partition(|key| message.is_damaged && is_damaged(key));
                // Of these the message has only a likeness.
                damaged.iter().for_each(|key| dead_letters.add(of_marked(&table, key, Refusal::Value, NO_UTF8_KEY)));
                dead_letters.cover(&table.name, &keys, None);
                self.mark(&table, keys, message);
            }
            Ok(Message::Truncate(table)) => {
                self.truncated.insert(table.name.clone());
                self.marking.push(message.msg_id);
            }
            // Marks say more than a leftover image: the row as it is now.
            Ok(Message::Image(table, _, keys)) if session.is_captured(&table.name) => {
                dead_letters.cover(&table.name, &keys, None);
                self.mark(&table, keys, message);
            }
            Ok(Message::Image(table, change, keys)) => {
                dead_letters.cover(&table.name, &keys, Some(message.msg_id));
                self.batch.merge(&table, change, message.msg_id);
                self.images.push(message.msg_id);
            }
            Ok(Message::Skipped(table)) => *self.skipped.entry(table).or_default() += 1,
            Err(problem) => {
                let reason = format!("the message {}", problem.reason);
                let table = problem.table.as_deref();
                tracing::error!(message.id = message.msg_id, "a message becomes a dead letter: {reason}");
                let letter = DeadLetter::of_message(table, problem.keys, message, Refusal::Message, &reason);
                dead_letters.add_supersedable(letter);
            }
        }
    }

    fn mark(&mut self, table: &Table, keys: Vec<MarkedKey>, message: &Taken) {
        self.marks.entry(table.name.clone()).or_default().extend(keys);
        self.marking.push(message.msg_id);
    }

    /// Whether it marks something of this table.
    pub fn marks_table(&self, table: &str) -> bool {
        self.marks.contains_key(table) || self.truncated.contains(table)
    }

    /// Puts the keys into the order in which they are read.
    pub fn order_keys(&mut self) {
        for keys in self.marks.values_mut() {
            // Shorter ones first: numbers are then in their order, as their index has them.
            keys.sort_unstable_by(|a, b| {
                a.iter().map(String::len).cmp(b.iter().map(String::len)).then_with(|| a.cmp(b))
            });
            keys.dedup();
        }
    }
}

/// The dead letter of a marked key.
pub(super) fn of_marked(table: &Arc<Table>, key: &MarkedKey, class: Refusal, problem: &str) -> DeadLetter {
    tracing::error!(table = table.name, ?class, problem, "a marked key becomes a dead letter");
    let key = key.iter().cloned().map(Some).collect();
    DeadLetter::of_key(&table.name, key, class, problem)
}
