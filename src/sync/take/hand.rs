//! What a step has in hand: the messages of one take, and the groups that are cut of them. No IO.

use super::intake::{Intake, Parsed};
use crate::core::message::Message;
use crate::core::position::{Lsn, Provenance};
use crate::postgres::queue::{self, Taken};
use crate::sync::dead_letters::DeadLetters;
use crate::sync::session::Session;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Sum of shares of a group that is full, but for rounding.
const FULL: f64 = 1.0 + 1e-9;

/// The messages of one take, in their order.
pub(super) struct Hand {
    pub messages: Arc<Vec<Taken>>,
    /// What those say that are still to be handled.
    parsed: VecDeque<Parsed>,
    /// Whether more could be taken at this snapshot.
    pub has_more: bool,
    /// Whether all that the snapshot saw is on disk.
    pub is_flushed: bool,
}

/// Messages that are handled together.
pub(super) struct Group {
    taken: Arc<Vec<Taken>>,
    range: Range<usize>,
    /// What they say.
    pub intake: Intake,
}

impl Hand {
    /// These messages, with what each says; `seen_to`: the end of what the snapshot saw.
    pub fn new(taking: queue::TakenMessages, parsed: Vec<Parsed>, seen_to: Option<Lsn>) -> Self {
        let queue::TakenMessages { messages, has_more, flushed_to, large: _ } = taking;
        let is_flushed = seen_to.is_some_and(|seen_to| flushed_to >= seen_to);
        Self { messages: Arc::new(messages), parsed: parsed.into(), has_more, is_flushed }
    }

    /// Messages that are still to be handled.
    pub fn left(&self) -> usize {
        self.parsed.len()
    }

    /// Those that are handled, or in a group that is.
    pub fn handled(&self) -> &[Taken] {
        &self.messages[..self.messages.len() - self.left()]
    }

    /// The next messages. A group ends before an image that is younger than a mark of its table, because what is
    /// marked is read after all images, and where it is as large as the target bears between two looks at the time.
    pub fn next_group(&mut self, session: &Session<'_>, dead_letters: &mut DeadLetters) -> Option<Group> {
        let (start, mut share, mut intake) = (self.handled().len(), 0.0, Intake::default());
        while let Some(parsed) = self.parsed.front() {
            let message = &self.messages[self.messages.len() - self.parsed.len()];
            let more = share_of(session, message, parsed);
            // Full batches, and not a small one behind them.
            if is_too_young(session, &intake, parsed) || share > 0.0 && share + more > FULL {
                break;
            }
            share += more;
            if let Some(parsed) = self.parsed.pop_front() {
                intake.add(session, message, parsed, dead_letters);
            }
        }
        intake.order_keys();
        let range = start..self.handled().len();
        (!range.is_empty()).then(|| Group { taken: self.messages.clone(), range, intake })
    }
}

/// Whether it is an image of a table that something before it marks.
fn is_too_young(session: &Session<'_>, intake: &Intake, parsed: &Parsed) -> bool {
    let Ok(Message::Image(table, ..)) = parsed else { return false };
    !session.is_captured(&table.name) && intake.marks_table(&table.name)
}

/// How much of a group it fills.
fn share_of(session: &Session<'_>, message: &Taken, parsed: &Parsed) -> f64 {
    let budget = &session.worker.budget;
    match parsed {
        Ok(Message::Image(..)) => budget.share_of_image(message.text.as_ref().map_or(0, String::len)),
        Ok(Message::Marks(table, keys)) => budget.share_of_marks(&table.name, keys.len()),
        _ => 0.0,
    }
}

impl Group {
    /// Its messages.
    pub fn messages(&self) -> &[Taken] {
        &self.taken[self.range.clone()]
    }

    /// What the ledger keeps of those among them.
    pub fn provenance(&self, ids: &[i64]) -> Arc<Provenance> {
        let named = self.messages().iter().filter(|m| ids.binary_search(&m.msg_id).is_ok());
        Arc::new(queue::provenance(named))
    }

    /// The same of all.
    pub fn whole_provenance(&self) -> Arc<Provenance> {
        Arc::new(queue::provenance(self.messages().iter()))
    }
}
