//! Answers one request: a part of a table's rows as they were at a cut, or what became of them since. Nothing of a client
//! is kept here: where it is, it says itself.
//!
//! A walk through the rows leaves out the keys that were touched behind its cut: what it gives is as it was then. What became
//! of those follows from the log when the walk has ended. Of a key that was touched, the first row of the log behind a
//! client's cut tells what it was for the client, and the table what it is.

use super::body::{Body, Piece};
use super::change::Operation;
use super::changes::{Change, Changes, Found, Wanted};
use super::encode::{Messages, Types, must_refetch};
use super::limits::Means;
use super::offset::{Offset, Walked};
use super::shape::Shape;
use super::snapshot::{Snapshot, later};
use crate::core::error::Result;
use crate::core::value::{Cell, Key};
use crate::replica::Replica;
use crate::replica::feed_reads::Fed;
use std::sync::Arc;

/// What a client is told.
#[derive(Debug, Clone)]
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
    /// There is no memory for it now.
    Busy,
}

impl Answer {
    /// The same for one who writes, too: what is told sees this of the source, or more.
    pub(super) fn seeing(mut self, seen: Snapshot) -> Self {
        if let Self::Messages(told) | Self::Nothing(told) = &mut self
            && told.is_up_to_date
        {
            told.body.snapshot = later(told.body.snapshot.as_deref().cloned(), seen);
        }
        self
    }

    /// That what one has follows no more.
    pub(super) fn anew(shape: &Shape, generation: &str, cut: i64) -> Self {
        Self::Refetch { handle: shape.handle(generation, cut), body: must_refetch() }
    }

    /// The same for one who has a handle already, of the same history.
    pub(super) fn named(mut self, asked: &Asked<'_>) -> Self {
        if let (Self::Messages(told), Some(handle)) = (&mut self, asked.handle)
            && asked.offset != Offset::Start
        {
            told.handle = handle.to_owned();
        }
        self
    }
}

/// An answer's parts.
#[derive(Debug, Clone)]
pub struct Told {
    /// What is told.
    pub body: Body,
    /// What to ask for next.
    pub offset: Offset,
    /// Its name.
    pub handle: String,
    /// The types of its columns, where one asks who does not wait.
    pub schema: Option<String>,
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
    pub async fn answer(&self, replica: &Replica, means: &Means) -> Result<Answer> {
        let Some(fed) = replica.fed(&self.shape.table).await? else { return Ok(Answer::Unready) };
        let Some(cut) = fed.begins_at() else { return Ok(Answer::Unready) };
        let (since, walked) = match self.offset {
            Offset::Start => return self.walk(replica, &fed, (cut, None), means).await,
            Offset::Now => {
                let Some(cut) = fed.at_cut() else { return Ok(Answer::Unready) };
                return Ok(Answer::Messages(self.told(&fed, Body::at(cut), Offset::At(cut, Walked::Done))));
            }
            Offset::At(since, walked) => (since, walked),
        };
        if !self.follows(&fed) || since < fed.floor {
            return Ok(self.refetch(&fed, cut));
        }
        if since > fed.pos {
            return Ok(Answer::Unready); // it has been told of more than this replica has
        }
        match walked {
            Walked::To(rowid) => self.walk(replica, &fed, (since, Some(rowid)), means).await,
            Walked::Done | Walked::ToEnd => self.changes(replica, since, walked, means).await,
        }
    }

    /// Whether what the client has is of what is there.
    fn follows(&self, fed: &Fed) -> bool {
        self.handle.is_some_and(|handle| self.shape.is_named(handle, &fed.generation))
    }

    /// A part of the rows as they were at a cut.
    async fn walk(
        &self,
        replica: &Replica,
        before: &Fed,
        (since, mut after): (i64, Option<i64>),
        means: &Means,
    ) -> Result<Answer> {
        let (Shape { table, allowed, .. }, needed, limits) = (self.shape, self.shape.needed(), means.limits);
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
        let Some(piece) = Piece::of(messages, &means.memory) else { return Ok(Answer::Busy) };
        let body = Body { pieces: vec![Arc::new(piece)], up_to_date: None, snapshot: None };
        Ok(Answer::Messages(self.told(before, body, Offset::At(since, walked))))
    }

    /// What has changed behind a cut, where the replica is at one.
    async fn changes(&self, replica: &Replica, since: i64, walked: Walked, means: &Means) -> Result<Answer> {
        let (table, needed) = (&*self.shape.table, self.shape.needed());
        let keep = |change: &Change| self.shape.is_touched(change);
        let wanted = Wanted { table, needed: &needed, since, keep, limits: means.limits };
        let (fed, cut, Changes { all, .. }) = match wanted.read(replica, |fed| self.follows(fed)).await? {
            Found::Unready | Found::Overtaken => return Ok(Answer::Unready),
            Found::Broken(fed) => return Ok(fed.begins_at().map_or(Answer::Unready, |cut| self.refetch(&fed, cut))),
            Found::Apart(fed) => {
                return Ok(Answer::Nothing(self.told(&fed, Body::default(), Offset::At(since, walked))));
            }
            Found::TooMuch(fed, cut) => return Ok(self.refetch(&fed, cut)),
            Found::Changes(fed, cut, changes) => (fed, cut, changes),
        };
        let types = Types::read(fed.types.as_deref());
        let messages = Messages::of(self.shape, &types, cut, &all, walked == Walked::ToEnd);
        let Some(piece) = Piece::of(messages, &means.memory) else { return Ok(Answer::Busy) };
        let is_nothing = piece.is_empty() && walked == Walked::Done;
        let snapshot = fed.seen.clone().map(Arc::new);
        let body = Body { pieces: vec![Arc::new(piece)], up_to_date: Some(cut), snapshot };
        let told = self.told(&fed, body, Offset::At(cut, Walked::Done));
        Ok(if is_nothing { Answer::Nothing(told) } else { Answer::Messages(told) })
    }

    fn told(&self, fed: &Fed, body: Body, offset: Offset) -> Told {
        // Whoever begins gets a handle of its own: others are given the same answer.
        let known = self.handle.filter(|_| matches!(self.offset, Offset::At(..)));
        let named = known.filter(|handle| self.shape.is_named(handle, &fed.generation));
        let cut = if let Offset::At(cut, _) = offset { cut } else { fed.pos };
        Told {
            is_up_to_date: body.up_to_date.is_some(),
            body,
            offset,
            handle: named.map_or_else(|| self.shape.handle(&fed.generation, cut), str::to_owned),
            schema: Some(Types::read(fed.types.as_deref()).schema(self.shape)),
        }
    }

    fn refetch(&self, fed: &Fed, cut: i64) -> Answer {
        Answer::anew(self.shape, &fed.generation, cut)
    }
}
