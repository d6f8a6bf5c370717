//! Judges what one reader sees of one table, look after look: no version of a key may go back. No IO.

use std::collections::HashMap;

/// What a reader was shown and must not have been.
#[derive(Debug, Clone)]
pub struct Violation(pub String);

/// What one reader knows of one table.
pub struct Judge {
    table: &'static str,
    keys: HashMap<String, Seen>,
    /// The replica's epoch at each look, numbered.
    epochs: Vec<usize>,
    epoch: String,
    /// Versions not looked up in Postgres' history yet.
    fresh: Vec<(String, i64)>,
}

struct Seen {
    version: i64,
    look: usize,
}

impl Judge {
    pub fn new(table: &'static str) -> Self {
        Self { table, keys: HashMap::new(), epochs: Vec::new(), epoch: String::new(), fresh: Vec::new() }
    }

    /// One look: all keys of the table and their versions.
    pub fn look(&mut self, epoch: &str, rows: Vec<(String, i64)>) -> Vec<Violation> {
        let number = self.epochs.last().map_or(0, |last| last + usize::from(epoch != self.epoch));
        epoch.clone_into(&mut self.epoch);
        self.epochs.push(number);
        rows.into_iter().filter_map(|(key, version)| self.see(key, version)).collect()
    }

    /// An older copy of the replica was put back: from here on versions rise again.
    pub fn begin_era(&mut self) {
        self.keys.clear();
    }

    fn see(&mut self, key: String, version: i64) -> Option<Violation> {
        let look = self.epochs.len() - 1;
        let Some(seen) = self.keys.get_mut(&key) else {
            self.fresh.push((key.clone(), version));
            self.keys.insert(key, Seen { version, look });
            return None;
        };
        let (before, last) = (seen.version, seen.look);
        *seen = Seen { version: version.max(before), look };
        // Gone in between, and not by a nuke (which begins an epoch): an old row was brought back.
        let came_back = last + 1 < look && self.epochs[last] == self.epochs[last + 1];
        if version > before {
            self.fresh.push((key, version));
            return None;
        }
        if version < before {
            return Some(Violation(format!("{}: key {key} went back from version {before} to {version}", self.table)));
        }
        came_back.then(|| Violation(format!("{}: key {key} was gone and is back in version {version}", self.table)))
    }

    /// Each (key, version) that it was shown, once.
    pub fn shown(self) -> Vec<(String, i64)> {
        self.fresh
    }
}

/// The judge is judged first: a run that cannot fail proves nothing.
pub fn can_fail() -> bool {
    let rows = |version| vec![("k".to_owned(), version)];
    let violations = |looks: &[(&str, Option<i64>)]| {
        let mut judge = Judge::new("t");
        looks.iter().map(|(epoch, version)| judge.look(epoch, version.map_or_else(Vec::new, rows)).len()).sum::<usize>()
    };
    let is_forgiven_once = || {
        let mut judge = Judge::new("t");
        judge.look("e", rows(2));
        judge.begin_era();
        judge.look("e", rows(1)).is_empty() && judge.look("e", rows(0)).len() == 1
    };
    is_forgiven_once()
        && violations(&[("e", Some(1)), ("e", Some(1)), ("e", None), ("e", Some(2)), ("f", None), ("f", Some(2))]) == 0
        && violations(&[("e", Some(2)), ("e", Some(1))]) == 1
        && violations(&[("e", Some(2)), ("f", None), ("f", Some(1))]) == 1
        && violations(&[("e", Some(2)), ("e", None), ("e", Some(2))]) == 1
}
