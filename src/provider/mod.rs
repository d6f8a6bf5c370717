//! What a sync pulls from: the seam between the engine (`pull`) and each kind of source. A [`Provider`] opens
//! connections, a [`Source`] is one of them. It tells what its tables are like, opens a view of them, says what of a
//! table has changed since a mark, gives rows in parts, and counts. Marks, places and positions are texts of the
//! provider, which the engine keeps and hands back.

pub mod mysql;
pub mod postgres;
mod stamps;

pub use stamps::StampOptions;

use crate::core::error::Result;
use crate::core::message::MarkedKey;
use crate::core::schema::{Schema, Table};
use crate::core::token::Seen;
use crate::core::value::{Cell, Key};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Something to pull from.
#[async_trait]
pub trait Provider: Send + Sync {
    /// A connection to it.
    async fn open(&self) -> Result<Box<dyn Source>>;
}

/// One table, as the source has it.
#[derive(Debug, Clone)]
pub struct Described {
    /// What the replica gets of it.
    pub table: Arc<Table>,
    /// By what its rows are read: kept beside them, and compared by [`Source::outgrown`].
    pub definition: String,
    /// The type of each column as the source declares it, as a JSON object, where it tells.
    pub types: Option<String>,
    /// Why it cannot be pulled, with the remedy.
    pub problem: Option<String>,
    /// What a sync of it can promise.
    pub promise: Promise,
    /// Whether the source tells of its changes as they come.
    pub is_told: bool,
    /// Why its changes are not told as those of other tables are.
    pub untold: Option<String>,
    /// Whether the replica sorts its keys as the source does.
    pub sorts_alike: bool,
    /// Whether a look finds rows that are as they were, too: then they are compared before they are written.
    pub finds_unchanged: bool,
    /// Whether a look compares digests of all rows as often as rows are to be compared, by a mark that holds them.
    pub is_digested: bool,
}

/// What the replica is after a pass, beside what the source was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promise {
    /// Equal to one moment of it.
    Exact,
    /// The same, but for this.
    ExactBut(String),
    /// As far as timestamps in these columns tell, and but for this.
    Stamped(Vec<String>),
    /// Equal when all rows were last compared.
    Compared,
}

impl Promise {
    /// That of several which says least.
    pub fn weakest<'a>(promises: impl Iterator<Item = &'a Self>) -> Option<&'a Self> {
        promises.max_by_key(|promise| match promise {
            Self::Exact => 0,
            Self::ExactBut(_) => 1,
            Self::Stamped(_) => 2,
            Self::Compared => 3,
        })
    }

    /// One word, for labels.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::ExactBut(_) => "exact_but",
            Self::Stamped(_) => "stamped",
            Self::Compared => "compared",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.write_str("exact: equal to one moment of the source after each pass"),
            Self::ExactBut(but) => write!(f, "exact but for {but}"),
            Self::Stamped(columns) => {
                write!(f, "as far as timestamps tell ({}); all rows are compared at an interval", columns.join(", "))
            }
            Self::Compared => f.write_str("equal whenever all rows were compared"),
        }
    }
}

/// What the source has.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// What is replicated.
    pub schema: Arc<Schema>,
    /// Tables that a pattern names and that may not be read.
    pub forbidden: BTreeSet<String>,
    /// Its tables.
    pub tables: BTreeMap<String, Described>,
    /// Tables that are meant and cannot be defined, and why.
    pub undefined: BTreeMap<String, String>,
    /// How changed rows are found, where there are several ways, and why not by a better one.
    pub found_by: Option<String>,
}

/// How a view began.
#[derive(Debug)]
pub enum Begun {
    /// All that is read in it is of one moment.
    View(View),
    /// The tables are no longer as they were described: ask again.
    Changed,
    /// Another session keeps readers out of these tables.
    Locked(Vec<String>),
}

/// One moment of the source.
#[derive(Debug, Clone)]
pub struct View {
    /// Which source it is, and where in its history.
    pub position: String,
    /// Its clock: UTC, `2026-11-29T18:00:00.123Z`.
    pub at: String,
    /// Which transactions it sees, where the source can tell.
    pub seen: Option<Seen>,
}

/// How a position stands to one that was read before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follows {
    /// It is the same history, and not older.
    Same,
    /// It is the same, but older: a standby that lags.
    Older,
    /// It is another history, as it says: whatever was read may be otherwise.
    Other(String),
}

/// What a look at a table has found.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// All that was committed up to this view is before this mark; empty where nobody knows one yet.
    pub mark: String,
    /// Rows to be read; `None`: all from the place on.
    pub changed: Option<usize>,
    /// Rows that are replicated, where it was counted.
    pub count: Option<i64>,
    /// What is gone is among the rows to be read: nothing has to be counted.
    pub tells_gone: bool,
    /// The mark that was given leads no further: another one should be kept.
    pub is_far: bool,
    /// Where reading begins in fact: the place that was given, or, where rows have moved, `None`.
    pub place: Option<String>,
    /// The mark to keep while what has changed is written in parts, by which it has changed again; `None`: the one that was
    /// given.
    pub meanwhile: Option<String>,
}

/// One row that was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Its key and all of its cells.
    Row(Key, Vec<Cell>),
    /// It is not replicated, or not there.
    Gone(Key),
    /// It cannot be taken over.
    Unfit(Unfit),
}

/// A row that cannot be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Its key, as the source writes it.
    pub key: MarkedKey,
    /// The same as the replica has it, where that is known.
    pub own: Option<Key>,
    /// `value`, or `source` where the source itself cannot read it.
    pub class: &'static str,
    /// Why, with the remedy.
    pub problem: String,
}

/// How much of a table is read at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows.
    pub rows: usize,
    /// Bytes as the source sends them; a row more may come.
    pub bytes: usize,
}

/// A part of what a look has found.
#[derive(Debug, Default)]
pub struct Part {
    /// The rows.
    pub found: Vec<Found>,
    /// Their bytes.
    pub bytes: usize,
    /// Where another view may go on behind it, if it may.
    pub place: Option<String>,
    /// Nothing is left.
    pub is_end: bool,
}

/// One connection, with at most one view.
#[async_trait]
pub trait Source: Send + Sync {
    /// What the tables are like now. Outside of a view.
    async fn describe(&mut self) -> Result<Arc<Description>>;
    /// Why rows that were read by one definition are not those that another one asks for.
    fn outgrown(&self, before: &str, now: &str) -> Option<String>;
    /// The columns that a definition had.
    fn columns(&self, definition: &str) -> BTreeSet<String>;
    /// Why a table that was read by this definition, and that is described no more, may be there all the same, with the
    /// remedy; `None` where it is gone, or left out on purpose. Outside of a view.
    async fn hidden(&mut self, _definition: &str) -> Result<Option<String>> {
        Ok(None)
    }
    /// How a position stands to an earlier one.
    fn follows(&self, before: &str, now: &str) -> Follows;
    /// Opens a view of these tables, as they were described last.
    async fn begin(&mut self, tables: &[&str]) -> Result<Begun>;
    /// Looks what of a table has changed since a mark, from a place on; everything where `since` is `None`.
    async fn look(&mut self, table: &str, since: Option<&str>, place: Option<&str>) -> Result<Look>;
    /// The looks of this view compare as much as they can without reading it.
    fn look_closely(&mut self) {}
    /// The next part of what the last look has found.
    async fn next(&mut self, limits: Limits) -> Result<Part>;
    /// What is under these keys, each with the position of its key; of one that is written otherwise by now two.
    async fn rows(&mut self, table: &str, keys: &[MarkedKey]) -> Result<Vec<(usize, Found)>>;
    /// Which of these keys no replicated row has: their positions.
    async fn absent(&mut self, table: &str, keys: &[MarkedKey]) -> Result<Vec<usize>>;
    /// Rows in the ranges that these keys bound: up to the first, between two, after the last. For tables that sort
    /// alike.
    async fn counts(&mut self, table: &str, bounds: &[MarkedKey]) -> Result<Vec<i64>>;
    /// Whether nothing has come into the view since its looks that they did not see. After all reading.
    async fn is_whole(&mut self) -> Result<bool>;
    /// Waits until no crash of the source could undo what the view has seen.
    async fn make_durable(&mut self) -> Result<()>;
    /// The replica has all that the looks of this view have found.
    fn taken(&mut self) {}
    /// Ends the view; does nothing where there is none.
    async fn end(&mut self) -> Result<()>;
    /// Whether it tells of changes as they come.
    fn tells(&self) -> bool {
        false
    }
    /// Waits, outside of a view, until something has changed behind the last one; whether it has within that time. `None`
    /// where that is told by looking only. May be given up at any moment.
    async fn changed(&mut self, _within: Duration) -> Result<Option<bool>> {
        Ok(None)
    }
}
