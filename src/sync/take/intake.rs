//! What messages say: a reader sorts those it took into images, marked keys and dead letters. No IO.

use super::parsed::{Intake, Parsed};
use super::reader::Reader;
use crate::core::message;
use crate::core::message::{MarkedKey, Message};
use crate::core::schema::Table;
use crate::postgres::books::dead_letters::{DeadLetter, Refusal};
use crate::postgres::queue::Taken;
use crate::sync::fault::NO_UTF8_KEY;
use std::sync::Arc;

/// Sum of shares of a group that is full, but for rounding.
const FULL: f64 = 1.0 + 1e-9;

/// Whether something in a key was replaced because it is no UTF-8.
pub(in crate::sync) fn is_damaged(key: &MarkedKey) -> bool {
    key.iter().any(|part| part.contains(char::REPLACEMENT_CHARACTER))
}

impl Reader<'_> {
    pub(in crate::sync) fn parse(&self, message: &Taken) -> Parsed {
        match message::parse(message.text.as_deref().unwrap_or("null"), &self.session.schema) {
            Ok(Message::Image(table, _, keys)) if message.is_damaged && !self.session.is_captured(&table.name) => {
                let reason = "holds a text that is no UTF-8: correct the row".to_owned();
                let keys = keys.into_iter().filter(|key| !is_damaged(key)).collect();
                Err(message::Problem { table: Some(table.name.clone()), reason, keys })
            }
            Ok(Message::Image(table, _, keys)) if message.is_damaged => Ok(Message::Marks(table, keys)),
            parsed => parsed,
        }
    }

    /// Sorts messages into images to apply, keys to read, and dead letters; how many. Ends before an
    /// image that is younger than a mark of its table, because what is marked is read after all images, and
    /// where the group is as large as the target bears between two looks at the time.
    pub(in crate::sync) fn intake(&mut self, messages: &[Taken]) -> (Intake, usize) {
        let mut intake = Intake::default();
        let budget = &self.session.worker.budget;
        let (mut count, mut share) = (0, 0.0);
        for message in messages {
            let more = match self.parsed.front() {
                // What is marked is read after all images.
                Some(Ok(Message::Image(table, ..)))
                    if !self.session.is_captured(&table.name) && intake.marks_table(&table.name) =>
                {
                    break;
                }
                Some(Ok(Message::Image(..))) => budget.share_of_image(message.text.as_ref().map_or(0, String::len)),
                Some(Ok(Message::Marks(table, keys))) => budget.share_of_marks(&table.name, keys.len()),
                _ => 0.0,
            };
            // Full batches, and not a small one behind them.
            if share > 0.0 && share + more > FULL {
                break;
            }
            share += more;
            let Some(parsed) = self.parsed.pop_front() else { break };
            self.sort(&mut intake, parsed, message);
            count += 1;
        }
        intake.order_keys();
        (intake, count)
    }

    /// Keys that are no UTF-8, of which the message has only a likeness.
    fn dead_letter_damaged(&mut self, table: &Arc<Table>, keys: Vec<MarkedKey>) {
        for key in keys {
            self.dead_letter(table, &key, Refusal::Value, NO_UTF8_KEY);
        }
    }

    fn sort(&mut self, intake: &mut Intake, parsed: Parsed, message: &Taken) {
        match parsed {
            Ok(Message::Marks(table, keys)) => {
                let (damaged, keys) = keys.into_iter().partition(|key| message.is_damaged && is_damaged(key));
                self.dead_letter_damaged(&table, damaged);
                self.supersede(&table, &keys, None);
                intake.mark(&table, keys, message);
            }
            Ok(Message::Truncate(table)) => {
                intake.truncated.insert(table.name.clone());
                intake.marking.push(message.msg_id);
            }
            // Marks say more than a leftover image: the row as it is now.
            Ok(Message::Image(table, _, keys)) if self.session.is_captured(&table.name) => {
                self.supersede(&table, &keys, None);
                intake.mark(&table, keys, message);
            }
            Ok(Message::Image(table, change, keys)) => {
                self.supersede(&table, &keys, Some(message.msg_id));
                intake.batch.merge(&table, change, message.msg_id);
                intake.images.push(message.msg_id);
            }
            Ok(Message::Skipped(table)) => *intake.skipped.entry(table).or_default() += 1,
            Err(problem) => {
                let reason = format!("the message {}", problem.reason);
                let table = problem.table.as_deref();
                let letter = DeadLetter::of_message(table, problem.keys, message, Refusal::Message, &reason);
                self.own_dead_letters.watch(self.report.dead.len(), &letter);
                self.report.dead.push(letter);
            }
        }
    }

    /// A newer state of these keys is taken: it is applied, or becomes a letter itself.
    fn supersede(&mut self, table: &Table, keys: &[MarkedKey], newer: Option<i64>) {
        for dead_letters in [&mut self.dead_letters, &mut self.own_dead_letters]
            .into_iter()
            .filter(|dead_letters| !dead_letters.is_empty())
        {
            for key in keys {
                dead_letters.cover(&table.name, key, newer);
            }
        }
    }
}
