//! A pass: view after view of the source, until all tables equal one of them.

use super::closing::Closed;
use super::session::Session;
use crate::core::error::{Error, Result};
use crate::core::event::Event;
use crate::core::failpoint::{self, PullRule};
use crate::provider::{Begun, Follows, View};
use crate::pull::writer::Written;
use crate::replica::pulls::{Progress, PulledTable};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// How often a pass describes the tables anew because they were altered.
const DESCRIPTIONS: u32 = 5;

/// After so many views it is told that a pass does not come to its end.
const MANY_VIEWS: u32 = 16;

/// What comes after a view.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// All tables that can be read equal it.
    End,
    /// Another one.
    View,
}

impl Session<'_> {
    /// Brings all tables that can be read to a moment after this call began.
    pub async fn pass(&mut self) -> Result<()> {
        let mut descriptions = 0;
        loop {
            if self.pull.is_stopping() {
                return Err(self.pull.stopped());
            }
            let readable = self.readable();
            let names: Vec<&str> = readable.iter().map(String::as_str).collect();
            // Before the view: what another worker has written since is not newer than it.
            self.read_standing().await?;
            match self.source.begin(&names).await? {
                Begun::View(view) => {
                    failpoint::reach(failpoint::VIEWED);
                    (self.writer.looked.at, self.writer.looked.seen) = (Some(view.at.clone()), view.seen.clone());
                    let next = self.view(&view, &readable).await;
                    if matches!(next, Ok(Next::End)) {
                        self.source.taken();
                    }
                    let ended = self.source.end().await;
                    // What the view failed by is what there is to say.
                    match next {
                        Ok(Next::End) => return self.note_problems().await,
                        Ok(Next::View) => {}
                        Err(e) => self.set_aside(e)?,
                    }
                    ended?;
                }
                Begun::Locked(tables) => {
                    for table in tables {
                        self.put_aside(
                            &table,
                            "another session keeps a lock on it that shuts readers out (see pg_locks, or SHOW PROCESSLIST of a MySQL); it follows when that ends".into(),
                        );
                    }
                }
                Begun::Changed if descriptions >= DESCRIPTIONS => {
                    return Err(Error::retry("the tables are altered again and again; they will be read again"));
                }
                Begun::Changed => {
                    descriptions += 1;
                    self.describe().await?;
                }
            }
        }
    }

    async fn view(&mut self, view: &View, readable: &[String]) -> Result<Next> {
        self.compare_history(view).await?;
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for name in readable {
            let mut table = self.standing_of(name);
            if table.since.is_none() || table.until.is_some() {
                far.push(name.clone());
                continue;
            }
            match self.look_near(name, &mut table, &near, false).await? {
                Some(found) => near.push(found),
                None => far.push(name.clone()),
            }
        }
        if self.close(view, near, far.is_empty()).await? == Closed::NotYet {
            return Ok(Next::View);
        }
        self.note_race(&far);
        // The time that looking at the others took is not theirs.
        let began = Instant::now();
        let is_listed = |name: &String| self.description.tables.get(name).is_some_and(|table| table.finds_unchanged);
        let (listed, versioned): (Vec<String>, Vec<String>) = far.into_iter().partition(is_listed);
        for name in &versioned {
            self.chunks(view, name, began, false).await?;
            if began.elapsed() >= self.pull.pace.view_time {
                break;
            }
        }
        // Those that are read as a whole come when all others are near, so that the pass ends with them.
        let mut left = if versioned.is_empty() { listed.len() } else { return Ok(Next::View) };
        for name in &listed {
            left -= usize::from(self.chunks(view, name, began, left == 1).await?);
        }
        Ok(if left == 0 { Next::End } else { Next::View })
    }

    /// Tells that the source may be changing faster than it is brought: tables were read whole before, and still there is
    /// more than one transaction takes, view after view.
    fn note_race(&mut self, far: &[String]) {
        let is_race = !far.is_empty() && far.iter().all(|name| self.standing_of(name).since.is_some());
        self.views_behind = if is_race { self.views_behind + 1 } else { 0 };
        if self.views_behind >= MANY_VIEWS && self.views_behind.is_power_of_two() {
            tracing::warn!(
                sync = self.pull.name,
                tables = ?far,
                views = self.views_behind,
                "this pass does not come to its end: the source may change faster than it can be brought; readers see what was brought so far, table by table"
            );
        }
    }

    /// Whether no table is left out because nobody tells of its changes.
    pub(super) fn looks_at_all(&self) -> bool {
        !self.is_following || self.description.tables.keys().all(|name| self.is_followed(name))
    }

    /// How far a table is, by the definition that is in force now.
    pub fn standing_of(&self, name: &str) -> PulledTable {
        let mut table = self.writer.standing.tables.get(name).cloned().unwrap_or_default();
        let Some(described) = self.description.tables.get(name) else { return table };
        let why = table.definition.as_ref().and_then(|before| self.source.outgrown(before, &described.definition));
        if let Some(why) = why {
            tracing::warn!(sync = self.pull.name, table = name, "this table is read again: {why}");
            table = PulledTable::default();
        }
        table.definition = Some(described.definition.clone());
        table
    }

    /// Another history than the one that was read so far: whatever is there may be otherwise, and is read again.
    pub async fn compare_history(&mut self, view: &View) -> Result<()> {
        let Some(before) = &self.writer.standing.source else { return Ok(()) };
        match self.source.follows(before, &view.position) {
            _ if !PullRule::Origin.holds() => Ok(()),
            Follows::Same => Ok(()),
            Follows::Older => Err(Error::retry(
                "the source is older than what the replica has: a standby that lags; it will be read again",
            )),
            Follows::Other(why) => {
                tracing::error!(
                    sync = self.pull.name,
                    "the source is not what was read before ({why}): all tables are compared with it, readable all the while"
                );
                let read = self.writer.standing.tables.iter();
                let again = |(name, table): (&String, &PulledTable)| {
                    let definition = table.definition.clone();
                    (name.clone(), PulledTable { definition, ..PulledTable::default() })
                };
                let tables: BTreeMap<_, _> = read.map(again).collect();
                self.pull.see(None);
                let source = Some(view.position.clone());
                let events = vec![Event::healed("other_source")];
                let progress = Progress { source, tables, forgets: true, events, ..Progress::default() };
                self.writer.write(Written { progress, ..Written::default() }).await?;
                Ok(())
            }
        }
    }
}
