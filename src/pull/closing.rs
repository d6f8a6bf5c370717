//! Ends a pass: what has changed of each table, and what is gone of it, in one transaction with the mark of the view that
//! all of it was read at. The tables equal the source at that moment, together.
//!
//! With the changed rows the replica has every key of the source; so it has no other exactly if it has as many rows.

use super::Pace;
use super::absent::{self, Surplus};
use super::read::{self, Read, letters, sorted};
use super::session::Session;
use super::times;
use super::writer::Writer;
use super::writer::{Outcome, Written};
use crate::core::batch::{Item, RowState};
use crate::core::error::{Error, Result, Side};
use crate::core::failpoint::{self, PullRule};
use crate::core::keys::{key_of, texts_of};
use crate::core::message::MarkedKey;
use crate::core::schema::Table;
use crate::core::value::Key;
use crate::provider::{Found, Limits, Look, Unfit, View};
use crate::replica::head::fenced;
use crate::replica::pulls::PulledTable;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Rows that are gone and go in one transaction; where there are more, they go in parts.
const MOST_GONE: usize = 20_000;

/// How often a pass reads a table anew because the replica lacks rows of it.
const MOST_STARTS: u32 = 2;

/// What has changed of one table, little enough to be written at once.
pub(super) struct Near {
    pub name: String,
    table: Arc<Table>,
    standing: PulledTable,
    mark: String,
    meanwhile: Option<String>,
    is_far: bool,
    /// Rows that are replicated at the source; `None`: as many as the replica has with what was read.
    count: Option<i64>,
    read: Read,
    bytes: usize,
}

/// How closing went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The tables equal the view.
    Equal,
    /// Another view has to be opened.
    NotYet,
}

/// What is to be written of one table.
#[derive(Default)]
struct Change {
    items: Vec<Item>,
    /// All rows go.
    is_emptied: bool,
    standing: PulledTable,
    letters: Vec<crate::replica::pulls::Letter>,
    covered: Vec<MarkedKey>,
    /// More is gone than goes in one transaction, or rows are there that nothing told of.
    is_part: bool,
}

impl Change {
    fn is_nothing(&self) -> bool {
        self.items.is_empty() && self.letters.is_empty() && self.covered.is_empty() && !self.is_emptied && !self.is_part
    }
}

impl Session<'_> {
    /// Reads what has changed of a table, beside what is read of others; `None` where it is much. Rows are counted where it
    /// takes a count to tell what is gone, where the replica's were not counted, and where `is_to_count`.
    pub(super) async fn look_near(
        &mut self,
        name: &str,
        standing: &mut PulledTable,
        others: &[Near],
        is_to_count: bool,
    ) -> Result<Option<Near>> {
        let Some(table) = self.description.tables.get(name).map(|described| described.table.clone()) else {
            return Ok(None);
        };
        let look = self.source.look(name, standing.since.as_deref(), None).await?;
        let Pace { closing: most, part, .. } = self.pull.pace;
        let most = Limits { rows: most.rows * self.growth, bytes: most.bytes * self.growth };
        let (rows, bytes) =
            others.iter().fold((0, 0), |(rows, bytes), near| (rows + near.read.items.len(), bytes + near.bytes));
        if look.changed.is_none_or(|changed| rows + changed > most.rows) {
            return Ok(None);
        }
        let count = match look.count {
            None if !look.tells_gone => return Ok(None),
            None if is_to_count || standing.rows.is_none() => {
                standing.rows = None;
                self.source.counts(name, &[]).await?.first().copied()
            }
            count => count,
        };
        let (mut found, mut read_bytes) = (Vec::new(), 0);
        loop {
            let read = self.source.next(part).await?;
            found.extend(read.found);
            read_bytes += read.bytes;
            if bytes + read_bytes > most.bytes {
                return Ok(None);
            }
            if read.is_end {
                break;
            }
        }
        let read = sorted(&table, found);
        let (name, standing, mark, meanwhile) = (name.to_owned(), standing.clone(), look.mark, look.meanwhile);
        let is_far = look.is_far || standing.definition != self.definition_before(&name);
        Ok(Some(Near { name, table, standing, mark, meanwhile, is_far, count, read, bytes: read_bytes }))
    }

    /// Closes a table of which all that has changed was brought in this very view.
    pub(super) async fn close_read(&mut self, view: &View, name: &str, look: Look, is_last: bool) -> Result<Closed> {
        let table = self.description.tables.get(name).map(|described| described.table.clone());
        let (Some(table), Some(count)) = (table, look.count) else { return Ok(Closed::NotYet) };
        let Look { mark, meanwhile, is_far, .. } = look;
        let (name, standing, read) = (name.to_owned(), self.standing_of(name), sorted(&table, Vec::new()));
        let near = Near { name, table, standing, mark, meanwhile, is_far, count: Some(count), read, bytes: 0 };
        self.close(view, vec![near], is_last).await
    }

    fn definition_before(&self, name: &str) -> Option<String> {
        self.writer.standing.tables.get(name).and_then(|table| table.definition.clone())
    }

    /// Brings these tables to the view; `is_last`: all others that can be read equal it.
    pub(super) async fn close(&mut self, view: &View, near: Vec<Near>, is_last: bool) -> Result<Closed> {
        let mut written = Written::default();
        let mut is_part = false;
        for near in near {
            let name = near.name.clone();
            let meanwhile = near.meanwhile.clone().map(|since| doubt(&near.standing, since));
            let Some(change) = self.change(near).await? else { continue };
            written.doubts.extend(meanwhile.map(|standing| (name.clone(), standing)));
            is_part |= change.is_part;
            if change.is_emptied {
                written.emptied.extend(self.description.tables.get(&name).map(|described| described.table.clone()));
            }
            written.items.extend(change.items);
            written.progress.letters.extend(change.letters);
            written.progress.covered.extend(change.covered.into_iter().map(|key| (name.clone(), key)));
            written.progress.tables.insert(name, change.standing);
        }
        if !self.source.is_whole().await? {
            return Ok(Closed::NotYet);
        }
        let has_changes = !written.progress.tables.is_empty();
        failpoint::reach(failpoint::READ);
        if has_changes {
            self.source.make_durable().await?;
            failpoint::reach(failpoint::DURABLE);
        }
        let is_closed = is_last && !is_part && self.problems.is_empty() && self.looks_at_all();
        written.progress.cut = (is_last && !is_part).then(|| self.cut(view));
        if is_closed {
            (self.writer.done.caught_up_at, self.writer.done.seen) = (Some(view.at.clone()), view.seen.clone());
        }
        let is_to_beat = || if is_closed { self.is_worth_a_write(view) } else { self.pull.is_to_beat() };
        if !(has_changes || is_to_beat() || self.is_to_cut(written.progress.cut.as_ref())) {
            return Ok(Closed::Equal);
        }
        let has_cut = written.progress.cut.is_some();
        written.progress.source = Some(view.position.clone());
        written.progress.caught_up_at = is_closed.then(|| view.at.clone());
        self.pull.has_told();
        if self.writer.write(written).await? == Outcome::Rejected || is_part {
            (self.writer.done.caught_up_at, self.writer.done.seen) = (None, None);
            return Ok(Closed::NotYet);
        }
        if has_cut {
            self.pull.has_brought();
        }
        Ok(Closed::Equal)
    }

    /// Whether it is time to say in the replica that nothing has changed.
    fn is_worth_a_write(&self, view: &View) -> bool {
        let before = self.writer.standing.caught_up_at.as_deref().map(times::read);
        match (before, times::read(&view.at), self.pull.heartbeat()) {
            _ if self.writer.job.is_some() => true,
            (Some(Some(before)), Some(now), Some(every)) => now.duration_since(before).unwrap_or_default() >= every,
            (Some(Some(_)), Some(_), None) => false,
            _ => true,
        }
    }

    /// What is to be written so that a table equals the view; `None`: nothing.
    async fn change(&mut self, near: Near) -> Result<Option<Change>> {
        let dead = self.writer.standing.dead.get(&near.name).cloned().unwrap_or_default();
        let is_quiet = near.read.items.is_empty() && near.read.unfit.is_empty() && dead.is_empty();
        if is_quiet && near.standing.rows.is_some_and(|rows| near.count.is_none_or(|count| count == rows)) {
            let standing = at(near.standing, near.mark);
            return Ok(near.is_far.then(|| Change { standing, ..Change::default() }));
        }
        let Near { name, table, standing, mark, meanwhile, count, read, .. } = near;
        let mut here = Here { table: table.clone(), items: read.items, unfit: read.unfit, refused: BTreeSet::new() };
        let mut covered = self.look_at_dead(&name, &dead, &mut here).await?;
        let (refused, items) =
            std::mem::take(&mut here.items).into_iter().partition(|item| self.writer.has_refused(item));
        here.items = items;
        here.refused.extend(Vec::into_iter(refused).map(|item| item.key));
        // Whether or not the replica has to be told of them.
        covered.extend(read::covered(Some(&dead), &here.items));
        let mut compared = here.compare(&self.writer, standing.rows).await?;
        // Rows that cannot be taken over are counted at the source, and may be here as they were.
        let aside: BTreeSet<Key> =
            here.unfit.iter().map(|row| own_key(&table, row)).chain(here.refused.iter().cloned()).collect();
        let aside_here = holders(&self.writer, &table, aside.iter()).await?;
        let lacking = (aside.len() - aside_here.len()) as i64;
        let count = count.unwrap_or_else(|| compared.rows_after() + lacking);
        let expected = count - lacking;
        if compared.rows_after() != expected && standing.rows.is_some() {
            // Before anything follows from it, the rows are counted: somebody else may have written there.
            compared.rows = count_here(&self.writer, &table).await?;
        }
        let surplus = compared.rows_after() - expected;
        if surplus < 0 {
            return self.begin_anew(&name, standing, -surplus).map(Some);
        }
        let mut is_counted = true;
        let mut change = Change { items: compared.items, covered, ..Change::default() };
        if surplus > 0 && PullRule::Counts.holds() {
            if count == 0 && aside.is_empty() {
                (change.items, change.is_emptied) = (Vec::new(), true);
            } else {
                let described = self.description.tables.get(&name).ok_or_else(fenced)?;
                let finds_unchanged = described.finds_unchanged;
                let wanted = usize::try_from(surplus).unwrap_or(usize::MAX);
                let surplus = Surplus {
                    described,
                    rows: compared.rows,
                    missing: compared.missing.into_iter().chain(aside.difference(&aside_here).cloned()).collect(),
                    gone: &compared.gone,
                    wanted: wanted.min(MOST_GONE),
                };
                let found = absent::find(self.source.as_mut(), &self.writer.replica, &surplus).await?;
                // Where more is gone than stamps and counts tell, as much has come: the next view counts, and reads it.
                change.is_part = found.len() < wanted || finds_unchanged && found.len() > wanted;
                is_counted = found.len() == wanted;
                if found.is_empty() {
                    return self.unexplained(&name).await;
                }
                change.items.extend(found.into_iter().map(|key| gone(&table, key)));
                change.items.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        change.letters = letters(&table, Some(&dead), here.unfit)?;
        let is_as_before = standing.since.as_ref() == Some(&mark) && standing.rows == Some(expected);
        if is_as_before && is_counted && change.is_nothing() && standing.problem.is_none() {
            return Ok(None); // the same rows were read as by the last pass, which had them written
        }
        change.standing = match change.is_part {
            // The rows that have changed are all written with it.
            true if meanwhile.is_some() => PulledTable { rows: None, since: Some(mark), ..standing },
            true => PulledTable { rows: None, ..standing },
            false => PulledTable { rows: is_counted.then_some(expected), ..at(standing, mark) },
        };
        Ok(Some(change))
    }

    /// The replica lacks so many rows though all that has changed is there: the table is read as a whole.
    fn begin_anew(&mut self, name: &str, standing: PulledTable, lacking: i64) -> Result<Change> {
        let starts = self.starts.entry(name.to_owned()).or_default();
        *starts += 1;
        if *starts > MOST_STARTS {
            return Err(Error::halt(format!(
                "the replica keeps fewer rows of the table {name:?} than the source has, however often it is read: two keys of the source may be one in SQLite by their declared type, or somebody deletes rows there"
            ))
            .of_table(name, Side::Target));
        }
        tracing::warn!(
            sync = self.pull.name,
            table = name,
            rows = lacking,
            "the replica lacks rows that it should have: the table is read again"
        );
        let standing = PulledTable { definition: standing.definition, ..PulledTable::default() };
        Ok(Change { standing, is_part: true, ..Change::default() })
    }

    /// The counts differ, and nobody knows by which row.
    async fn unexplained(&mut self, name: &str) -> Result<Option<Change>> {
        // What was attached meanwhile was counted and not read.
        if !self.source.is_whole().await? {
            return Err(Error::retry("a partition came while the table was read; it is read again"));
        }
        Err(Error::halt(format!(
            "the replica has more rows of the table {name:?} than the source, and each is there: somebody else writes to the replica's table, or its keys compare otherwise than byte by byte"
        ))
        .of_table(name, Side::Target))
    }

    /// Looks again at rows that could not be taken over: one that can be by now is written, one that is gone goes. Which of
    /// their letters are made good.
    async fn look_at_dead(
        &mut self,
        name: &str,
        dead: &BTreeMap<MarkedKey, String>,
        here: &mut Here,
    ) -> Result<Vec<MarkedKey>> {
        if dead.is_empty() {
            return Ok(Vec::new());
        }
        let read: BTreeSet<MarkedKey> = here.items.iter().filter_map(|item| texts_of(&item.key)).collect();
        let is_known = |key: &MarkedKey| read.contains(key) || here.unfit.iter().any(|row| row.key == *key);
        let keys: Vec<MarkedKey> = dead.keys().filter(|key| !is_known(key)).cloned().collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (mut covered, mut found) = (Vec::new(), Vec::new());
        for (position, row) in self.source.rows(name, &keys).await? {
            let key = &keys[position.min(keys.len() - 1)];
            let is_refused = dead.get(key).is_some_and(|class| class == "target");
            match row {
                Found::Row(own, _) if is_refused => drop(here.refused.insert(own)),
                Found::Unfit(row) => here.unfit.push(row),
                row => {
                    covered.push(key.clone());
                    found.push(row);
                }
            }
        }
        let more = sorted(&here.table, found);
        let known: BTreeSet<Key> = here.items.iter().map(|item| item.key.clone()).collect();
        here.items.extend(more.items.into_iter().filter(|item| !known.contains(&item.key)));
        here.items.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(covered)
    }
}

/// A table that equals a view.
fn at(standing: PulledTable, mark: String) -> PulledTable {
    PulledTable { since: Some(mark), until: None, place: None, problem: None, ..standing }
}

/// The same if only a part of what has changed is written.
fn doubt(standing: &PulledTable, meanwhile: String) -> PulledTable {
    PulledTable { since: Some(meanwhile), until: None, place: None, rows: None, ..standing.clone() }
}

/// The key of a row that cannot be taken over, as the replica has it.
fn own_key(table: &Table, row: &Unfit) -> Key {
    row.own.clone().unwrap_or_else(|| key_of(table, &row.key))
}

/// What was read of a table.
struct Here {
    table: Arc<Table>,
    /// By key, each once.
    items: Vec<Item>,
    unfit: Vec<Unfit>,
    /// Keys of rows that the replica does not take.
    refused: BTreeSet<Key>,
}

/// The same beside what the replica has.
struct Compared {
    /// What differs.
    items: Vec<Item>,
    /// Rows that the replica has.
    rows: i64,
    /// Keys that it lacks.
    missing: Vec<Key>,
    /// Keys that it has and that go.
    gone: BTreeSet<Key>,
}

impl Compared {
    /// Rows that it has with these items.
    fn rows_after(&self) -> i64 {
        self.rows + self.missing.len() as i64 - self.gone.len() as i64
    }
}

impl Here {
    /// What of it differs from the replica, which has so many rows, if that is known: counting them takes as long as the
    /// table is large, and hosted libSQL bills it.
    async fn compare(&mut self, writer: &Writer, rows: Option<i64>) -> Result<Compared> {
        let found = writer.replica.compare(&self.table, &self.items, None, writer.at()).await?;
        let found = found.ok_or_else(fenced)?;
        let rows = match rows {
            Some(rows) => rows,
            None => count_here(writer, &self.table).await?,
        };
        let gone = self.items.iter().filter(|item| item.state == RowState::Gone).map(|item| &item.key);
        let gone = holders(writer, &self.table, gone).await?;
        let missing: BTreeSet<usize> = found.missing.into_iter().collect();
        let mut wanted: BTreeSet<usize> = found.different.into_iter().chain(missing.iter().copied()).collect();
        // What it cannot even be asked about is tried, and refused one by one.
        wanted.extend(&found.refused);
        let missing_keys = missing.iter().map(|&i| self.items[i].key.clone()).collect();
        let mut position = 0..;
        let items = std::mem::take(&mut self.items);
        let is_wanted = |item: &Item| {
            let is_different = position.next().is_some_and(|i| wanted.contains(&i));
            is_different || gone.contains(&item.key) && item.state == RowState::Gone
        };
        let items = items.into_iter().filter(is_wanted).collect();
        Ok(Compared { items, rows, missing: missing_keys, gone })
    }
}

async fn count_here(writer: &Writer, table: &Table) -> Result<i64> {
    writer.replica.count(table, writer.at()).await?.ok_or_else(fenced)
}

/// Those of these keys that the replica has.
async fn holders(writer: &Writer, table: &Table, keys: impl Iterator<Item = &Key>) -> Result<BTreeSet<Key>> {
    let keys: Vec<&Key> = keys.collect();
    if keys.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found = writer.replica.holders(table, &table.key, keys.into_iter()).await?;
    Ok(found.into_iter().map(|(key, _)| key).collect())
}

fn gone(table: &Arc<Table>, key: Key) -> Item {
    Item { table: table.clone(), key, state: RowState::Gone, images: Vec::new() }
}
