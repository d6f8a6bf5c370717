//! What passes of a sync hold: both connections, what the tables are like, and how far they are.

use super::passed::Passed;
use super::settings::Pull;
use super::writer::Writer;
use crate::core::error::{Error, Result, Side};
use crate::core::position::Head;
use crate::core::schema::{Schema, quote};
use crate::provider::{Described, Description, Promise, Source};
use crate::replica::Replica;
use crate::replica::change::{self, Change, Retired};
use crate::replica::freshness::Feeds;
use crate::replica::inventory::Inventory;
use crate::replica::outbox;
use crate::replica::pulls::{Copied, Progress, Pull as Standing, PulledTable};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Both sides of a sync.
pub(super) struct Session<'a> {
    pub pull: &'a Pull,
    pub source: Box<dyn Source>,
    pub description: Arc<Description>,
    pub writer: Writer,
    /// Tables that are left as they are, and why.
    pub problems: BTreeMap<String, String>,
    /// Tables whose replica was empty when their pass began: nothing there is compared.
    pub plain: BTreeSet<String>,
    /// How many times as much a closing transaction may hold: more after each long pass, so that it comes to an end beside
    /// writers that go on.
    pub growth: usize,
    /// Views in a row that left more than a closing transaction takes, though all tables were read whole before.
    pub views_behind: u32,
    /// How often tables were read anew because the replica lacked rows of them.
    pub starts: BTreeMap<String, u32>,
    /// Whether only tables are looked at whose changes the source tells, and that could be read the last time.
    pub is_following: bool,
}

impl<'a> Session<'a> {
    /// Connects to both sides, creates what the replica lacks, and makes the tables the sync's own.
    pub async fn open(pull: &'a Pull) -> Result<Self> {
        let mut source = pull.provider.open().await?;
        let description = source.describe().await?;
        let replica = Replica::open(&pull.target).await?;
        let there = replica.inventory().await?;
        refuse_strangers(pull, &replica, &there, &description.schema).await?;
        let names: Vec<&str> = description.tables.keys().map(String::as_str).collect();
        let known = if there.has_pulls() { replica.pull(&pull.name).await? } else { None };
        let owns_all = |known: &Standing| names.iter().all(|name| known.tables.contains_key(*name));
        let standing = match known.filter(owns_all) {
            Some(known) => known,
            None => {
                let start = Head::start(pull.chance.token(), pull.chance.token());
                replica.claim(&pull.name, &start, &names, pull.adopt).await?
            }
        };
        if pull.news.is_some() && !there.tables.contains_key(outbox::TABLE) {
            replica.make_outbox().await?;
        }
        let writer = Writer::new(replica, pull, standing);
        let (problems, plain) = (BTreeMap::new(), BTreeSet::new());
        let mut session = Self {
            pull,
            source,
            description,
            writer,
            problems,
            plain,
            growth: 1,
            views_behind: 0,
            starts: BTreeMap::new(),
            is_following: false,
        };
        session.note_sources();
        session.shape().await?;
        Ok(session)
    }

    /// Describes the tables anew.
    pub async fn describe(&mut self) -> Result<()> {
        self.description = self.source.describe().await?;
        self.note_sources();
        let names: Vec<&str> = self.description.tables.keys().map(String::as_str).collect();
        if names.iter().any(|name| !self.writer.standing.tables.contains_key(*name)) {
            self.writer.standing =
                self.writer.replica.claim(&self.pull.name, &self.writer.standing.head, &names, self.pull.adopt).await?;
        }
        self.shape().await
    }

    /// What readers of the replica are told of each table.
    fn note_sources(&mut self) {
        let copied = |(name, described): (&String, &Described)| {
            let (source, types) = (described.table.source.written(), described.types.clone());
            (name.clone(), Copied { source, types })
        };
        self.writer.looked.sources = self.description.tables.iter().map(copied).collect();
    }

    /// Makes the replica's tables what the source's are now: columns, types, keys and indexes that came and went.
    async fn shape(&mut self) -> Result<()> {
        let schema = self.description.schema.clone();
        let there = self.writer.replica.upgraded(self.writer.replica.inventory().await?).await?;
        self.forget_lost(&there).await?;
        let mut by_table: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        for change in change::plan(&there, &schema, &self.retired()) {
            if there.tables.contains_key(&change.table.to_lowercase()) {
                by_table.entry(change.table.clone()).or_default().push(change);
            }
        }
        let is_altered = !by_table.is_empty();
        for (name, changes) in by_table {
            changes.iter().for_each(|change| {
                tracing::info!(sync = self.pull.name, table = name, "the replica changes: {}", change.what);
            });
            let mut progress = Progress::default();
            if changes.iter().any(|change| change.needs_copy) {
                progress.tables.insert(name, PulledTable::default());
            }
            let statements = changes.into_iter().flat_map(|change| change.statements).collect();
            self.writer.alter(statements, &progress).await?;
        }
        let there = if is_altered { self.writer.replica.inventory().await? } else { there };
        self.writer.replica.complete(&there, &schema).await?;
        self.prepare_feed(&there).await?;
        self.part_with_gone().await
    }

    async fn prepare_feed(&self, there: &Inventory) -> Result<()> {
        self.writer.replica.keep_feed_for(self.pull.feed_retention);
        self.writer.replica.prepare_feed(there, Feeds::Pull(&self.pull.name), &self.description.schema).await
    }

    /// Tables that somebody dropped in the replica: before they are made again, and look as if nothing were missing.
    async fn forget_lost(&mut self, there: &Inventory) -> Result<()> {
        let empty =
            |standing: &PulledTable| PulledTable { problem: standing.problem.clone(), ..PulledTable::default() };
        let is_lost = |(name, standing): &(&String, &PulledTable)| {
            // One that the source no longer shows is not made again.
            self.description.tables.contains_key(*name)
                && !there.tables.contains_key(&name.to_lowercase())
                && **standing != empty(standing)
        };
        let lost = self.writer.standing.tables.iter().filter(is_lost);
        let tables: BTreeMap<_, _> = lost.map(|(name, standing)| (name.clone(), empty(standing))).collect();
        if tables.is_empty() {
            return Ok(());
        }
        tracing::warn!(sync = self.pull.name, tables = ?tables.keys(), "the replica no longer has these tables: they are read again");
        self.writer.alter(Vec::new(), &Progress { tables, ..Progress::default() }).await
    }

    /// Columns that tables had, and that the source no longer has.
    fn retired(&self) -> Retired {
        let of = |(name, standing): (&String, &PulledTable)| {
            let table = &self.description.tables.get(name)?.table;
            let before = self.source.columns(standing.definition.as_deref()?);
            let gone: BTreeSet<String> = before.into_iter().filter(|column| table.position(column).is_none()).collect();
            (!gone.is_empty()).then(|| (name.clone(), gone))
        };
        Retired { columns: self.writer.standing.tables.iter().filter_map(of).collect(), ..Retired::default() }
    }

    /// Tables that the source no longer has stay, unless they may go.
    async fn part_with_gone(&mut self) -> Result<()> {
        let is_gone = |name: &&String| !self.description.tables.contains_key(*name);
        let gone: Vec<String> = self.writer.standing.tables.keys().filter(is_gone).cloned().collect();
        for name in gone {
            if self.description.forbidden.contains(&name) {
                self.put_aside(&name, "it may no longer be read: grant select on it, or leave it out".into());
                continue;
            }
            let definition = self.writer.standing.tables.get(&name).and_then(|table| table.definition.clone());
            if let Some(definition) = definition
                && let Some(why) = self.source.hidden(&definition).await?
            {
                self.put_aside(&name, why);
                continue;
            }
            if !self.pull.allow_drop {
                self.writer.done.kept.insert(name);
                continue;
            }
            tracing::warn!(sync = self.pull.name, table = name, "the source no longer has this table: it is dropped");
            let mut statements = vec![format!("DROP TABLE IF EXISTS {}", quote(&name))];
            statements.extend(Replica::disown(&self.pull.name, &name));
            self.writer.alter(statements, &Progress::default()).await?;
            self.writer.standing.tables.remove(&name);
        }
        Ok(())
    }

    /// What it has done; it is ready for another pass then.
    pub fn take_done(&mut self) -> Passed {
        let read = self.description.tables.values().filter(|table| table.problem.is_none());
        let promise = Promise::weakest(read.map(|table| &table.promise)).map(Promise::name);
        self.plain.clear();
        self.starts.clear();
        (self.growth, self.views_behind) = (1, 0);
        let problems = std::mem::take(&mut self.problems);
        let tells = self.source.tells();
        Passed { problems, promise, tells, ..self.writer.take_done() }
    }

    /// Where the sync stands by now: another worker may have moved it on.
    pub async fn read_standing(&mut self) -> Result<()> {
        let standing = self.writer.replica.pull(&self.pull.name).await?.ok_or_else(|| {
            Error::halt(format!(
                "the replica no longer knows the sync {:?}: it was emptied while it was read",
                self.pull.name
            ))
        })?;
        let is_elsewhere = standing.head != self.writer.standing.head;
        self.writer.standing = standing;
        // Whoever did it may feed clients other tables.
        if is_elsewhere && self.description.schema.tables().any(|table| table.feed.is_some()) {
            self.prepare_feed(&self.writer.replica.inventory().await?).await?;
        }
        Ok(())
    }

    /// The tables that can be read.
    pub fn readable(&mut self) -> Vec<String> {
        let description = self.description.clone();
        let mut readable = Vec::new();
        for (name, described) in &description.tables {
            match &described.problem {
                _ if self.problems.contains_key(name) => {}
                _ if self.is_following && !self.is_followed(name) => {}
                Some(problem) => self.put_aside(name, problem.clone()),
                None => readable.push(name.clone()),
            }
        }
        readable
    }

    /// Whether a follower looks at a table.
    pub fn is_followed(&self, name: &str) -> bool {
        let has_problem = self.writer.standing.tables.get(name).is_some_and(|table| table.problem.is_some());
        let described = self.description.tables.get(name);
        !has_problem && described.is_some_and(|table| table.is_told && table.problem.is_none())
    }

    /// This table is left as it is; said once a pass.
    pub fn put_aside(&mut self, table: &str, problem: String) {
        tracing::error!(sync = self.pull.name, table, "this table is not brought up to date: {problem}");
        self.problems.insert(table.to_owned(), problem);
    }

    /// Says in the replica which tables are left as they are, and which no longer.
    pub async fn note_problems(&mut self) -> Result<()> {
        if self.is_following {
            return Ok(()); // those that it did not look at have theirs
        }
        let problem = |name: &String| self.problems.get(name).cloned();
        let standing = self.writer.standing.tables.iter().filter(|(name, table)| table.problem != problem(name));
        let tables: BTreeMap<_, _> = standing
            .map(|(name, table)| (name.clone(), PulledTable { problem: problem(name), ..table.clone() }))
            .collect();
        if tables.is_empty() {
            return Ok(());
        }
        self.writer.alter(Vec::new(), &Progress { tables, ..Progress::default() }).await
    }

    /// A failure that concerns one table only leaves the others to be read.
    pub fn set_aside(&mut self, error: Error) -> Result<()> {
        match error.kind() {
            crate::core::error::ErrorKind::Table { name, side: Side::Source | Side::Target } => {
                let name = name.clone();
                self.put_aside(&name, error.to_string());
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// Tables with rows that no sync has written are somebody's data, until they say that it may go.
pub(super) async fn refuse_strangers(pull: &Pull, replica: &Replica, there: &Inventory, schema: &Schema) -> Result<()> {
    if pull.adopt {
        return Ok(());
    }
    let owned = if there.has_pulls() { replica.owners().await? } else { BTreeMap::new() };
    for table in schema.tables().filter(|table| !owned.contains_key(&table.name.to_lowercase())) {
        if !there.tables.contains_key(&table.name.to_lowercase()) {
            continue;
        }
        if !replica.is_empty(table).await? {
            return Err(Error::side(format!(
                "the replica has a table {:?} with rows in it that no sync has written: name another replica, or let it be taken over with --adopt (the rows of the source replace those)",
                table.name
            )));
        }
    }
    Ok(())
}
