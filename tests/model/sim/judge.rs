//! What must always hold. Looks at both sides as nobody else can.

use pgflume::core::position::Head;
use std::collections::BTreeMap;

/// What became of a version of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Its transaction has not ended.
    Open,
    /// Under this number.
    Committed(u64),
    Aborted,
    /// A crash has undone it.
    LostInCrash,
    /// Somebody has put Postgres back to before it.
    LostInRestore,
}

/// A row of the replica: its table, its key and its version.
pub type Shown = (&'static str, String, i64);

#[derive(Default)]
pub struct Judge {
    versions: Vec<Version>,
    /// The newest version of each key that the replica has shown: under which number it was committed, and its own.
    newest: BTreeMap<(&'static str, String), (u64, i64)>,
    /// The token of each position that the replica was at.
    positions: BTreeMap<(String, i64), String>,
    /// Somebody has put a side back, replaced it, or taken messages: two sides may diverge.
    pub is_provoked: bool,
    /// Somebody has asked for a nuke: one that is cut short is finished by a healing.
    pub is_nuked: bool,
    /// Somebody has written into the replica: its rows may differ.
    pub is_tampered: bool,
    /// A row that images feed may go back for a while.
    repeats_images: bool,
    pub violation: Option<String>,
}

impl Judge {
    pub fn new(repeats_images: bool) -> Self {
        Self { repeats_images, ..Self::default() }
    }

    pub fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// Whether the two sides may have to be healed.
    pub fn may_diverge(&self) -> bool {
        self.is_provoked || self.is_nuked
    }

    /// A number for a version that somebody is about to write.
    pub fn begin(&mut self) -> i64 {
        self.versions.push(Version::Open);
        self.versions.len() as i64 - 1
    }

    pub fn end(&mut self, versions: &[i64], how: Version) {
        versions.iter().for_each(|&version| self.versions[version as usize] = how);
    }

    /// All that was committed after this number is gone.
    pub fn lose(&mut self, kept: u64, how: Version) {
        let is_lost = |version: &&mut Version| matches!(version, Version::Committed(commit) if *commit > kept);
        self.versions.iter_mut().filter(is_lost).for_each(|version| *version = how);
    }

    /// Somebody has put a side back: from now on older versions may be right.
    pub fn provoke(&mut self) {
        self.is_provoked = true;
        self.newest.clear();
        self.positions.clear();
    }

    /// A write to the replica has left this.
    pub fn weigh(&mut self, shown: Vec<Shown>, head: Option<Head>, flushed: u64) {
        for (table, key, version) in shown {
            self.weigh_row(table, key, version, flushed);
        }
        if let Some(head) = head {
            self.weigh_head(head);
        }
    }

    /// A position has one token; but for the start of an epoch, which a drain and the nuke that announced it may both
    /// bring about before there is a batch of it.
    fn weigh_head(&mut self, head: Head) {
        let of_epoch = (head.epoch.clone(), 1)..=(head.epoch.clone(), i64::MAX);
        let has_begun = self.positions.range(of_epoch).next().is_some();
        let position = (head.epoch, head.seq);
        let token = self.positions.entry(position).or_insert_with(|| head.token.clone());
        let is_again = if head.seq == 0 { has_begun } else { *token != head.token };
        if is_again && !self.is_provoked {
            self.violate(format!("the replica has been at batch {} of one epoch twice", head.seq));
        }
    }

    fn weigh_row(&mut self, table: &'static str, key: String, version: i64, flushed: u64) {
        let state = self.versions.get(version as usize).copied();
        let is_durable = match state {
            Some(Version::Committed(commit)) => commit <= flushed,
            state => state == Some(Version::LostInRestore),
        };
        if !is_durable {
            return self.violate(format!("{table} {key} shows version {version}, which Postgres can lose: {state:?}"));
        }
        let Some(Version::Committed(commit)) = state else { return };
        let newest = self.newest.entry((table, key.clone())).or_insert((commit, version));
        let (is_back, was) = ((commit, version) < *newest, newest.1);
        *newest = (commit, version).max(*newest);
        // Images of a batch that is being split may come twice, one after the other; and a mark is read as the row is,
        // whatever images of it wait. A nuke empties the table and leaves the queue as it is: what was applied and not
        // acknowledged is applied again from the start.
        let may_repeat = table == "c" && (self.repeats_images || self.is_nuked);
        if is_back && !self.is_provoked && !may_repeat {
            self.violate(format!("{table} {key} goes back from version {was} to {version}"));
        }
    }
}
