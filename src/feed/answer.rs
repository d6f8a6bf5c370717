//! Answers one request: a part of a table's rows as they were at a cut, or what became of them since. Nothing of a client
//! is kept here: where it is, it says itself.
//!
//! A walk through the rows leaves out the keys that were touched behind its cut: what it gives is as it was then. What became
//! of those follows from the log when the walk has ended. Of a key that was touched, the first row of the log behind a
//! client's cut tells what it was for the client, and the table what it is.

use super::change::{Operation, operations};
pub use super::encode::Messages;
use super::encode::{Types, must_refetch};
use super::offset::{Offset, Walked};
use super::shape::Shape;
use crate::core::error::Result;
use crate::core::failpoint::FeedRule;
use crate::core::value::{Cell, Key};
use crate::replica::Replica;
use crate::replica::feed_reads::{Fed, Touched};

/// How much one answer holds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows that are read first; then as many as come to `page_bytes`.
    pub rows: usize,
    /// What is read at once, about.
    pub page_bytes: usize,
    /// A part of a walk ends behind so many bytes.
    pub part_bytes: usize,
    /// What has changed is not given in more bytes than this, nor of more keys: the client begins anew.
    pub most_bytes: usize,
    /// See there.
    pub most_keys: usize,
}

/// Those of a server. A row may be as large as `MAX_ROW_BYTES`, so it begins with few; a server of libSQL answers 10 MB.
pub const LIMITS: Limits =
    Limits { rows: 20, page_bytes: 1 << 20, part_bytes: 1 << 20, most_bytes: 64 << 20, most_keys: 200_000 };

/// Most rows that are read at once.
const MOST_ROWS: usize = 5_000;

impl Limits {
    /// How many rows are read next, after so many that came to so many bytes.
    fn next(&self, rows: usize, bytes: usize) -> usize {
        let fitting = (rows * self.page_bytes).checked_div(bytes).unwrap_or(MOST_ROWS);
        fitting.clamp(1, (rows * 10).clamp(1, MOST_ROWS))
    }
}

/// How often a reading is begun that batches overtake.
const TRIES: usize = 4;

/// What a client is told.
#[derive(Debug)]
pub enum Answer {
    /// Messages.
    Messages(Told),
    /// Nothing has changed behind its offset, or not to a cut yet. What it is to ask for next.
    Nothing(Told),
    /// What it has follows no more from what there is: it begins anew, by this handle.
    Refetch {
        /// The handle.
        handle: String,
        /// The messages.
        body: String,
    },
    /// The table is not whole yet.
    Unready,
}

/// An answer's parts.
#[derive(Debug)]
pub struct Told {
    /// What is told.
    pub messages: Messages,
    /// What to ask for next.
    pub offset: Offset,
    /// Its name.
    pub handle: String,
    /// The types of its columns.
    pub schema: String,
    /// It has all that there is.
    pub is_up_to_date: bool,
}

/// One request.
pub struct Asked<'a> {
    /// What for.
    pub shape: &'a Shape,
    /// From where on.
    pub offset: Offset,
    /// By which name it has what came before.
    pub handle: Option<&'a str>,
}

impl Asked<'_> {
    /// Answers it from the replica.
    pub async fn answer(&self, replica: &Replica, limits: Limits) -> Result<Answer> {
        let Some(fed) = replica.fed(&self.shape.table).await? else { return Ok(Answer::Unready) };
        let Some(cut) = fed.begins_at() else { return Ok(Answer::Unready) };
        let (since, walked) = match self.offset {
            Offset::Start => return self.walk(replica, &fed, (cut, None), limits).await,
            Offset::Now => {
                let Some(cut) = fed.at_cut() else { return Ok(Answer::Unready) };
                let mut messages = Messages::default();
                messages.push_up_to_date(cut);
                return Ok(Answer::Messages(self.told(&fed, messages, Offset::At(cut, Walked::Done), true)));
            }
            Offset::At(since, walked) => (since, walked),
        };
        if !self.handle.is_some_and(|handle| self.shape.is_named(handle, &fed.generation)) || since < fed.floor {
            return Ok(self.refetch(&fed, cut));
        }
        if since > fed.pos {
            return Ok(Answer::Unready); // it has been told of more than this replica has
        }
        match walked {
            Walked::To(rowid) => self.walk(replica, &fed, (since, Some(rowid)), limits).await,
            Walked::Done | Walked::ToEnd => self.changes(replica, since, walked, limits).await,
        }
    }

    /// A part of the rows as they were at a cut.
    async fn walk(
        &self,
        replica: &Replica,
        before: &Fed,
        (since, mut after): (i64, Option<i64>),
        limits: Limits,
    ) -> Result<Answer> {
        let (Shape { table, allowed, .. }, needed) = (self.shape, self.shape.needed());
        let (mut messages, types) = (Messages::default(), Types::read(before.types.as_deref()));
        let mut size = limits.rows;
        let is_end = loop {
            let page = replica.fed_page(table, &needed, (since, after), allowed, size).await?;
            let Some((fed, rows)) = page else { return Ok(Answer::Unready) };
            if fed.generation != before.generation || !fed.is_whole || since < fed.floor {
                return Ok(fed.begins_at().map_or(Answer::Unready, |cut| self.refetch(&fed, cut)));
            }
            for row in &rows {
                let key: Key = table.key.iter().filter_map(|&at| row.cells.get(at).cloned()).collect();
                messages.push(self.shape, &types, Operation::Insert, &key, Some(&row.cells));
            }
            after = rows.last().map(|row| row.rowid).or(after);
            if rows.len() < size {
                break true;
            }
            if messages.bytes() >= limits.part_bytes {
                break false;
            }
            size = limits.next(size, rows.iter().flat_map(|row| &row.cells).map(Cell::bytes).sum());
        };
        let walked = if is_end { Walked::ToEnd } else { after.map_or(Walked::ToEnd, Walked::To) };
        Ok(Answer::Messages(self.told(before, messages, Offset::At(since, walked), false)))
    }

    /// What has changed behind a cut, where the replica is at one.
    async fn changes(&self, replica: &Replica, since: i64, walked: Walked, limits: Limits) -> Result<Answer> {
        for _ in 0..TRIES {
            if let Some(answer) = self.changes_once(replica, since, walked, limits).await? {
                return Ok(answer);
            }
        }
        Ok(Answer::Unready)
    }

    /// The same; `None` where batches touched the table meanwhile.
    async fn changes_once(
        &self,
        replica: &Replica,
        since: i64,
        walked: Walked,
        limits: Limits,
    ) -> Result<Option<Answer>> {
        let (table, needed) = (&self.shape.table, self.shape.needed());
        let found = replica.fed_touched(table, since, limits.most_keys + 1).await?;
        let Some((fed, touched)) = found else { return Ok(Some(Answer::Unready)) };
        let is_named = self.handle.is_some_and(|handle| self.shape.is_named(handle, &fed.generation));
        if !is_named || since < fed.floor {
            return Ok(Some(fed.begins_at().map_or(Answer::Unready, |cut| self.refetch(&fed, cut))));
        }
        let Some(cut) = fed.at_cut().filter(|cut| since <= *cut) else {
            let told = self.told(&fed, Messages::default(), Offset::At(since, walked), false);
            return Ok(Some(Answer::Nothing(told)));
        };
        let (mut messages, types) = (Messages::up_to(cut), Types::read(fed.types.as_deref()));
        let (mut rest, mut size) = (&touched[..], limits.rows);
        while !rest.is_empty() {
            if touched.len() > limits.most_keys || messages.bytes() > limits.most_bytes {
                return Ok(Some(self.refetch(&fed, cut)));
            }
            let (part, others) = rest.split_at(size.min(rest.len()));
            let read = replica.fed_rows(table, &needed, part).await?;
            let Some((now, rows)) = read else { return Ok(Some(Answer::Unready)) };
            if now.generation != fed.generation || now.last != fed.last {
                return Ok(None);
            }
            let bytes = rows.iter().filter_map(|(_, cells)| cells.as_ref()).flatten().map(Cell::bytes).sum();
            for (touched, (key, cells)) in part.iter().zip(rows) {
                self.push(&mut messages, &types, touched, (&key, cells.as_deref()), walked == Walked::ToEnd);
            }
            (rest, size) = (others, limits.next(size, bytes));
        }
        let is_nothing = messages.is_empty() && walked == Walked::Done;
        messages.push_up_to_date(cut);
        let told = self.told(&fed, messages, Offset::At(cut, Walked::Done), true);
        Ok(Some(if is_nothing { Answer::Nothing(told) } else { Answer::Messages(told) }))
    }

    fn push(
        &self,
        messages: &mut Messages,
        types: &Types,
        touched: &Touched,
        (key, cells): (&Key, Option<&[Cell]>),
        may_lack: bool,
    ) {
        let was = touched.was.as_ref().is_some_and(|was| self.shape.had(was) || !FeedRule::Before.holds());
        let now = cells.filter(|cells| self.shape.has(cells));
        for operation in operations(was, now.is_some(), may_lack && FeedRule::Pair.holds()) {
            messages.push(self.shape, types, *operation, key, now.filter(|_| *operation != Operation::Delete));
        }
    }

    fn told(&self, fed: &Fed, messages: Messages, offset: Offset, is_up_to_date: bool) -> Told {
        let named = self.handle.filter(|handle| self.shape.is_named(handle, &fed.generation));
        let cut = if let Offset::At(cut, _) = offset { cut } else { fed.pos };
        Told {
            messages,
            offset,
            handle: named.map_or_else(|| self.shape.handle(&fed.generation, cut), str::to_owned),
            schema: Types::read(fed.types.as_deref()).schema(self.shape),
            is_up_to_date,
        }
    }

    fn refetch(&self, fed: &Fed, cut: i64) -> Answer {
        Answer::Refetch { handle: self.shape.handle(&fed.generation, cut), body: must_refetch() }
    }
}
