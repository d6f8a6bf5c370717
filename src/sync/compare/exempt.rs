//! Which keys may differ: their row cannot be what it should, and a dead letter says so. A letter whose row
//! could be read by now excuses nothing.

use crate::core::error::Result;
use crate::core::halving::Search;
use crate::core::keys::key_of;
use crate::core::message;
use crate::core::message::{MarkedKey, Message};
use crate::core::value::Key;
use crate::postgres::books::dead_letters::Dead;
use crate::postgres::catalog::SourceTable;
use crate::postgres::rows::MarkedRow;
use crate::sync::session::Session;
use futures_util::TryStreamExt;
use std::collections::BTreeSet;

/// Marked keys read at once.
const KEYS: usize = 500;

/// The exempt keys of one table.
#[derive(Debug, Default)]
pub(in crate::sync) struct Exempt {
    /// As SQLite has them.
    keys: BTreeSet<Key>,
    /// As they were marked.
    marked: BTreeSet<MarkedKey>,
}

impl Exempt {
    /// Reads the dead letters of a table.
    pub async fn of(session: &Session<'_>, source: &SourceTable) -> Result<Self> {
        let mut exempt = Self::default();
        let (mut doubtful, mut of_images) = (Vec::new(), Vec::new());
        for letter in session.link.letters_of(&source.table.name).await? {
            match letter {
                Dead::Target(key) => drop(exempt.keys.insert(key_of(&source.table, &key))),
                Dead::Key(key) => doubtful.push(key),
                Dead::Message(text, keys) => {
                    if let Ok(Message::Image(_, change, marked)) = message::parse(&text, &session.schema) {
                        exempt.keys.extend(change.gone.into_iter().chain(change.row.map(|row| row.0)));
                        exempt.marked.extend(marked);
                    } else {
                        of_images.extend(keys);
                    }
                }
            }
        }
        exempt.look(session, source, doubtful, false).await?;
        exempt.look(session, source, of_images, true).await?;
        Ok(exempt)
    }

    /// Adds those keys whose rows cannot be what they should, by a look at them. `or_gone`: also those that have none,
    /// because what took it away may be what waits.
    async fn look(
        &mut self,
        session: &Session<'_>,
        source: &SourceTable,
        mut keys: Vec<MarkedKey>,
        or_gone: bool,
    ) -> Result<()> {
        keys.retain(|key| key.len() == source.table.key.len());
        let mut search = Search::of(keys.len(), KEYS);
        while let Some(part) = search.take(KEYS) {
            match self.add(session, source, &keys[part.clone()], or_gone).await? {
                true => {}
                false if part.len() > 1 => search.halve(&part),
                false => drop(self.marked.insert(keys[part.start].clone())),
            }
        }
        Ok(())
    }

    /// Whether this key may differ.
    pub fn has(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    /// The same of a key as a mark names it.
    pub fn has_marked(&self, key: &MarkedKey) -> bool {
        self.marked.contains(key)
    }

    /// Adds those whose rows do not fit; `false` where Postgres cannot read one of them.
    async fn add(
        &mut self,
        session: &Session<'_>,
        source: &SourceTable,
        keys: &[MarkedKey],
        or_gone: bool,
    ) -> Result<bool> {
        let reading = async { session.link.read(source, keys, false).await?.try_collect::<Vec<_>>().await };
        let Ok(found) = session.attempt(source, reading).await? else { return Ok(false) };
        let is_exempt =
            |f: &MarkedRow| matches!(f.cells, Some(Err(_))) || f.key.is_err() || or_gone && f.cells.is_none();
        for row in found.into_iter().filter(is_exempt) {
            self.marked.extend(keys.get(row.position).cloned());
            self.keys.extend(row.key.ok());
        }
        Ok(true)
    }
}
