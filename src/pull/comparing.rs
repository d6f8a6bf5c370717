//! Compares all rows of a table with the replica, over as many views as it takes. Each view begins by bringing the
//! table to it; so whatever differs then should not.

use super::absent::{self, Surplus};
use super::closing::Closed;
use super::read::{Read, sorted};
use super::session::Session;
use super::writer::{Outcome, Written};
use crate::core::batch::{Item, RowState};
use crate::core::difference::{DifferenceKind, EXAMPLES, Example, TableReport};
use crate::core::error::{Error, ErrorKind, Result, Side};
use crate::core::event::Event;
use crate::core::failpoint;
use crate::core::keys::texts_of;
use crate::core::schema::Table;
use crate::core::value::Key;
use crate::provider::{Begun, Part, View};
use crate::replica::head::fenced;
use crate::replica::pulls::{Progress, PulledTable};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Keys that only the replica has, and that are looked for at once.
const MOST_EXTRA: usize = 10_000;

/// How often a table is begun anew because its rows moved.
const MOST_STARTS: u32 = 10;

/// How often a comparison goes on after a batch of another worker, and after which rest at most.
const MOST_INTERRUPTED: u32 = 1_000;
const AGAIN: Duration = Duration::from_millis(200);

/// A comparison of one table.
#[derive(Default)]
struct Comparison {
    report: TableReport,
    /// Where the next view goes on.
    place: Option<String>,
    starts: u32,
    /// Keys that the replica lacks, and that were not written.
    missing: Vec<Key>,
    /// Views that another worker's batch ended.
    interrupted: u32,
}

/// Where a look compares digests, the rows themselves are compared each so many times; a smaller table's each time.
const DIGESTED: u32 = 7;
const SMALL: i64 = 10_000;

impl Session<'_> {
    /// Tables whose rows are to be compared now.
    pub async fn due(&self, every: Option<Duration>) -> Result<Vec<String>> {
        let replica = &self.writer.replica;
        let mut due = replica.due(&self.pull.name, every).await?;
        let is_digested = |name: &String| {
            let rows = self.writer.standing.tables.get(name).and_then(|standing| standing.rows);
            self.description.tables.get(name).is_some_and(|table| table.is_digested)
                && rows.is_none_or(|rows| rows > SMALL)
        };
        if due.iter().any(is_digested) {
            let long = replica.due(&self.pull.name, every.map(|every| every * DIGESTED)).await?;
            due.retain(|name| !is_digested(name) || long.contains(name));
        }
        due.retain(|name| {
            self.description.tables.get(name).is_some_and(|table| table.problem.is_none())
                && !self.problems.contains_key(name)
        });
        Ok(due)
    }

    /// Compares these tables, and with `repair` writes what should be there.
    pub async fn compare(&mut self, names: &[String], repair: bool) -> Result<BTreeMap<String, TableReport>> {
        let mut reports = BTreeMap::new();
        for name in names {
            let report = match self.compare_table(name, repair).await {
                Ok(report) => report,
                Err(e) => {
                    self.set_aside(e)?;
                    TableReport { problem: self.problems.get(name).cloned(), ..TableReport::default() }
                }
            };
            reports.insert(name.clone(), report);
        }
        Ok(reports)
    }

    async fn compare_table(&mut self, name: &str, repair: bool) -> Result<TableReport> {
        let mut comparison = Comparison::default();
        loop {
            if self.pull.is_stopping() {
                return Err(self.pull.stopped());
            }
            let gone = || Some("the source no longer has it".to_owned());
            let problem = self.description.tables.get(name).map_or_else(gone, |table| table.problem.clone());
            if problem.is_some() {
                return Ok(TableReport { problem, ..TableReport::default() });
            }
            self.read_standing().await?;
            match self.source.begin(&[name]).await? {
                Begun::View(view) => {
                    let before = (comparison.report.clone(), comparison.missing.clone(), comparison.place.clone());
                    let done = self.compare_in(&view, name, &mut comparison, repair).await;
                    let ended = self.source.end().await;
                    match &done {
                        // Another worker has brought something meanwhile: compared again from the same place.
                        Err(e) if *e.kind() == ErrorKind::Unknown && comparison.interrupted < MOST_INTERRUPTED => {
                            comparison.interrupted += 1;
                            (comparison.report, comparison.missing, comparison.place) = before;
                            tokio::time::sleep(AGAIN.mul_f64(self.pull.chance.fraction())).await;
                            continue;
                        }
                        _ => {}
                    }
                    let done = done?;
                    ended?;
                    if done {
                        comparison.report.is_whole = true;
                        return Ok(comparison.report);
                    }
                }
                Begun::Changed if comparison.starts >= MOST_STARTS => {
                    return Err(Error::retry(format!(
                        "{name:?} is altered again and again; it is compared again later"
                    )));
                }
                Begun::Changed => {
                    comparison.starts += 1;
                    self.describe().await?;
                }
                Begun::Locked(_) => {
                    let problem = Some(
                        "another session keeps a lock on it that shuts readers out; it is compared again later".into(),
                    );
                    return Ok(TableReport { problem, ..TableReport::default() });
                }
            }
        }
    }

    /// Brings the table to the view, then compares with it as much as its time allows; whether that was the rest.
    async fn compare_in(&mut self, view: &View, name: &str, comparison: &mut Comparison, repair: bool) -> Result<bool> {
        self.compare_history(view).await?;
        let is_digested = self.description.tables.get(name).is_some_and(|table| table.is_digested);
        if is_digested || comparison.place.is_none() {
            // What has changed meanwhile is no difference.
            self.source.look_closely();
        }
        let mut standing = self.standing_of(name);
        let near = match standing.since.is_none() || standing.until.is_some() {
            true => None,
            false => self.look_near(name, &mut standing, &[], true).await?,
        };
        let is_closed = match near {
            None => self.chunks(view, name, Instant::now(), false).await?,
            Some(near) => self.close(view, vec![near], false).await? == Closed::Equal,
        };
        if !is_closed {
            return Ok(false);
        }
        let Some(table) = self.description.tables.get(name).map(|described| described.table.clone()) else {
            return Ok(true);
        };
        let began = Instant::now();
        let before = (comparison.report.clone(), comparison.missing.clone());
        let mut repairs = Vec::new();
        let look = self.source.look(name, None, comparison.place.as_deref()).await?;
        if look.place.is_none() && comparison.place.take().is_some() {
            comparison.starts += 1;
            comparison.report.rows = 0;
            comparison.missing.clear();
            if comparison.starts > MOST_STARTS {
                return Err(Error::retry(format!("rows of {name:?} move again and again; it is compared again later")));
            }
        }
        let first_place = look.place;
        loop {
            let part = self.source.next(self.pull.pace.part).await?;
            let (is_end, place) = (part.is_end, part.place.clone());
            self.compare_part(&table, part, comparison, &mut repairs).await?;
            failpoint::reach(failpoint::COMPARED);
            let is_much = repairs.len() >= self.pull.pace.part.rows;
            let is_full = is_much && place != first_place;
            if is_much && !is_full && !is_end {
                // Only another view could go on from here: what differs is written while this one is read.
                self.repair(view, name, std::mem::take(&mut repairs), comparison, repair).await?;
            }
            // What is repaired is of the same view as digests that are kept.
            let may_end = place != first_place && !is_digested;
            if is_end || is_full || may_end && began.elapsed() >= self.pull.pace.view_time {
                if !self.source.is_whole().await? {
                    (comparison.report, comparison.missing) = before;
                    return Ok(false);
                }
                comparison.place = place;
                self.repair(view, name, repairs, comparison, repair).await?;
                if is_end {
                    self.look_for_extra(view, &table, comparison, repair).await?;
                }
                return Ok(is_end);
            }
        }
    }

    /// Looks for rows that only the replica has, now that all others are compared.
    async fn look_for_extra(
        &mut self,
        view: &View,
        table: &Arc<Table>,
        comparison: &mut Comparison,
        repair: bool,
    ) -> Result<()> {
        loop {
            let expected = self.writer.standing.tables.get(&table.name).and_then(|standing| standing.rows);
            let rows = self.writer.replica.count(table, self.writer.at()).await?.ok_or_else(fenced)?;
            let surplus = rows + comparison.missing.len() as i64 - expected.unwrap_or(rows);
            let Some(surplus) = usize::try_from(surplus).ok().filter(|surplus| *surplus > 0) else { break };
            let described = self.description.tables.get(&table.name).ok_or_else(fenced)?;
            let (gone, wanted) = (BTreeSet::new(), surplus.min(MOST_EXTRA));
            let known = Surplus { described, rows, missing: comparison.missing.clone(), gone: &gone, wanted };
            let found = absent::find(self.source.as_mut(), &self.writer.replica, &known).await?;
            let others = surplus.saturating_sub(found.len());
            let mut repairs = Vec::new();
            for key in found {
                comparison.report.extra += 1;
                show(&mut comparison.report, &key, DifferenceKind::Extra);
                repairs.push(Item { table: table.clone(), key, state: RowState::Gone, images: Vec::new() });
            }
            if repairs.is_empty() {
                let problem = format!(
                    "the replica has more rows of the table {:?} than the source, and each is there",
                    table.name
                );
                return Err(Error::halt(problem).of_table(&table.name, Side::Target));
            }
            self.repair(view, &table.name, repairs, comparison, repair).await?;
            if !repair {
                // The others are counted, and not looked for.
                comparison.report.extra += others as u64;
            }
            if others == 0 || !repair {
                break;
            }
        }
        if repair || comparison.report.differences() == 0 {
            let compared = BTreeSet::from([table.name.clone()]);
            let mut progress = Progress { compared, ..Progress::default() };
            if comparison.report.differences() > 0 {
                let (rows, different) = (comparison.report.rows as i64, comparison.report.differences() as i64);
                progress.events.push(Event::difference(&table.name, rows, different));
                // They are counted anew.
                let standing = PulledTable { rows: None, ..self.standing_of(&table.name) };
                progress.tables.insert(table.name.clone(), standing);
            }
            self.writer.write(Written { progress, ..Written::default() }).await?;
        }
        Ok(())
    }

    async fn compare_part(
        &self,
        table: &Arc<Table>,
        part: Part,
        comparison: &mut Comparison,
        repairs: &mut Vec<Item>,
    ) -> Result<()> {
        let Comparison { report, missing: lacking, .. } = comparison;
        let Read { items, unfit } = sorted(table, part.found);
        report.dead += unfit.len() as u64;
        report.rows += (items.len() + unfit.len()) as u64;
        let found = self.writer.replica.compare(table, &items, None, self.writer.at()).await?.ok_or_else(fenced)?;
        let dead = self.writer.standing.dead.get(&table.name);
        let is_dead =
            |item: &Item| texts_of(&item.key).is_some_and(|key| dead.is_some_and(|dead| dead.contains_key(&key)));
        let missing = found.missing.iter().map(|&i| (DifferenceKind::Missing, &items[i]));
        let different = found.different.iter().map(|&i| (DifferenceKind::Different, &items[i]));
        for (kind, item) in missing.chain(different) {
            if is_dead(item) {
                report.dead += 1;
                continue;
            }
            match kind {
                DifferenceKind::Missing => {
                    report.missing += 1;
                    lacking.push(item.key.clone());
                }
                _ => report.different += 1,
            }
            show(report, &item.key, kind);
            repairs.push(item.clone());
        }
        Ok(())
    }

    /// Writes what should be there, where that is wanted.
    async fn repair(
        &mut self,
        view: &View,
        name: &str,
        mut items: Vec<Item>,
        comparison: &mut Comparison,
        repair: bool,
    ) -> Result<()> {
        if !repair {
            return Ok(());
        }
        comparison.missing.clear();
        if items.is_empty() {
            return Ok(());
        }
        tracing::warn!(sync = self.pull.name, table = name, rows = items.len(), "differences are repaired");
        items.sort_by(|a, b| a.key.cmp(&b.key));
        let rows = items.len() as u64;
        let progress = Progress { source: Some(view.position.clone()), ..Progress::default() };
        if self.writer.write(Written { items, progress, ..Written::default() }).await? == Outcome::Written {
            comparison.report.repaired += rows;
        }
        Ok(())
    }
}

fn show(report: &mut TableReport, key: &Key, kind: DifferenceKind) {
    if report.examples.len() < EXAMPLES {
        let key = texts_of(key).unwrap_or_default();
        report.examples.push(Example { key, kind, columns: Vec::new() });
    }
}
