//! Events of a sync that wait in its replica to be delivered.

use super::settings::Pull;
use crate::core::error::{Error, Result};
use crate::core::event::{Event, Waiting};
use crate::replica::Replica;
use crate::replica::pulls::{Progress, Pull as Standing, PulledTable};
use std::collections::BTreeMap;

/// Events that are asked for at once.
const PAGE: i64 = 50;

impl Pull {
    /// Waits until there may be new ones.
    pub(crate) async fn news(&self) {
        match &self.news {
            Some(news) => news.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Keeps an event that belongs to no batch, if others are to be told of any.
    pub(super) async fn keep_event(&self, event: Event) -> Result<()> {
        let Some(news) = &self.news else { return Ok(()) };
        let replica = Replica::existing(&self.target).await?;
        let replica = replica.ok_or_else(|| Error::side("the replica is not there yet"))?;
        replica.keep_event(&self.name, event).await?;
        news.notify_one();
        Ok(())
    }

    /// The oldest that wait.
    pub(crate) async fn waiting_events(&self) -> Result<Vec<Waiting>> {
        let Some(replica) = Replica::existing(&self.target).await? else { return Ok(Vec::new()) };
        let (waiting, forgotten) = replica.waiting_events(&self.name, PAGE).await?;
        if forgotten > 0 {
            let (sync, events) = (&self.name, forgotten);
            tracing::error!(sync, events, "EVENTS_URL has not taken events for so long that the oldest are dropped");
        }
        Ok(waiting)
    }

    /// This one has arrived.
    pub(crate) async fn event_delivered(&self, id: i64) -> Result<()> {
        match Replica::existing(&self.target).await? {
            Some(replica) => replica.forget_event(id).await,
            None => Ok(()),
        }
    }
}

/// What a transaction tells of, where the sync stood at `before`.
pub(super) fn events(before: &Standing, progress: &Progress) -> Vec<Event> {
    let mut events = Vec::new();
    for (name, after) in &progress.tables {
        let none = PulledTable::default();
        let before = before.tables.get(name).unwrap_or(&none);
        let was_copied = before.since.is_some();
        let is_begun = after.since.is_none() && after.until.is_some() && (was_copied || before.until.is_none());
        let is_finished = after.since.is_some() && !was_copied;
        events.extend((is_begun || is_finished && before.until.is_none()).then(|| Event::copy_started(name)));
        events.extend(is_finished.then(|| Event::pull_copied(name)));
        let problem = after.problem.as_ref().filter(|_| before.problem.is_none());
        events.extend(problem.map(|problem| Event::table_paused(name, problem)));
    }
    let none = BTreeMap::new();
    let is_new = |letter: &&crate::replica::pulls::Letter| {
        !before.dead.get(&letter.table).unwrap_or(&none).contains_key(&letter.key)
    };
    let letters = progress.letters.iter().filter(is_new);
    events.extend(letters.map(|letter| Event::dead_letter(Some(&letter.table), letter.class, &letter.reason)));
    events
}
