//! What is noted of transactions that were read, until it is fetched: keys of tables, which of them have to be counted, and
//! which have to be read whole. No IO.

use super::watched::{Following, Watched};
use crate::core::message::MarkedKey;
use crate::mysql::binlog::Place;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Bytes of keys of one transaction, about: tables of a larger one are read whole.
pub(super) const MOST_OPEN_BYTES: usize = 64 << 20;

/// What a key takes beside its texts, about.
const KEY_BYTES: usize = 96;

/// What happened in a transaction, by the names of its tables.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub keys: Vec<(Arc<str>, MarkedKey)>,
    /// About.
    pub bytes: usize,
    pub cascaded: BTreeSet<Arc<str>>,
    pub whole: BTreeSet<Arc<str>>,
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.cascaded.is_empty() && self.whole.is_empty()
    }

    pub fn add(&mut self, more: Self) {
        self.keys.extend(more.keys);
        self.bytes += more.bytes;
        self.cascaded.extend(more.cascaded);
        self.whole.extend(more.whole);
    }

    pub fn follow(&mut self, following: &Following) {
        self.cascaded.extend(following.counted.iter().cloned());
        self.whole.extend(following.changed.iter().cloned());
    }

    /// Where nothing more is known.
    pub fn follow_all(&mut self, watched: &Watched) {
        self.whole.extend(watched.targets.iter().map(|(name, _)| name.clone()));
        if let Some(parent) = &watched.parent {
            self.follow(&parent.on_delete);
            self.follow(&parent.on_update);
        }
    }

    /// More than is kept: the tables are read whole.
    pub fn shrink(&mut self) {
        if self.bytes > MOST_OPEN_BYTES {
            self.whole.extend(self.keys.drain(..).map(|(name, _)| name));
            (self.keys, self.bytes) = (Vec::new(), 0);
        }
    }
}

/// What is known of a table from a place on.
#[derive(Default)]
pub(super) struct Noted {
    pub from: Option<Place>,
    pub keys: HashMap<MarkedKey, Arc<Place>>,
    pub cascaded: Option<Arc<Place>>,
    pub whole: Option<Arc<Place>>,
}

/// What a key takes, about.
pub(super) fn size(key: &MarkedKey) -> usize {
    KEY_BYTES + key.iter().map(|text| text.len() + size_of::<String>()).sum::<usize>()
}
