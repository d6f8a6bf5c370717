//! The comparing part of a step: after the queue is drained and all of it is applied, pages of the source
//! at the step's snapshot are compared with the replica, in both directions. Differences may be repaired in
//! the same step. Goes on from step to step until every table is compared.

use crate::core::absent::Absent;
use crate::core::batch::{Item, RowState};
use crate::core::difference::{DifferenceKind, EXAMPLES, Example, TableReport, VerifyReport};
use crate::core::error::{Error, Result};
use crate::core::failpoint;
use crate::core::keys::{key_of, texts_of};
use crate::core::message::MarkedKey;
use crate::core::position::Head;
use crate::core::value::Key;
use crate::postgres::books::comparisons::{Pass, Phase};
use crate::postgres::books::progress::Snapshot;
use crate::postgres::catalog::SourceTable;
use crate::postgres::rows::page;
use crate::replica::compare::KeyRange;
use crate::replica::{Encoded, Replica};
use crate::sync::apply::writer::{Applied, Writer};
use crate::sync::chunk::Chunk;
use crate::sync::compare::exempt::Exempt;
use crate::sync::compare::pages::{CHUNK_ROWS, Ends, Part, Share, moved, read_pages};
use crate::sync::compare::report::{Counters, VerifyOptions};
use crate::sync::session::Session;
use crate::sync::take::absent::absent;
use crate::sync::take::pages::SWEEP_KEYS;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bytes of a row of a table that was never analyzed: a guess on the small side, so that a sample is not too small.
const ROW_BYTES: i64 = 50;

/// Keys of one part that are looked through because the replica has too many.
const EXTRA_KEYS: usize = 50_000;

/// How long a read replica may take to come to the position of the replica.
const CATCH_UP: Duration = Duration::from_secs(20);

/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A check under way.
pub struct Comparison {
    options: VerifyOptions,
    /// The database to look at in place of the replica.
    target: Option<Replica>,
    counters: Arc<Counters>,
    /// Tables that are still to be compared, the one in hand last.
    todo: Vec<String>,
    pass: Option<Pass>,
    /// By what its cursor is to be read.
    ordering: String,
    /// The pass in hand began in this process, and when.
    began: Option<Instant>,
    /// Rows that the sample still has for the table in hand.
    quota: Option<i64>,
    report: VerifyReport,
    /// A step is at it, or was given up while it was.
    is_in_hand: bool,
}

/// What a step has applied before it acknowledges.
pub(in crate::sync) struct Finished {
    /// All that it applied.
    pub applied: Applied,
    /// Whether the comparison has something to be committed: repairs, or how far it is.
    pub has_saved: bool,
}

/// What one table is compared with.
struct Here<'a> {
    session: &'a Session<'a>,
    source: &'a SourceTable,
    /// Where the replica is.
    head: &'a Head,
    /// What may differ.
    exempt: &'a Exempt,
    /// What is compared with the source.
    target: &'a Replica,
}

impl Comparison {
    /// A check that has not begun.
    pub fn new(options: VerifyOptions, target: Option<Replica>, counters: Arc<Counters>) -> Self {
        let mut todo = options.tables.clone();
        todo.reverse();
        let (pass, quota) = (None, None);
        Self {
            options,
            target,
            counters,
            todo,
            pass,
            ordering: String::new(),
            began: None,
            quota,
            report: VerifyReport::default(),
            is_in_hand: false,
        }
    }

    /// Whether a step that hung was given up in the middle of it.
    pub(in crate::sync) fn is_lost(&self) -> bool {
        self.is_in_hand
    }

    /// Whether every table is compared.
    pub(in crate::sync) fn is_done(&self) -> bool {
        self.todo.is_empty()
    }

    /// The tables that are still to be compared.
    pub(in crate::sync) fn tables(&self) -> &[String] {
        &self.todo
    }

    /// How far it is.
    pub(in crate::sync) fn place(&self) -> (usize, Option<Pass>) {
        (self.todo.len(), self.pass.clone())
    }

    /// What was found.
    pub(in crate::sync) fn into_report(self) -> VerifyReport {
        self.report
    }

    fn table(&mut self, name: &str) -> &mut TableReport {
        self.report.tables.entry(name.to_owned()).or_default()
    }

    /// Compares what the step's time allows; where the replica is after what was repaired. A failure leaves
    /// the check where it was.
    pub(in crate::sync) async fn run(
        &mut self,
        session: &Session<'_>,
        snapshot: &Snapshot,
        applied: Applied,
    ) -> Result<Finished> {
        let before = (self.todo.clone(), self.pass.clone(), self.quota, self.report.clone());
        self.is_in_hand = true;
        let target = self.target.take();
        let looked_at = target.as_ref().unwrap_or(&session.replica);
        let comparing = Box::pin(self.try_run(session, snapshot, applied, looked_at));
        let done = session.beside.unless_waited_for(&snapshot.xid, comparing).await;
        self.target = target;
        if done.is_err() {
            (self.todo, self.pass, self.quota, self.report) = before;
        }
        self.is_in_hand = false;
        done
    }

    async fn try_run(
        &mut self,
        session: &Session<'_>,
        snapshot: &Snapshot,
        mut applied: Applied,
        looked_at: &Replica,
    ) -> Result<Finished> {
        let share = Share::begin();
        let mut has_saved = false;
        while let Some(name) = self.todo.last().cloned() {
            let Some(source) = session.sources.get(&name) else {
                self.give_up(&name, "schema.json does not name it".into());
                continue;
            };
            if let Some(problem) = self.problem(session, source) {
                self.give_up(&name, problem);
                continue;
            }
            if !session.tables.is_read(&name) {
                return Err(Error::retry("a table was altered while it was compared; it is compared again"));
            }
            let (after, saved) = self.part(session, source, looked_at, snapshot, applied, share).await?;
            applied = after;
            has_saved |= saved;
            let is_over = session.beside.is_waited_for() || session.worker.is_stopping();
            if is_over || share.is_spent(session).await? {
                break;
            }
        }
        Ok(Finished { applied, has_saved })
    }

    /// Compares, and repairs, as much of one table as the time allows.
    async fn part(
        &mut self,
        session: &Session<'_>,
        source: &SourceTable,
        target: &Replica,
        snapshot: &Snapshot,
        mut applied: Applied,
        share: Share,
    ) -> Result<(Applied, bool)> {
        let name = &source.table.name;
        wait_for(target, session, &applied.head, self.options.target.is_none()).await?;
        let mut pass = self.begin(session, source).await?;
        self.table(name); // named in the report whatever comes of it
        let exempt = Exempt::of(session, source).await?;
        let mut repairs = Vec::new();
        let here = Here { session, source, head: &applied.head, exempt: &exempt, target };
        match pass.phase {
            Phase::Compare => self.compare(&here, &mut pass, &mut repairs, share).await?,
            _ => self.sweep(&here, &mut pass, &mut repairs).await?,
        }
        let has_repaired = !repairs.is_empty();
        if has_repaired {
            let (wanted, dead) = (repairs.len(), applied.dead_letters.count());
            applied = repair(session, snapshot, applied, repairs).await?;
            self.table(name).repaired += (wanted - (applied.dead_letters.count() - dead).min(wanted)) as u64;
        }
        failpoint::reach(failpoint::COMPARED);
        let is_kept = self.put_down(session, source, pass).await?;
        Ok((applied, is_kept || has_repaired))
    }

    fn give_up(&mut self, name: &str, problem: String) {
        tracing::error!(table = name, "this table cannot be compared: {problem}");
        self.table(name).problem = Some(problem);
        (self.pass, self.quota) = (None, None);
        self.todo.pop();
    }

    fn problem(&self, session: &Session<'_>, source: &SourceTable) -> Option<String> {
        let name = &source.table.name;
        if session.tables.is_paused(name) {
            return Some("its marks wait, see the log: fix that first".into());
        }
        let waits = session.pending.iter().any(|r| r.name == *name) && session.tables.is_stuck(name);
        if waits {
            return Some("it waits to be rebuilt, see `pgflume status`: fix that first".into());
        }
        source.unpageable()
    }

    /// The pass of the table in hand.
    async fn begin(&mut self, session: &Session<'_>, source: &SourceTable) -> Result<Pass> {
        let ordering = source.ordering();
        if let Some(pass) = self.pass.take() {
            if self.ordering == ordering {
                return Ok(pass);
            }
            self.report.tables.remove(&source.table.name); // its keys are in another order now
        }
        self.ordering = ordering;
        let pass = match self.options.sample {
            None => Pass::default(),
            Some(share) => {
                let size = session.link.size(source).await?;
                let rows = size.rows.unwrap_or(size.bytes / ROW_BYTES).max(1_000);
                self.quota = Some((rows as f64 * share).ceil() as i64);
                session.link.comparison(&source.table.name, &source.ordering()).await?
            }
        };
        self.began = (pass == Pass::default()).then(Instant::now);
        Ok(pass)
    }

    /// Ends the table in hand where it is compared, or its sample is. Whether something was saved: what is
    /// said of a copy of the replica says nothing of the replica.
    async fn put_down(&mut self, session: &Session<'_>, source: &SourceTable, pass: Pass) -> Result<bool> {
        let name = &source.table.name;
        let is_whole = pass.phase == Phase::Done;
        let is_kept = self.options.target.is_none() && (is_whole || self.options.sample.is_some());
        if is_kept && is_whole {
            let seconds = self.began.map(|began| began.elapsed().as_secs_f64());
            session.link.finish_comparison(name, &pass, seconds).await?;
        } else if is_kept {
            session.link.record_comparison(name, &pass, &source.ordering()).await?;
        }
        self.table(name).is_whole |= is_whole;
        if is_whole || self.quota.is_some_and(|quota| quota <= 0) {
            (self.pass, self.quota) = (None, None);
            self.todo.pop();
        } else {
            self.pass = Some(pass);
        }
        Ok(is_kept)
    }

    /// Pages of the source, in key order, are looked for in the replica. Reading runs one part ahead.
    async fn compare(&mut self, here: &Here<'_>, pass: &mut Pass, repairs: &mut Vec<Item>, share: Share) -> Result<()> {
        let (sender, receiver) = mpsc::channel(1);
        let quota = self.quota.unwrap_or(i64::MAX);
        let reading = read_pages(here.session, here.source, pass.cursor.clone(), quota, share, sender);
        let after = pass.cursor.as_ref().map(|cursor| key_of(&here.source.table, &page::marked(here.source, cursor)));
        let comparing = self.compare_parts(here, after, receiver, repairs);
        // Reading fails too if comparing does: its error is the one to report.
        let (compared, read) = futures_util::join!(comparing, reading);
        let differences = compared?;
        let read = read?;
        self.table(&here.source.table.name).rows += read.rows as u64;
        pass.rows += read.rows;
        pass.different += differences;
        pass.cursor = read.cursor;
        self.quota = self.quota.map(|quota| quota - read.rows);
        if read.is_end {
            let next = if here.source.sorts_alike() { Phase::Done } else { Phase::Sweep };
            (pass.phase, pass.cursor) = (next, None);
        }
        Ok(())
    }

    /// Compares part after part; how many differences there were.
    async fn compare_parts(
        &mut self,
        here: &Here<'_>,
        mut after: Option<Key>,
        mut parts: mpsc::Receiver<Part>,
        repairs: &mut Vec<Item>,
    ) -> Result<i64> {
        let mut differences = 0;
        while let Some(part) = parts.recv().await {
            let up_to = match &part.ends {
                Ends::Itself => part.items.last().map(|item| item.key.clone()),
                Ends::At(key) => Some(key.clone()),
                Ends::Table => None,
            };
            let range = KeyRange { after: after.as_ref(), up_to: up_to.as_ref() };
            differences += self.compare_part(here, &part, range, repairs).await?;
            after = up_to.or(after);
        }
        Ok(differences)
    }

    async fn compare_part(
        &mut self,
        here: &Here<'_>,
        part: &Part,
        range: KeyRange<'_>,
        repairs: &mut Vec<Item>,
    ) -> Result<i64> {
        let source = here.source;
        let ranged = source.sorts_alike().then_some(range);
        let found = here.target.compare(&source.table, &part.items, ranged, here.head).await?.ok_or_else(moved)?;
        let mut wrong: Vec<(DifferenceKind, Item)> = Vec::new();
        wrong.extend(found.missing.iter().map(|&i| (DifferenceKind::Missing, part.items[i].clone())));
        wrong.extend(found.different.iter().map(|&i| (DifferenceKind::Different, part.items[i].clone())));
        let refused: Vec<_> = found.refused.iter().map(|&i| &part.items[i].key).collect();
        let refused = refused.into_iter().map(|key| (texts_of(key).unwrap_or_default(), key.clone()));
        let unfit: Vec<(MarkedKey, Key)> = part.unfit.iter().cloned().chain(refused).collect();
        let matched = (part.items.len() - found.missing.len() - found.refused.len()) as i64;
        let mut differences = self.note_unfit(source, &unfit, here.exempt);
        if ranged.is_some() && found.in_range != matched {
            let expected = part.items.iter().map(|item| &item.key).chain(part.unfit.iter().map(|(_, key)| key));
            let expected: BTreeSet<&Key> = expected.collect();
            let keys = here.target.keys_in(&source.table, range, EXTRA_KEYS).await?;
            // More than can be looked at now are counted, and found again by the next comparison.
            let beyond = (found.in_range - keys.len() as i64).max(0);
            self.table(&source.table.name).extra += beyond as u64;
            differences += beyond;
            let extra = keys.into_iter().filter(|key| !expected.contains(key));
            wrong.extend(extra.map(|key| (DifferenceKind::Extra, gone_item(source, key))));
        }
        differences += self.note(here, wrong, repairs).await?;
        self.counters.add(part.items.len() as u64, differences as u64);
        Ok(differences)
    }

    /// Rows that cannot be what they should: excused by a dead letter, or different without one.
    fn note_unfit(&mut self, source: &SourceTable, unfit: &[(MarkedKey, Key)], exempt: &Exempt) -> i64 {
        let mut differences = 0;
        for (marked, key) in unfit {
            let report = self.table(&source.table.name);
            if exempt.has_marked(marked) || exempt.has(key) {
                report.dead += 1;
                continue;
            }
            differences += 1;
            report.different += 1;
            if report.examples.len() < EXAMPLES {
                report.examples.push(Example { key: marked.clone(), kind: DifferenceKind::Unfit, columns: Vec::new() });
            }
        }
        differences
    }

    /// Keys of the replica are looked for in the source: where its order is another than the source's, what
    /// only it has is found no other way.
    async fn sweep(&mut self, here: &Here<'_>, pass: &mut Pass, repairs: &mut Vec<Item>) -> Result<()> {
        let source = here.source;
        let after = pass.cursor.as_ref().map(|texts| key_of(&source.table, texts));
        // The replica itself is asked in a write transaction, which a copy that lags cannot answer.
        let keys = match self.options.target {
            None => here.target.keys_after(&source.table, after.as_ref(), SWEEP_KEYS).await?,
            Some(_) => here.target.read_keys_after(&source.table, after.as_ref(), SWEEP_KEYS).await?,
        };
        let is_short = (keys.len() as i64) < SWEEP_KEYS;
        let (mut known, mut texts, mut nobodys) = (Vec::new(), Vec::new(), Vec::new());
        for key in keys {
            match texts_of(&key) {
                Some(text) => {
                    known.push(key);
                    texts.push(text);
                }
                None => nobodys.push(key), // a NULL in it, which no key of the source has
            }
        }
        let Absent { gone, doubtful } = absent(here.session, source, &texts).await?;
        self.note_doubtful(here, doubtful.iter().map(|&i| &known[i]));
        let gone = gone.into_iter().map(|i| known[i].clone());
        let wrong = gone.chain(nobodys).map(|key| (DifferenceKind::Extra, gone_item(source, key))).collect();
        let differences = self.note(here, wrong, repairs).await?;
        self.counters.add(0, differences as u64);
        pass.different += differences;
        pass.cursor = texts.last().cloned();
        self.quota = self.quota.map(|quota| quota - known.len() as i64);
        if is_short || known.is_empty() {
            (pass.phase, pass.cursor) = (Phase::Done, None);
        }
        Ok(())
    }

    /// Keys at which Postgres fails are never taken for absent: unless a dead letter says so, the table is not compared.
    fn note_doubtful<'k>(&mut self, here: &Here<'_>, keys: impl Iterator<Item = &'k Key>) {
        let (exempt, other): (Vec<&Key>, Vec<&Key>) = keys.partition(|key| here.exempt.has(key));
        let report = self.table(&here.source.table.name);
        report.dead += exempt.len() as u64;
        report.doubtful += other.len() as u64;
        if report.doubtful > 0 {
            report.problem = Some(format!(
                "Postgres fails at {} keys that the replica has, so that they could not be compared: correct the rows or `where`",
                report.doubtful
            ));
        }
    }

    /// Counts what is wrong, shows the first of it, and leaves it to be repaired. Dead letters stand aside.
    async fn note(
        &mut self,
        here: &Here<'_>,
        wrong: Vec<(DifferenceKind, Item)>,
        repairs: &mut Vec<Item>,
    ) -> Result<i64> {
        let name = &here.source.table.name;
        let mut differences = 0;
        for (kind, item) in wrong {
            if here.exempt.has(&item.key) {
                self.table(name).dead += 1;
                continue;
            }
            differences += 1;
            let report = self.table(name);
            match kind {
                DifferenceKind::Different | DifferenceKind::Unfit => report.different += 1,
                DifferenceKind::Missing => report.missing += 1,
                DifferenceKind::Extra => report.extra += 1,
            }
            if report.examples.len() < EXAMPLES {
                let columns =
                    if kind == DifferenceKind::Different { self.columns(here, &item).await? } else { Vec::new() };
                let key = texts_of(&item.key).unwrap_or_default();
                self.table(name).examples.push(Example { key, kind, columns });
            }
            if self.options.repair {
                repairs.push(item);
            }
        }
        Ok(differences)
    }

    /// The columns in which a row differs.
    async fn columns(&self, here: &Here<'_>, item: &Item) -> Result<Vec<String>> {
        let table = &here.source.table;
        let positions = here.target.differing(table, item).await?;
        Ok(positions.into_iter().filter_map(|i| table.columns.get(i)).map(|c| c.name.clone()).collect())
    }
}

fn gone_item(source: &SourceTable, key: Key) -> Item {
    Item { table: source.table.clone(), key, state: RowState::Gone, images: Vec::new() }
}

/// Whoever compares waits until the database that it reads has come to the replica's position, which does not move
/// meanwhile; but for one whose transaction is gone, while another worker goes on.
async fn wait_for(target: &Replica, session: &Session<'_>, head: &Head, is_replica: bool) -> Result<()> {
    let began = Instant::now();
    loop {
        let there = target.head_read().await?;
        if there.as_ref() == Some(head) {
            return Ok(());
        }
        let is_beyond = there.is_some_and(|there| there.epoch == head.epoch && there.seq > head.seq);
        if is_replica && (is_beyond || began.elapsed() > CATCH_UP) {
            return Err(moved());
        }
        if began.elapsed() > CATCH_UP {
            return Err(Error::halt(format!(
                "the database to verify is not at the replica's position after {} s: is it a read replica of it, and does it follow?",
                CATCH_UP.as_secs()
            )));
        }
        if session.worker.is_stopping() {
            return Err(Error::retry("the comparison was stopped"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Writes what should be there, as further batches of the step.
async fn repair(session: &Session<'_>, snapshot: &Snapshot, applied: Applied, items: Vec<Item>) -> Result<Applied> {
    tracing::info!(repair.rows = items.len(), "differences are repaired");
    let provenance = session.name_step().await?;
    let mut writer = Writer::resume(session, snapshot, applied);
    for items in items.chunks(CHUNK_ROWS) {
        let (taken, provenance, left) = (Arc::default(), provenance.clone(), session.queued);
        let items = Arc::new(items.to_vec());
        let chunk = Chunk {
            emptied: Vec::new(),
            items,
            images: Vec::new(),
            taken,
            provenance,
            left,
            arriving: None,
            caught_up: false,
        };
        writer.write(chunk, Encoded::default()).await?;
    }
    Ok(writer.finish())
}
