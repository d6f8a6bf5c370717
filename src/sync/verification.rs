//! The comparing part of a step: after the queue is drained and all of it is applied, pages of the source
//! at the step's snapshot are compared with the replica, in both directions. Differences may be mended in
//! the same step. Goes on from step to step until every table is compared.

use super::Session;
use super::pages::{SWEEP_KEYS, absent, key_of, texts_of, tuned};
use super::reader::{BATCH_BYTES, is_table_error};
use super::step::Finished;
use super::writer::{Applied, Chunk, Writer};
use crate::batch::{ColumnSet, Item, State};
use crate::error::{Error, Result};
use crate::message::{self, Message};
use crate::queue::{self, Snapshot};
use crate::replica::Replica;
use crate::replica::compare::KeyRange;
use crate::replica::head::Head;
use crate::schema::catalog::SourceTable;
use crate::source::page::{self, Range};
use crate::value::{Cell, Key};
use crate::verified::{self, Pass, Phase};
use crate::verify::{Counters, EXAMPLES, Example, Kind, Options, Report, TableReport};
use futures_util::TryStreamExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long a step goes on comparing: its snapshot holds back vacuum, its locks hold back DDL.
const STEP_TIME: Duration = Duration::from_secs(2);

/// Rows compared by one request.
const CHUNK_ROWS: usize = 10_000;

/// How long a read replica may take to come to the position of the replica.
const CATCH_UP: Duration = Duration::from_secs(20);

/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A check under way.
pub struct Verification {
    options: Options,
    /// The database to look at in place of the replica.
    target: Option<Replica>,
    counters: Arc<Counters>,
    /// Tables that are still to be compared, the one in hand last.
    todo: Vec<String>,
    pass: Option<Pass>,
    /// Rows that the sample still has for the table in hand.
    quota: Option<i64>,
    began: Instant,
    report: Report,
}

/// What one table is compared with.
struct Here<'a> {
    session: &'a Session<'a>,
    source: &'a SourceTable,
    /// Where the replica is.
    head: &'a Head,
    /// Dead letters of any table: its name, and the key as it was marked.
    dead: &'a BTreeSet<(String, Vec<String>)>,
}

impl Here<'_> {
    fn is_dead(&self, key: &Key) -> bool {
        let texts = texts_of(key).unwrap_or_default();
        self.dead.contains(&(self.source.table.name.clone(), texts))
    }
}

/// Rows on their way to being compared.
struct Part {
    items: Vec<Item>,
    /// Whether the table ends with them.
    is_end: bool,
}

/// What reading pages gave.
#[derive(Default)]
struct PagesRead {
    rows: i64,
    cursor: Option<Vec<String>>,
    is_end: bool,
    unfit: u64,
}

impl Verification {
    /// A check that has not begun.
    pub(crate) fn new(options: Options, target: Option<Replica>, counters: Arc<Counters>) -> Self {
        let mut todo = options.tables.clone();
        todo.reverse();
        let (pass, quota) = (None, None);
        Self { options, target, counters, todo, pass, quota, began: Instant::now(), report: Report::default() }
    }

    /// Whether every table is compared.
    pub(super) fn is_done(&self) -> bool {
        self.todo.is_empty()
    }

    /// The tables that are still to be compared.
    pub(super) fn tables(&self) -> &[String] {
        &self.todo
    }

    /// What was found.
    pub(super) fn into_report(self) -> Report {
        self.report
    }

    fn table(&mut self, name: &str) -> &mut TableReport {
        self.report.tables.entry(name.to_owned()).or_default()
    }

    /// Compares what the step's time allows; where the replica is after what was mended. A failure leaves
    /// the check where it was.
    pub(super) async fn run(
        &mut self,
        session: &Session<'_>,
        snapshot: &Snapshot,
        applied: Applied,
    ) -> Result<Finished> {
        let before = (self.todo.clone(), self.pass.clone(), self.quota, self.report.clone());
        let done = self.try_run(session, snapshot, applied).await;
        if done.is_err() {
            (self.todo, self.pass, self.quota, self.report) = before;
        }
        done
    }

    async fn try_run(&mut self, session: &Session<'_>, snapshot: &Snapshot, mut applied: Applied) -> Result<Finished> {
        let deadline = Instant::now() + STEP_TIME;
        let dead = dead_keys(session).await?;
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
            self.wait_for_target(session, &applied.head).await?;
            let mut pass = self.begin(session, source).await?;
            self.table(&name); // named in the report whatever comes of it
            let mut repairs = Vec::new();
            let here = Here { session, source, head: &applied.head, dead: &dead };
            match pass.phase {
                Phase::Compare => self.compare(&here, &mut pass, &mut repairs, deadline).await?,
                _ => self.sweep(&here, &mut pass, &mut repairs).await?,
            }
            if self.options.repair && !repairs.is_empty() {
                self.table(&name).repaired += repairs.len() as u64;
                applied = repair(session, snapshot, applied, repairs).await?;
            }
            has_saved |= self.put_down(session, &name, pass).await?;
            if Instant::now() >= deadline || session.worker.is_stopping() {
                break;
            }
        }
        Ok(Finished { applied, has_saved })
    }

    fn give_up(&mut self, name: &str, problem: String) {
        tracing::error!(table = name, "this table cannot be compared: {problem}");
        self.table(name).problem = Some(problem);
        (self.pass, self.quota) = (None, None);
        self.todo.pop();
    }

    fn problem(&self, session: &Session<'_>, source: &SourceTable) -> Option<String> {
        let name = &source.table.name;
        if session.paused.contains(name) {
            return Some("its marks wait, see the log: mend that first".into());
        }
        let waits = session.pending.iter().any(|r| r.name == *name) && session.stuck.contains(name);
        if waits {
            return Some("it waits to be rebuilt, see `pgflume status`: mend that first".into());
        }
        source.unpageable()
    }

    /// The pass of the table in hand.
    async fn begin(&mut self, session: &Session<'_>, source: &SourceTable) -> Result<Pass> {
        if let Some(pass) = self.pass.take() {
            return Ok(pass);
        }
        self.began = Instant::now();
        let Some(share) = self.options.sample else { return Ok(Pass::default()) };
        let rows = page::estimate(&session.client, source).await?.unwrap_or_default().max(1_000);
        self.quota = Some((rows as f64 * share).ceil() as i64);
        verified::load(&session.client, &session.worker.queue, &source.table.name).await
    }

    /// Ends the table in hand where it is compared, or its sample is. Whether something was saved.
    async fn put_down(&mut self, session: &Session<'_>, name: &str, pass: Pass) -> Result<bool> {
        let is_whole = pass.phase == Phase::Done;
        let is_sampled = self.options.sample.is_some();
        let (client, queue) = (&session.client, &session.worker.queue);
        if is_whole {
            let since = (!is_sampled).then(|| self.began.elapsed().as_secs_f64());
            verified::finish(client, queue, name, &pass, since).await?;
            self.table(name).is_whole = true;
        } else if is_sampled {
            verified::save(client, queue, name, &pass).await?;
        }
        if is_whole || self.quota.is_some_and(|quota| quota <= 0) {
            (self.pass, self.quota) = (None, None);
            self.todo.pop();
        } else {
            self.pass = Some(pass);
        }
        Ok(is_whole || is_sampled)
    }

    /// Whoever compares a read replica waits until it has come to the replica's position, which does not
    /// move meanwhile.
    async fn wait_for_target(&self, session: &Session<'_>, head: &Head) -> Result<()> {
        let Some(target) = &self.target else { return Ok(()) };
        let began = Instant::now();
        while target.head_read().await?.as_ref() != Some(head) {
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
        Ok(())
    }

    /// Pages of the source, in key order, are looked for in the replica. Reading runs one part ahead.
    async fn compare(
        &mut self,
        here: &Here<'_>,
        pass: &mut Pass,
        repairs: &mut Vec<Item>,
        deadline: Instant,
    ) -> Result<()> {
        let (sender, receiver) = mpsc::channel(1);
        let quota = self.quota.unwrap_or(i64::MAX);
        let reading = read_pages(here, pass.cursor.clone(), quota, deadline, sender);
        let after = pass.cursor.as_ref().map(|cursor| key_of(here.source, &page::marked(here.source, cursor)));
        let comparing = self.compare_parts(here, after, receiver, repairs);
        // Reading fails too if comparing does: its error is the one to report.
        let (compared, read) = futures_util::join!(comparing, reading);
        let differences = compared?;
        let read = read?;
        let report = self.table(&here.source.table.name);
        report.rows += read.rows as u64;
        report.dead += read.unfit;
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
            let last = part.items.last().map(|item| item.key.clone());
            let up_to = if part.is_end { None } else { last.as_ref() };
            let range = KeyRange { after: after.as_ref(), up_to };
            differences += self.compare_part(here, &part, range, repairs).await?;
            after = last.or(after);
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
        let table = &here.source.table;
        let replica = self.target.as_ref().unwrap_or(&here.session.replica);
        let ranged = here.source.sorts_alike().then_some(range);
        let found = replica.compare(table, &part.items, ranged, here.head).await?.ok_or_else(moved)?;
        let mut gone = Vec::new();
        let matched = part.items.len() - found.missing.len();
        if ranged.is_some() && found.in_range != matched as i64 {
            let expected: BTreeSet<&Key> = part.items.iter().map(|item| &item.key).collect();
            gone = replica.keys_in(table, range).await?;
            gone.retain(|key| !expected.contains(key));
        }
        let mut wrong: Vec<(Kind, Item)> = Vec::new();
        wrong.extend(found.missing.iter().map(|&i| (Kind::Missing, part.items[i].clone())));
        wrong.extend(found.different.iter().map(|&i| (Kind::Different, part.items[i].clone())));
        wrong.extend(gone.into_iter().map(|key| (Kind::Extra, gone_item(here.source, key))));
        let differences = self.note(here, wrong, repairs).await?;
        self.counters.add(part.items.len() as u64, differences as u64);
        Ok(differences)
    }

    /// Keys of the replica are looked for in the source: where its order is another than the source's, what
    /// only it has is found no other way.
    async fn sweep(&mut self, here: &Here<'_>, pass: &mut Pass, repairs: &mut Vec<Item>) -> Result<()> {
        let source = here.source;
        let replica = self.target.as_ref().unwrap_or(&here.session.replica);
        let after = pass.cursor.as_ref().map(|texts| key_of(source, texts));
        let keys = replica.read_keys_after(&source.table, after.as_ref(), SWEEP_KEYS).await?;
        let is_short = (keys.len() as i64) < SWEEP_KEYS;
        let known: Vec<(Key, Vec<String>)> =
            keys.into_iter().filter_map(|key| texts_of(&key).map(|texts| (key, texts))).collect();
        let gone = absent(here.session, source, &known).await?;
        let wrong = gone.into_iter().map(|i| (Kind::Extra, gone_item(source, known[i].0.clone()))).collect();
        let differences = self.note(here, wrong, repairs).await?;
        self.counters.add(0, differences as u64);
        pass.different += differences;
        pass.cursor = known.last().map(|(_, texts)| texts.clone());
        self.quota = self.quota.map(|quota| quota - known.len() as i64);
        if is_short || known.is_empty() {
            (pass.phase, pass.cursor) = (Phase::Done, None);
        }
        Ok(())
    }

    /// Counts what is wrong, shows the first of it, and leaves it to be mended. Dead letters stand aside.
    async fn note(&mut self, here: &Here<'_>, wrong: Vec<(Kind, Item)>, repairs: &mut Vec<Item>) -> Result<i64> {
        let name = &here.source.table.name;
        let mut differences = 0;
        for (kind, item) in wrong {
            if here.is_dead(&item.key) {
                self.table(name).dead += 1;
                continue;
            }
            differences += 1;
            let report = self.table(name);
            match kind {
                Kind::Different => report.different += 1,
                Kind::Missing => report.missing += 1,
                Kind::Extra => report.extra += 1,
            }
            if report.examples.len() < EXAMPLES {
                let columns = if kind == Kind::Different { self.columns(here, &item).await? } else { Vec::new() };
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
        let replica = self.target.as_ref().unwrap_or(&here.session.replica);
        let (Some(found), State::Row { cells, .. }) = (replica.row(table, &item.key).await?, &item.state) else {
            return Ok(Vec::new());
        };
        let differs = |i: &usize| found.get(*i) != cells.get(*i);
        Ok((0..table.columns.len()).filter(differs).map(|i| table.columns[i].name.clone()).collect())
    }
}

fn moved() -> Error {
    Error::retry("the replica moved on while it was compared; it will be compared again")
}

fn gone_item(source: &SourceTable, key: Key) -> Item {
    Item { table: source.table.clone(), key, state: State::Gone, images: Vec::new() }
}

/// Reads pages and sends them in parts until the time or the sample is spent.
async fn read_pages(
    here: &Here<'_>,
    mut cursor: Option<Vec<String>>,
    quota: i64,
    deadline: Instant,
    sender: mpsc::Sender<Part>,
) -> Result<PagesRead> {
    let sizes = &here.session.worker.page_rows;
    let mut all = PagesRead::default();
    loop {
        let started = Instant::now();
        let rows = sizes.load(Ordering::Relaxed).min((quota - all.rows).max(1));
        let page = read_page(here, cursor.as_ref(), rows, &sender).await?;
        if !page.is_end {
            sizes.store(tuned(rows, rows, started.elapsed()), Ordering::Relaxed);
        }
        all.rows += page.rows;
        all.unfit += page.unfit;
        cursor = page.cursor;
        if page.is_end || all.rows >= quota || Instant::now() >= deadline {
            return Ok(PagesRead { cursor, is_end: page.is_end, ..all });
        }
    }
}

async fn read_page(
    here: &Here<'_>,
    after: Option<&Vec<String>>,
    rows: i64,
    sender: &mpsc::Sender<Part>,
) -> Result<PagesRead> {
    let (client, source) = (&here.session.client, here.source);
    let of_table = |e: Error| if is_table_error(&e) { e.of_table(&source.table.name) } else { e };
    let boundary = match page::wants_boundary(source) {
        true => page::boundary(client, source, after, rows).await.map_err(of_table)?,
        false => None,
    };
    let range = Range { after, up_to: boundary.as_ref(), rows };
    let mut stream = page::read(client, source, range).await.map_err(of_table)?;
    let columns: ColumnSet = (0..source.table.columns.len()).collect();
    let mut page = PagesRead::default();
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
    let send = |items, is_end| async move { sender.send(Part { items, is_end }).await.map_err(|_| moved()) };
    while let Some(row) = stream.try_next().await.map_err(|e| of_table(e.into()))? {
        page.rows += 1;
        match page::decode(source, &row)? {
            Ok((key, cells)) => {
                bytes += cells.iter().map(Cell::bytes).sum::<usize>();
                let state = State::Row { columns: columns.clone(), cells, replace: false };
                items.push(Item { table: source.table.clone(), key, state, images: Vec::new() });
            }
            Err(_) => page.unfit += 1,
        }
        if items.len() >= CHUNK_ROWS || bytes >= BATCH_BYTES {
            send(std::mem::take(&mut items), false).await?;
            bytes = 0;
        }
        last = Some(row);
    }
    page.is_end = if page::wants_boundary(source) { boundary.is_none() } else { page.rows < rows };
    page.cursor = match (boundary, last) {
        (Some(boundary), _) => Some(boundary),
        (None, Some(row)) => Some(page::cursor(source, &row)?),
        (None, None) => after.cloned(),
    };
    if !items.is_empty() || page.is_end {
        send(items, page.is_end).await?;
    }
    Ok(page)
}

/// Keys that are known not to be what they should.
async fn dead_keys(session: &Session<'_>) -> Result<BTreeSet<(String, Vec<String>)>> {
    let mut keys = BTreeSet::new();
    for letter in queue::dead_letters(&session.client, &session.worker.queue).await? {
        match letter {
            queue::Dead::Key(table, key) => drop(keys.insert((table, key))),
            queue::Dead::Message(text) => {
                if let Ok(Message::Image(table, _, marked)) = message::parse(&text, &session.worker.schema) {
                    keys.extend(marked.into_iter().map(|key| (table.name.clone(), key)));
                }
            }
        }
    }
    Ok(keys)
}

/// Writes what should be there, as one more batch of the step.
async fn repair(session: &Session<'_>, snapshot: &Snapshot, applied: Applied, items: Vec<Item>) -> Result<Applied> {
    tracing::info!(repair.rows = items.len(), "differences are mended");
    let mut writer = Writer::resume(&session.replica, snapshot, applied);
    let chunk = Chunk {
        emptied: Vec::new(),
        items: Arc::new(items),
        images: Vec::new(),
        taken: Arc::default(),
        left: session.queued,
        caught_up: false,
    };
    writer.write(chunk).await?;
    Ok(writer.finish())
}
