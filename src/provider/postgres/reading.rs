//! Reads what of one table has changed, in parts. Where one row cannot be read, it is found by halving, and stands aside.

use super::mark::{Mark, Place, text};
use super::view::Snapshot;
use crate::core::error::{Error, Result, Side};
use crate::core::failpoint::PullRule;
use crate::core::halving::{Search, halves};
use crate::core::message::MarkedKey;
use crate::postgres::Client;
use crate::postgres::catalog::SourceTable;
use crate::postgres::rows::fault::{Fault, NO_UTF8_KEY, unreadable};
use crate::postgres::rows::versions::{self, Leaves, Since, Tid, Version, Versions};
use crate::postgres::rows::{self, MarkedRow, STATEMENT_TIME};
use crate::provider::{Found, Limits, Look, Part, Unfit};
use futures_util::TryStreamExt;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use tokio::time::Instant;

/// Blocks of a walk: 128 MB, a fraction of a second.
const WALK_BLOCKS: u32 = 16_384;

/// Up to so many blocks a table is walked by one statement: 512 MB, of which some million places may come.
const SCAN_BLOCKS: u64 = 65_536;

/// The same of each leaf, where there are many.
const LEAST_BLOCKS: u32 = 16;

/// So many places are remembered; the rest is walked when these are read.
const MOST_PLACES: usize = 1_000_000;

/// Places that one statement reads.
const FETCH_PLACES: usize = 2_000;

/// Blocks that one statement reads where everything is: at first, and at most.
const FIRST_BLOCKS: u32 = 64;
const MOST_BLOCKS: u32 = 1_024;

/// Bytes that such a statement should bring.
const FETCH_BYTES: usize = 4 * 1024 * 1024;

/// Marked keys read at once.
const KEYS: usize = 500;

/// What is to be read by one statement.
enum Chunk {
    /// All rows in these blocks of all leaves.
    Blocks(Range<u32>),
    /// The rows at these places of a leaf.
    Places(u32, Vec<Tid>),
}

impl Chunk {
    fn first_block(&self) -> u32 {
        match self {
            Self::Blocks(blocks) => blocks.start,
            Self::Places(_, places) => places.first().map_or(0, |tid| tid.block),
        }
    }
}

/// A statement under way.
struct Running {
    chunk: Chunk,
    versions: Versions,
    since: Instant,
    bytes: usize,
}

/// The changes of one table, as they are read.
pub(super) struct Reading {
    source: Arc<SourceTable>,
    leaves: Leaves,
    /// Versions of transactions from this one on, and all of these leaves; `None`: everything.
    since: Option<(u64, Vec<u32>)>,
    xid: u64,
    /// Blocks before this one are read, or are in `todo`.
    next_block: u32,
    todo: VecDeque<Chunk>,
    running: Option<Running>,
    /// Blocks of the next statement.
    blocks: u32,
}

impl Reading {
    /// Begins to read what has changed since a mark, from a place on, and walks as far as its places can be remembered.
    pub async fn begin(
        client: &Client,
        source: Arc<SourceTable>,
        snapshot: &mut Snapshot,
        since: Option<&str>,
        place: Option<&str>,
    ) -> Result<(Self, Look)> {
        let leaves = versions::leaves(client, &source).await?;
        let now = Mark::of(snapshot.xid, &leaves);
        let mark = since.and_then(Mark::read).filter(|mark| versions::is_told(mark.xid, snapshot.xid));
        let place = place.and_then(|text| serde_json::from_str::<Place>(text).ok());
        let place = place.filter(|place| place.leaves == leaves.files || !PullRule::SameFiles.holds());
        let mut reading = Self {
            source: source.clone(),
            since: mark.as_ref().map(|mark| (mark.xid, mark.new_leaves(&leaves))),
            xid: snapshot.xid,
            next_block: place.as_ref().map_or(0, |place| place.block),
            leaves: leaves.clone(),
            todo: VecDeque::new(),
            running: None,
            blocks: FIRST_BLOCKS,
        };
        snapshot.leaves.insert(source.table.name.clone(), leaves);
        let is_far = mark.as_ref().is_none_or(|mark| mark.is_far_from(&now));
        let mut look = Look { mark: text(&now), is_far, ..Look::default() };
        look.place = place.as_ref().map(text);
        if reading.since.is_some() {
            let (count, changed) = reading.walk_all(client).await?;
            look.changed = Some(changed);
            let is_counted = place.is_none() && reading.next_block >= reading.leaves.blocks;
            look.count = is_counted.then_some(count);
        }
        Ok((reading, look))
    }

    /// Walks on until the end, or until there are many places; how many rows there are, and how many have changed.
    async fn walk_all(&mut self, client: &Client) -> Result<(i64, usize)> {
        let (mut count, mut changed) = (0, 0);
        while self.next_block < self.leaves.blocks && changed < MOST_PLACES {
            let (rows, places) = self.walk(client).await?;
            (count, changed) = (count + rows, changed + places);
        }
        Ok((count, changed))
    }

    async fn walk(&mut self, client: &Client) -> Result<(i64, usize)> {
        // Each of these blocks is one of every leaf.
        let leaves = u32::try_from(self.leaves.files.len()).unwrap_or(u32::MAX).max(1);
        let blocks = (WALK_BLOCKS / leaves).max(LEAST_BLOCKS);
        let is_scanned = self.next_block == 0 && self.leaves.all_blocks <= SCAN_BLOCKS;
        let end = match is_scanned {
            true => self.leaves.blocks,
            false => self.next_block.saturating_add(blocks).min(self.leaves.blocks),
        };
        let (xid, whole) = self.since.clone().unwrap_or_default();
        let since = Since::new(Some(xid), self.xid, &whole);
        let blocks = (!is_scanned).then_some(self.next_block..end);
        let walked = versions::walk(client, &self.source, blocks, since).await;
        let walked = walked.map_err(|e| self.of_table(e))?;
        self.next_block = end;
        let places = walked.places.values().map(Vec::len).sum();
        for (leaf, tids) in walked.places {
            self.todo.extend(tids.chunks(FETCH_PLACES).map(|part| Chunk::Places(leaf, part.to_vec())));
        }
        Ok((walked.count, places))
    }

    /// The matter of this table alone, where it is no passing one.
    fn of_table(&self, error: Error) -> Error {
        match Fault::of(&error, Instant::now(), STATEMENT_TIME) {
            Fault::Other => error,
            Fault::Row | Fault::Table | Fault::Slow => error.of_table(&self.source.table.name, Side::Source),
        }
    }

    /// Where another view may go on.
    fn place(&self) -> Place {
        let running = self.running.as_ref().map(|running| running.chunk.first_block());
        let todo = self.todo.iter().map(Chunk::first_block).min();
        let block = running.into_iter().chain(todo).min().unwrap_or(self.next_block);
        Place { block, leaves: self.leaves.files.clone() }
    }

    /// The next part.
    pub async fn next(&mut self, client: &Client, limits: Limits) -> Result<Part> {
        let mut part = Part::default();
        while part.found.len() < limits.rows && part.bytes < limits.bytes {
            if self.running.is_none() && !self.start(client, &mut part).await? {
                part.is_end = true;
                return Ok(part);
            }
            let Some(running) = &mut self.running else { continue };
            match running.versions.try_next().await {
                Ok(Some((version, bytes))) => {
                    (running.bytes, part.bytes) = (running.bytes + bytes, part.bytes + bytes);
                    part.found.push(found(version));
                }
                Ok(None) => self.finish(client, &mut part).await?,
                Err(error) => self.narrow(client, error, &mut part).await?,
            }
        }
        part.place = Some(text(&self.place()));
        Ok(part)
    }

    /// Starts the next statement; `false` where there is none.
    async fn start(&mut self, client: &Client, part: &mut Part) -> Result<bool> {
        while self.todo.is_empty() && self.next_block < self.leaves.blocks {
            match self.since {
                Some(_) => drop(self.walk(client).await?),
                None => {
                    let end = self.next_block.saturating_add(self.blocks).min(self.leaves.blocks);
                    self.todo.push_back(Chunk::Blocks(self.next_block..end));
                    self.next_block = end;
                }
            }
        }
        let Some(chunk) = self.todo.pop_front() else { return Ok(false) };
        client.batch_execute("savepoint pgflume_read").await?;
        let since = Instant::now();
        let started = match &chunk {
            Chunk::Blocks(blocks) => versions::within(client, &self.source, blocks.clone()).await,
            Chunk::Places(leaf, places) => versions::at(client, &self.source, *leaf, places).await,
        };
        match started {
            Ok(versions) => self.running = Some(Running { chunk, versions, since, bytes: 0 }),
            Err(error) => self.split(client, chunk, error, since, part).await?,
        }
        Ok(true)
    }

    /// A statement has ended well: what `where` leaves out of what it was to read is gone.
    async fn finish(&mut self, client: &Client, part: &mut Part) -> Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        client.batch_execute("release savepoint pgflume_read").await?;
        match running.chunk {
            Chunk::Places(leaf, places) if self.source.table.filter.is_some() => {
                let keys = versions::left_out(client, &self.source, leaf, &places).await;
                part.found.extend(keys.map_err(|e| self.of_table(e))?.into_iter().map(Found::Gone));
            }
            Chunk::Places(..) => {}
            Chunk::Blocks(_) if running.bytes < FETCH_BYTES => self.blocks = (self.blocks * 2).min(MOST_BLOCKS),
            Chunk::Blocks(_) if running.bytes > 4 * FETCH_BYTES => self.blocks = (self.blocks / 2).max(1),
            Chunk::Blocks(_) => {}
        }
        Ok(())
    }

    /// A statement has failed on its way.
    async fn narrow(&mut self, client: &Client, error: Error, part: &mut Part) -> Result<()> {
        let Some(running) = self.running.take() else { return Err(error) };
        let Running { chunk, versions, since, .. } = running;
        drop(versions);
        self.split(client, chunk, error, since, part).await
    }

    /// Cuts what could not be read; one row that stands alone stands aside.
    async fn split(
        &mut self,
        client: &Client,
        chunk: Chunk,
        error: Error,
        since: Instant,
        part: &mut Part,
    ) -> Result<()> {
        let fault = Fault::of(&error, since, STATEMENT_TIME);
        match fault {
            Fault::Row | Fault::Slow => client.batch_execute("rollback to savepoint pgflume_read").await?,
            Fault::Table => return Err(error.of_table(&self.source.table.name, Side::Source)),
            Fault::Other => return Err(error),
        }
        match chunk {
            Chunk::Blocks(blocks) => {
                let places = versions::places(client, &self.source, blocks).await?;
                places.into_iter().rev().for_each(|(leaf, tids)| self.todo.push_front(Chunk::Places(leaf, tids)));
            }
            Chunk::Places(leaf, places) if places.len() > 1 => {
                let [left, right] = halves(&(0..places.len()));
                for half in [right, left] {
                    self.todo.push_front(Chunk::Places(leaf, places[half].to_vec()));
                }
            }
            Chunk::Places(leaf, places) => {
                let Some(place) = places.first() else { return Ok(()) };
                let key = versions::key_at(client, &self.source, leaf, *place).await.map_err(|e| self.of_table(e))?;
                let problem = unreadable(&error, fault);
                let unfit = |(key, own)| Unfit { key, own, class: "source", problem };
                part.found.extend(key.map(unfit).map(Found::Unfit));
            }
        }
        Ok(())
    }
}

pub(super) fn found(version: Version) -> Found {
    match version {
        Version::Row(key, cells) => Found::Row(key, cells),
        Version::Unfit(key, own, problem) => Found::Unfit(Unfit { key, own, class: "value", problem }),
    }
}

/// Does `reading` behind a savepoint; `None` where one of the rows, or keys, is at fault.
pub(super) async fn attempt<T>(
    client: &Client,
    source: &SourceTable,
    reading: impl Future<Output = Result<T>>,
) -> Result<Option<T>> {
    client.batch_execute("savepoint pgflume_read").await?;
    let since = Instant::now();
    let done = match reading.await {
        Ok(done) => Some(done),
        Err(error) => match Fault::of(&error, since, STATEMENT_TIME) {
            Fault::Row | Fault::Slow => {
                client.batch_execute("rollback to savepoint pgflume_read").await?;
                None
            }
            Fault::Table => return Err(error.of_table(&source.table.name, Side::Source)),
            Fault::Other => return Err(error),
        },
    };
    client.batch_execute("release savepoint pgflume_read").await?;
    Ok(done)
}

/// The rows under these keys.
pub(super) async fn by_keys(client: &Client, source: &SourceTable, keys: &[MarkedKey]) -> Result<Vec<(usize, Found)>> {
    let mut found = Vec::with_capacity(keys.len());
    let mut search = Search::of(keys.len(), KEYS);
    while let Some(part) = search.take(KEYS) {
        let asked = &keys[part.clone()];
        let reading = async { rows::read(client, source, asked, false).await?.try_collect::<Vec<_>>().await };
        match attempt(client, source, reading).await? {
            Some(rows) => {
                let of_row = |row: MarkedRow| {
                    let position = part.start + row.position;
                    of_marked(source, asked, row).into_iter().map(move |found| (position, found))
                };
                found.extend(rows.into_iter().flat_map(of_row));
            }
            None if part.len() > 1 => search.halve(&part),
            None => {
                let problem = "Postgres cannot read the row under this key: correct the row".to_owned();
                found.push((
                    part.start,
                    Found::Unfit(Unfit { key: asked[0].clone(), own: None, class: "source", problem }),
                ));
            }
        }
    }
    Ok(found)
}

fn of_marked(source: &SourceTable, asked: &[MarkedKey], row: MarkedRow) -> Vec<Found> {
    let Some(marked) = asked.get(row.position) else { return Vec::new() };
    let own = row.key.as_ref().ok().cloned();
    let unfit =
        |problem: String| Found::Unfit(Unfit { key: marked.clone(), own: own.clone(), class: "value", problem });
    let key = match row.key {
        Ok(key) => key,
        Err(_) if marked.iter().any(|part| part.contains('\u{fffd}')) => return vec![unfit(NO_UTF8_KEY.to_owned())],
        Err(problem) => return vec![unfit(problem.to_string())],
    };
    match row.cells {
        None => vec![Found::Gone(key)],
        Some(Err(problem)) => vec![unfit(problem.to_string())],
        Some(Ok(cells)) => {
            let own: Vec<_> = source.table.key.iter().map(|&i| cells[i].clone()).collect();
            let other = (own != key).then_some(Found::Gone(key));
            other.into_iter().chain([Found::Row(own, cells)]).collect()
        }
    }
}
