//! How a reader gets its messages: as many as it can handle, and what it cannot is given back.

use super::ahead::{Ahead, first_take};
use super::hand::Hand;
use super::intake::parse;
use super::reader::Reader;
use crate::core::error::{Cause, Result};
use crate::core::failpoint::Rule;
use crate::core::position::Lsn;
use crate::postgres::books::dead_letters;
use crate::postgres::link::Savepoint;
use crate::postgres::queue::{self, Taken};
use std::sync::atomic::Ordering;
use tokio::time::Instant;

impl Reader<'_> {
    /// Takes what the step may have next, in order, and what it says. What is too large to be fetched becomes a dead
    /// letter on the server.
    pub(super) async fn take(&mut self, paused: &queue::Paused<'_>) -> Result<Hand> {
        let (worker, link) = (self.session.worker, self.session.link.as_ref());
        let mut as_bytes = false;
        loop {
            let large = match self.try_take(paused, as_bytes).await {
                Err(e) if !as_bytes && e.cause() == Some(Cause::NoUtf8) => Vec::new(),
                Ok((_, large)) if !large.is_empty() => large,
                taken => return taken.map(|(hand, _)| hand),
            };
            as_bytes |= large.is_empty();
            link.rollback_to(Savepoint::Take).await?;
            link.release(Savepoint::Take).await?;
            if !large.is_empty() {
                let reason = dead_letters::too_large(worker.row_bytes);
                let made = link.dead_letter_large(&large, &reason).await?;
                tracing::error!(messages = ?large, "messages become dead letters: {reason}");
                self.report.messages += made;
                self.report.large += made;
            }
        }
    }

    /// What was taken, and the ids of what is too large.
    async fn try_take(&mut self, paused: &queue::Paused<'_>, as_bytes: bool) -> Result<(Hand, Vec<i64>)> {
        let worker = self.session.worker;
        let Ahead { mut parsed, limit, began, taken, measured } = match self.ahead.take() {
            Some(ahead) => *ahead,
            None => {
                let take = queue::Take { after: self.taken_to, as_bytes, ..first_take(self.session, paused) };
                self.take_now(take).await?
            }
        };
        if taken.as_ref().is_err_and(|e| e.sqlstate() == Some("57014")) {
            worker.take_messages.store((limit / 8).max(1), Ordering::Relaxed); // too many large ones to look at
        }
        let mut taken = taken?;
        worker.figures.took(|counts| &mut counts.take, began.elapsed());
        measured?;
        // Those who take give no order.
        if Rule::ImagesInOrder.holds() {
            taken.messages.sort_unstable_by_key(|message| message.msg_id);
            parsed.sort_unstable_by_key(|(msg_id, _)| *msg_id);
        }
        let large = std::mem::take(&mut taken.large);
        let parsed = parsed.into_iter().map(|(_, parsed)| parsed).collect();
        Ok((Hand::new(taken, parsed, Lsn::parse(&self.snapshot.lsn)), large))
    }

    async fn take_now(&self, take: queue::Take<'_>) -> Result<Ahead> {
        let (session, link, limit, began) = (self.session, self.session.link.as_ref(), take.limit, Instant::now());
        let mut parsed = Vec::new();
        let mut read = |message: &Taken| parsed.push((message.msg_id, parse(session, message)));
        let tables = session.read_sources();
        // One round trip: what comes after is sent behind the first.
        let opening = link.savepoint(Savepoint::Take, None);
        let (opened, taken, measured) = futures_util::join!(opening, link.take(take, &mut read), link.measure(&tables));
        opened?;
        Ok(Ahead { parsed, limit, began, taken, measured })
    }

    /// Asks for more next time while messages are small, for less where the bytes were the limit.
    pub(super) fn grow(&self, hand: &Hand) {
        let (taken, worker) = (hand.messages.len() as i64, self.session.worker);
        let asked = worker.take_messages.load(Ordering::Relaxed);
        if taken < asked && !hand.has_more {
            return; // there were no more
        }
        let next = if taken < asked { taken * 2 } else { asked * 4 };
        worker.take_messages.store(next.clamp(16, queue::TAKE_MESSAGES), Ordering::Relaxed);
    }

    /// Puts back on the queue what of `hand` is not handled.
    pub(super) async fn give_back(&mut self, hand: &Hand) -> Result<()> {
        let (worker, link) = (self.session.worker, self.session.link.as_ref());
        let ids: Vec<i64> = hand.handled().iter().map(|message| message.msg_id).collect();
        tracing::info!(
            messages.handled = ids.len(),
            "the step has had its time; the rest of the messages is given back"
        );
        if !Rule::GiveBack.holds() {
            return Ok(());
        }
        link.rollback_to(Savepoint::Take).await?;
        link.acknowledge(&ids, worker.keeps()).await?;
        worker.take_messages.store((ids.len() as i64).max(1), Ordering::Relaxed);
        Ok(())
    }
}
