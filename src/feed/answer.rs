//! Answers one request: a part of a table's rows as they were at a cut, or what became of them since. Nothing of a client
//! is kept here: where it is, it says itself.
//!
//! A walk through the rows leaves out the keys that were touched behind its cut: what it gives is as it was then. What became
//! of those follows from the log when the walk has ended. Of a key that was touched, the first row of the log behind a
//! client's cut tells what it was for the client, and the table what it is.

use super::change::{Operation, operations};
use super::encode::{Messages, Types, must_refetch};
use super::offset::{Offset, Walked};
use super::shape::Shape;
use crate::core::error::Result;
use crate::core::failpoint::FeedRule;
use crate::core::value::Key;
use crate::replica::Replica;
use crate::replica::feed_reads::{Fed, Touched};

/// How much one answer holds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows that are read at once.
    pub rows: usize,
    /// A part of a walk ends behind so many bytes.
    pub part_bytes: usize,
    /// What has changed is not given in more bytes than this: the client begins anew.
    pub most_bytes: usize,
}

/// Those of a server.
pub const LIMITS: Limits = Limits { rows: 500, part_bytes: 1 << 20, most_bytes: 32 << 20 };

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
    /// Messages, as a JSON array.
    pub body: String,
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
        let Some(cut) = fed.cut.filter(|_| fed.is_whole) else { return Ok(Answer::Unready) };
        let (since, walked) = match self.offset {
            Offset::Start => return self.walk(replica, &fed, (cut, None), limits).await,
            Offset::Now => {
                let told = self.told(&fed, Messages::default(), Offset::At(cut, Walked::Done), true);
                return Ok(Answer::Messages(told));
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
        let Shape { table, allowed, .. } = self.shape;
        let (mut messages, types) = (Messages::default(), Types::read(before.types.as_deref()));
        let is_end = loop {
            let page = replica.fed_page(table, (since, after), allowed, limits.rows).await?;
            let Some((fed, rows)) = page else { return Ok(Answer::Unready) };
            if fed.generation != before.generation || !fed.is_whole || since < fed.floor {
                return Ok(self.refetch(&fed, fed.cut.unwrap_or(fed.pos)));
            }
            for row in &rows {
                let key: Key = table.key.iter().filter_map(|&at| row.cells.get(at).cloned()).collect();
                messages.push(self.shape, &types, Operation::Insert, &key, Some(&row.cells));
            }
            after = rows.last().map(|row| row.rowid).or(after);
            if rows.len() < limits.rows {
                break true;
            }
            if messages.bytes() >= limits.part_bytes {
                break false;
            }
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

    /// The same; `None` where batches came meanwhile.
    async fn changes_once(
        &self,
        replica: &Replica,
        since: i64,
        walked: Walked,
        limits: Limits,
    ) -> Result<Option<Answer>> {
        let (mut messages, mut place, mut before) = (Messages::default(), String::new(), None::<Fed>);
        loop {
            let part = replica.fed_changes(&self.shape.table, (since, &place), limits.rows).await?;
            let Some((fed, touched)) = part else { return Ok(Some(Answer::Unready)) };
            if before.as_ref().is_some_and(|before| *before != fed) {
                return Ok(None);
            }
            let cut = match fed.cut {
                _ if !self.handle.is_some_and(|handle| self.shape.is_named(handle, &fed.generation))
                    || since < fed.floor =>
                {
                    return Ok(Some(self.refetch(&fed, fed.cut.unwrap_or(fed.pos))));
                }
                Some(cut) if fed.is_whole && (fed.is_at_cut || !FeedRule::AtCut.holds()) && since <= cut => cut,
                _ => {
                    let told = self.told(&fed, Messages::default(), Offset::At(since, walked), false);
                    return Ok(Some(Answer::Nothing(told)));
                }
            };
            let types = Types::read(fed.types.as_deref());
            touched.iter().for_each(|one| self.push(&mut messages, &types, one, walked == Walked::ToEnd));
            if messages.bytes() > limits.most_bytes {
                return Ok(Some(self.refetch(&fed, cut)));
            }
            if touched.len() == limits.rows {
                place = touched.last().map(|last| last.place.clone()).unwrap_or_default();
                before = Some(fed);
                continue;
            }
            let is_nothing = messages.is_empty() && walked == Walked::Done;
            messages.push_up_to_date(cut);
            let told = self.told(&fed, messages, Offset::At(cut, Walked::Done), true);
            return Ok(Some(if is_nothing { Answer::Nothing(told) } else { Answer::Messages(told) }));
        }
    }

    fn push(&self, messages: &mut Messages, types: &Types, touched: &Touched, may_lack: bool) {
        let was = touched.was.as_ref().is_some_and(|was| self.shape.had(was) || !FeedRule::Before.holds());
        let now = touched.now.as_deref().filter(|cells| self.shape.has(cells));
        for operation in operations(was, now.is_some(), may_lack && FeedRule::Pair.holds()) {
            let cells = now.filter(|_| *operation != Operation::Delete);
            messages.push(self.shape, types, *operation, &touched.key, cells);
        }
    }

    fn told(&self, fed: &Fed, messages: Messages, offset: Offset, is_up_to_date: bool) -> Told {
        let named = self.handle.filter(|handle| self.shape.is_named(handle, &fed.generation));
        let cut = if let Offset::At(cut, _) = offset { cut } else { fed.pos };
        Told {
            body: messages.into_json(),
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
