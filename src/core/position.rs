//! Where a replica is in its history, and what its Postgres remembers of that.

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A position in the replica's history. The token tells apart two batches with the same number, as
/// there are after a replica has lost its tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The pairing of one queue with one replica.
    pub epoch: String,
    /// Batches applied in it.
    pub seq: i64,
    /// Random, new with each batch.
    pub token: String,
}

impl Head {
    /// The start of a new epoch.
    pub fn start(epoch: String, token: String) -> Self {
        Self { epoch, seq: 0, token }
    }

    /// The next position.
    pub fn next(&self, token: String) -> Self {
        Self { epoch: self.epoch.clone(), seq: self.seq + 1, token }
    }
}

/// A place in Postgres' WAL: `pg_lsn`, in bytes from its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Reads `16/B374D848`; `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let half = |text: &str| u32::from_str_radix(text, 16).ok();
        Some(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

/// Where the replica is, and whose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Its position; `None` if it was never paired.
    pub head: Option<Head>,
    /// What wrote it: system identifier, database and queue of a Postgres. `None` where an older version did.
    pub owner: Option<String>,
    /// Tables that had triggers which mark their changes: one that has none by now has lost them.
    pub captured: BTreeSet<String>,
}

/// One applied batch as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The position that it led to.
    pub head: Head,
    /// The token of the position that it started from.
    pub parent: String,
    /// The Postgres transaction (xid8) that took its messages.
    pub xid: String,
    /// Postgres' WAL insert position at its snapshot.
    pub lsn: String,
    /// The image messages that are wholly applied once this batch is (`msg_id`).
    pub images: Vec<i64>,
    /// What it was made of.
    pub provenance: Arc<Provenance>,
}

/// The messages that a batch came from. While they are all queued as they were, taking them again reads every
/// key of the batch again, in whatever history Postgres is. Without messages, for pages of a table: a name that
/// Postgres has committed before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Their ids, in order.
    pub messages: Vec<i64>,
    /// SHA-256 of their ids and texts, in hex; without messages, the name.
    pub digest: String,
}

impl Provenance {
    /// Of messages in the order of their ids.
    pub fn of<'a>(messages: impl Iterator<Item = (i64, Option<&'a str>)>) -> Self {
        let (mut ids, mut hash) = (Vec::new(), Sha256::new());
        for (id, text) in messages {
            let text = text.unwrap_or_default();
            hash.update(id.to_le_bytes());
            hash.update(text.len().to_le_bytes());
            hash.update(text);
            ids.push(id);
        }
        let digest = if ids.is_empty() { String::new() } else { hex::encode(hash.finalize()) };
        Self { messages: ids, digest }
    }

    /// Of rows that no message names.
    pub fn named(name: String) -> Self {
        Self { messages: Vec::new(), digest: name }
    }

    /// Whether it came from no message.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// What Postgres remembers of the pairing, and what Postgres is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Where the replica is, as far as acknowledged; `None` before the first pairing.
    pub head: Option<Head>,
    /// An epoch that was announced and may have reached the replica.
    pub next_epoch: Option<String>,
    /// The source at the pairing.
    pub paired_with: Option<Identity>,
    /// Whether the tables are filled from Postgres once the announced epoch has begun.
    pub refills: bool,
    /// Where the replica is that this queue was paired with, or is about to be ([`crate::replica::address`]);
    /// `None` where an older version did so.
    pub address: Option<String>,
    /// Epochs that this queue was paired in.
    pub past_epochs: Vec<String>,
}

impl Progress {
    /// Whether the queue is, or was once, paired in this epoch.
    pub fn knows(&self, epoch: &str) -> bool {
        self.head.as_ref().is_some_and(|head| head.epoch == epoch) || self.past_epochs.iter().any(|past| past == epoch)
    }
}

/// What tells one Postgres from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// System identifier, timeline and the database's OID: `1/00000001/16384`. An older version left the last one out.
    pub source: String,
    /// The queue table's OID.
    pub queue: u32,
}

impl Identity {
    /// Whether it is another database or another queue. A promotion changes the timeline alone, and what was
    /// acknowledged on the old one is on the new one, or the progress would not say so. A copy of a database, which has
    /// a queue of the same OID, has another OID itself.
    pub fn is_other_than(&self, paired: &Self) -> bool {
        let (here, there) = (self.parts(), paired.parts());
        let is_copy = here.get(2).zip(there.get(2)).is_some_and(|(here, there)| here != there);
        here.first() != there.first() || is_copy || self.queue != paired.queue
    }

    /// Whether anything is different, but for what an older version did not write.
    pub fn has_moved_since(&self, paired: &Self) -> bool {
        self.queue != paired.queue || self.parts().iter().zip(paired.parts()).any(|(here, there)| *here != there)
    }

    /// System identifier, timeline and OID.
    pub(crate) fn parts(&self) -> Vec<&str> {
        self.source.split('/').collect()
    }
}

/// What Postgres says of a batch that it has no acknowledgement of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All messages that it came from are queued as they were.
    Queued,
    /// It came from no messages, and Postgres knows the step that read its rows.
    Known,
    /// Neither: Postgres is at another point of its history.
    Lost,
}
