//! The reading half of a comparison: pages of the source at the step's snapshot, in parts that the comparing half
//! can hold.

use crate::core::batch::{ColumnSet, Item, RowState};
use crate::core::error::{Error, Result};
use crate::core::keys::key_of;
use crate::core::message::MarkedKey;
use crate::core::value::{Cell, Key};
use crate::postgres::catalog::SourceTable;
use crate::postgres::rows::page;
use crate::sync::apply::budget::MOST_BYTES;
use crate::sync::session::Session;
use futures_util::TryStreamExt;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Rows compared by one request.
pub(in crate::sync) const CHUNK_ROWS: usize = 10_000;

/// Rows on their way to being compared.
#[derive(Default)]
pub(in crate::sync) struct Part {
    /// The rows that fit.
    pub items: Vec<Item>,
    /// Keys of rows that have a value that does not fit: as marked, and as SQLite may have them.
    pub unfit: Vec<(MarkedKey, Key)>,
    /// Where its range ends.
    pub ends: Ends,
}

/// Where the range of a part ends.
#[derive(Default)]
pub(in crate::sync) enum Ends {
    /// With its last row.
    #[default]
    Itself,
    /// At this key, which need not be one of its rows.
    At(Key),
    /// With the table.
    Table,
}

/// What reading pages gave.
#[derive(Default)]
pub(in crate::sync) struct PagesRead {
    /// Rows.
    pub rows: i64,
    /// The key behind which it goes on.
    pub cursor: Option<Vec<String>>,
    /// Nothing is left.
    pub is_end: bool,
}

/// Rows of a page while it compares: whoever wants the queue waits for a turn to end and then
/// for no more than a page to be read and compared.
const PAGE_ROWS: i64 = 4_000;

/// How long a step goes on comparing where nobody else wants the queue: its snapshot holds back vacuum, its locks hold
/// back DDL.
const STEP_TIME: Duration = Duration::from_secs(2);

/// What a step compares before it makes way for others: beginning one takes about half as long.
const TURN: Duration = Duration::from_millis(40);

/// The time of one step's comparison.
#[derive(Clone, Copy)]
pub(super) struct Share {
    began: Instant,
}

impl Share {
    /// That of a step that begins to compare.
    pub fn begin() -> Self {
        Self { began: Instant::now() }
    }

    /// Whether it is spent, or another worker wants the queue and the step had its turn.
    pub async fn is_spent(self, session: &Session<'_>) -> Result<bool> {
        let spent = self.began.elapsed();
        Ok(spent >= STEP_TIME || spent >= TURN && session.is_wanted().await?)
    }
}

/// Reads pages and sends them in parts until the sample or the step's share is spent. A page that Postgres cannot put
/// out is tried with fewer rows, until the row that is at fault stands alone.
pub(in crate::sync) async fn read_pages(
    session: &Session<'_>,
    source: &SourceTable,
    mut cursor: Option<Vec<String>>,
    quota: i64,
    share: Share,
    sender: mpsc::Sender<Part>,
) -> Result<PagesRead> {
    let sizes = &session.worker.page_sizes;
    let mut all = PagesRead::default();
    loop {
        let started = Instant::now();
        let rows = sizes.of(session.link.as_ref(), source).await?.min((quota - all.rows).max(1)).min(PAGE_ROWS);
        let mut page = PagesRead { cursor: cursor.clone(), ..PagesRead::default() };
        match session.attempt(source, read_page(session, source, rows, &sender, &mut page)).await? {
            Ok(()) if !page.is_end && (2..PAGE_ROWS).contains(&rows) => sizes.tune(source, rows, started.elapsed()),
            Ok(()) => {}
            Err(_) if rows > 1 => sizes.set(source, rows / 4), // it goes on behind what was sent of the page
            Err(_) => {
                sizes.forget(source);
                page = pass_over(session, source, cursor.as_ref(), &sender).await?;
            }
        }
        all.rows += page.rows;
        cursor = page.cursor;
        if page.is_end || all.rows >= quota || share.is_spent(session).await? {
            return Ok(PagesRead { cursor, is_end: page.is_end, ..all });
        }
    }
}

/// Reads the page behind `done.cursor`, which tells at any time what was sent.
async fn read_page(
    session: &Session<'_>,
    source: &SourceTable,
    rows: i64,
    sender: &mpsc::Sender<Part>,
    done: &mut PagesRead,
) -> Result<()> {
    let after = done.cursor.clone();
    let mut page = session.link.page(source, after.as_ref(), rows).await?;
    let columns: ColumnSet = (0..source.table.columns.len()).collect();
    let (mut part, mut bytes, mut read) = (Part::default(), 0, 0);
    while let Some(row) = page.try_next().await? {
        read += 1;
        match row {
            Ok((key, cells)) => {
                bytes += cells.iter().map(Cell::bytes).sum::<usize>();
                let state = RowState::Row { columns: columns.clone(), cells, replace: false };
                part.items.push(Item { table: source.table.clone(), key, state, images: Vec::new() });
            }
            Err(_) => part.unfit.push(unfit_key(source, &page.place()?.unwrap_or_default())),
        }
        // Only a row that fits may end a part: the next one begins behind it.
        let is_full = part.items.len() >= CHUNK_ROWS || bytes >= MOST_BYTES;
        if is_full && part.unfit.is_empty() {
            send(sender, std::mem::take(&mut part)).await?;
            (done.rows, done.cursor) = (read, page.place()?);
            bytes = 0;
        }
    }
    let (cursor, is_end) = (page.place()?, page.is_last());
    part.ends = match &cursor {
        Some(cursor) if !is_end => Ends::At(key_of(&source.table, &page::marked(source, cursor))),
        _ => Ends::Table,
    };
    send(sender, part).await?;
    *done = PagesRead { rows: read, cursor, is_end };
    Ok(())
}

/// The next row cannot be read at all.
async fn pass_over(
    session: &Session<'_>,
    source: &SourceTable,
    after: Option<&Vec<String>>,
    sender: &mpsc::Sender<Part>,
) -> Result<PagesRead> {
    let Some(cursor) = session.link.next_place(source, after).await? else { return Err(moved()) };
    let unfit = unfit_key(source, &cursor);
    let ends = Ends::At(unfit.1.clone());
    send(sender, Part { items: Vec::new(), unfit: vec![unfit], ends }).await?;
    Ok(PagesRead { rows: 1, cursor: Some(cursor), is_end: false })
}

fn unfit_key(source: &SourceTable, cursor: &Vec<String>) -> (MarkedKey, Key) {
    let marked = page::marked(source, cursor);
    let key = key_of(&source.table, &marked);
    (marked, key)
}

async fn send(sender: &mpsc::Sender<Part>, part: Part) -> Result<()> {
    // The comparing half is gone only if it failed, and then its error is the one to report.
    sender.send(part).await.map_err(|_| moved())
}

/// The two sides are no longer where they were.
pub(in crate::sync) fn moved() -> Error {
    Error::retry("the replica moved on while it was compared; it will be compared again")
}
