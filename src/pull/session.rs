//! What passes of a sync hold: both connections, what the tables are like, and how far they are.

use super::passed::Passed;
use super::pull::Pull;
use super::writer::Writer;
use crate::core::error::{Error, Result, Side};
use crate::core::position::Head;
use crate::core::schema::Schema;
use crate::provider::{Description, Source};
use crate::replica::Replica;
use crate::replica::inventory::Inventory;
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
}

impl<'a> Session<'a> {
    /// Connects to both sides, creates what the replica lacks, and makes the tables the sync's own.
    pub async fn open(pull: &'a Pull) -> Result<Self> {
        let mut source = pull.provider.open().await?;
        let description = source.describe().await?;
        let replica = Replica::open(&pull.target).await?;
        let there = replica.inventory().await?;
        refuse_strangers(pull, &replica, &there, &description.schema).await?;
        replica.complete(&there, &description.schema).await?;
        for table in there.keyless(&description.schema) {
            replica.make_key(&there, table).await?;
        }
        let names: Vec<&str> = description.tables.keys().map(String::as_str).collect();
        let known = if there.has_pulls() { replica.pull(&pull.name).await? } else { None };
        let owns_all = |known: &crate::replica::pulls::Pull| names.iter().all(|name| known.tables.contains_key(*name));
        let standing = match known.filter(owns_all) {
            Some(known) => known,
            None => {
                let start = Head::start(pull.chance.token(), pull.chance.token());
                replica.claim(&pull.name, &start, &names).await?
            }
        };
        let writer = Writer::new(replica, pull.name.clone(), standing, pull.chance.clone());
        let (problems, plain) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { pull, source, description, writer, problems, plain })
    }

    /// What it has done.
    pub fn finish(self) -> Passed {
        Passed { problems: self.problems, ..self.writer.done }
    }

    /// Where the sync stands by now: another worker may have moved it on.
    pub async fn read_standing(&mut self) -> Result<()> {
        let standing = self.writer.replica.pull(&self.pull.name).await?;
        self.writer.standing = standing.ok_or_else(|| {
            Error::halt(format!(
                "the replica no longer knows the sync {:?}: it was emptied while it was read",
                self.pull.name
            ))
        })?;
        Ok(())
    }

    /// The tables that can be read.
    pub fn readable(&mut self) -> Vec<String> {
        let mut readable = Vec::new();
        for (name, described) in &self.description.tables {
            match &described.problem {
                Some(problem) => drop(self.problems.insert(name.clone(), problem.clone())),
                None if self.problems.contains_key(name) => {}
                None => readable.push(name.clone()),
            }
        }
        readable
    }

    /// This table is left as it is; said once a pass.
    pub fn put_aside(&mut self, table: &str, problem: String) {
        tracing::error!(sync = self.pull.name, table, "this table is not brought up to date: {problem}");
        self.problems.insert(table.to_owned(), problem);
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
async fn refuse_strangers(pull: &Pull, replica: &Replica, there: &Inventory, schema: &Schema) -> Result<()> {
    if pull.adopt {
        return Ok(());
    }
    let owned: BTreeSet<String> = if there.has_pulls() { replica.owned().await? } else { BTreeSet::new() };
    for table in schema.tables().filter(|table| !owned.contains(&table.name)) {
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
