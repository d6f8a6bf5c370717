//! Events of a sync that wait in its replica to be delivered.

use super::settings::Pull;
use crate::core::error::{Error, Result};
use crate::core::event::{Event, Waiting};
use crate::replica::Replica;
use crate::replica::pulls::{Progress, Pull as Standing, PulledTable};
use std::collections::BTreeMap;

/// Events that are asked for at once.
const PAGE: i64 = 50;

/// The events of one sync, over a connection of its own.
pub(crate) struct Outbox {
    replica: Replica,
    sync: String,
}

impl Outbox {
    /// The oldest that wait, and whether there may be more.
    pub(crate) async fn oldest(&self) -> Result<(Vec<Waiting>, bool)> {
        let waiting = self.replica.waiting_events(&self.sync, PAGE).await?;
        if (waiting.len() as i64) < PAGE {
            return Ok((waiting, false));
        }
        let events = self.replica.prune_events(&self.sync).await?;
        if events == 0 {
            return Ok((waiting, true));
        }
        let sync = &self.sync;
        tracing::error!(sync, events, "EVENTS_URL has not taken events for so long that the oldest are dropped");
        Ok((self.replica.waiting_events(sync, PAGE).await?, true))
    }

    /// These have arrived.
    pub(crate) async fn delivered(&self, ids: &[i64]) -> Result<()> {
        self.replica.forget_events(ids).await
    }
}

impl Pull {
    /// Waits until there may be new events.
    pub(crate) async fn news(&self) {
        match &self.news {
            Some(news) => news.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Its outbox; `None` where nothing was ever told.
    pub(crate) async fn outbox(&self) -> Result<Option<Outbox>> {
        let Some(replica) = Replica::existing(&self.target).await? else { return Ok(None) };
        let has_outbox = replica.has_outbox().await?;
        Ok(has_outbox.then(|| Outbox { replica, sync: self.name.clone() }))
    }

    /// Keeps an event that belongs to no batch, if others are to be told of any. An error where there is no outbox yet: a
    /// replica that was refused may be anybody's.
    pub(super) async fn keep_event(&self, event: Event) -> Result<()> {
        let Some(news) = &self.news else { return Ok(()) };
        let outbox = self.outbox().await?.ok_or_else(|| Error::side("the replica has no outbox yet"))?;
        outbox.replica.keep_event(&self.name, event).await?;
        news.notify_one();
        Ok(())
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
