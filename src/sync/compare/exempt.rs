//! Which keys may differ: their row cannot be what it should, and a dead letter says so. A letter whose row
//! could be read by now excuses nothing.

use crate::core::error::Result;
use crate::core::message;
use crate::core::message::{MarkedKey, Message};
use crate::core::value::Key;
use crate::postgres::books::dead_letters::Dead;
use crate::postgres::catalog::SourceTable;
use crate::sync::session::Session;
use crate::sync::take::pages::key_of;
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
        let mut doubtful = Vec::new();
        for letter in session.link.letters_of(&source.table.name).await? {
            match letter {
                Dead::Target(key) => drop(exempt.keys.insert(key_of(source, &key))),
                Dead::Key(key) => doubtful.push(key),
                Dead::Message(text) => {
                    if let Ok(Message::Image(_, change, marked)) = message::parse(&text, &session.schema) {
                        exempt.keys.extend(change.gone.into_iter().chain(change.row.map(|row| row.0)));
                        exempt.marked.extend(marked);
                    }
                }
            }
        }
        doubtful.retain(|key| key.len() == source.table.key.len());
        let mut todo: Vec<&[MarkedKey]> = doubtful.chunks(KEYS).collect();
        while let Some(chunk) = todo.pop() {
            if !exempt.add(session, source, chunk).await? {
                match chunk {
                    [key] => drop(exempt.marked.insert(key.clone())),
                    _ => todo.extend([&chunk[..chunk.len() / 2], &chunk[chunk.len() / 2..]]),
                }
            }
        }
        Ok(exempt)
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
    async fn add(&mut self, session: &Session<'_>, source: &SourceTable, keys: &[MarkedKey]) -> Result<bool> {
        let reading = async { session.link.read(source, keys, false).await?.try_collect::<Vec<_>>().await };
        let Ok(found) = session.attempt(source, reading).await? else { return Ok(false) };
        for row in found.into_iter().filter(|f| matches!(f.cells, Some(Err(_))) || f.key.is_err()) {
            self.marked.extend(keys.get(row.position).cloned());
            self.keys.extend(row.key.ok());
        }
        Ok(true)
    }
}
