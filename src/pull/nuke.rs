//! Makes a sync's tables in the replica anew, and asks for comparisons of what is there.

use super::session::refuse_strangers;
use super::settings::Pull;
use crate::core::error::{ErrorKind, Result};
use crate::core::position::Head;
use crate::core::schema::quote;
use crate::replica::Replica;
use crate::replica::pulls::{Progress, PulledTable};
use std::collections::BTreeSet;
use std::time::Duration;

/// Between two tries at most.
const REST: Duration = Duration::from_millis(200);

/// How often a nuke is begun anew beside a pass.
const TRIES: u32 = 20;

impl Pull {
    /// Drops its tables in the replica and makes them anew, empty, in one transaction; the next pass fills them. Tables
    /// that the source no longer has stay as they are. A request's `id` works once: whether it was not used before.
    pub async fn nuke(&self, id: Option<&str>) -> Result<bool> {
        let mut tries = 1..TRIES;
        loop {
            match self.try_nuke(id).await {
                // A pass under way has moved the replica on, or an answer was lost.
                Err(e) if *e.kind() == ErrorKind::Unknown && tries.next().is_some() => {
                    tokio::time::sleep(REST.mul_f64(self.chance.fraction())).await;
                }
                // The record is that of a try before.
                Ok(false) if tries.start > 1 => return Ok(true),
                done => return done,
            }
        }
    }

    async fn try_nuke(&self, id: Option<&str>) -> Result<bool> {
        let mut source = self.provider.open().await?;
        let description = source.describe().await?;
        let replica = Replica::open(&self.target).await?;
        let job = id.map(|id| format!("nuke-{id}"));
        if let Some(job) = &job
            && replica.job(job).await?.is_some()
        {
            return Ok(false);
        }
        let there = replica.inventory().await?;
        refuse_strangers(self, &replica, &there, &description.schema).await?;
        let names: Vec<&str> = description.tables.keys().map(String::as_str).collect();
        let start = Head::start(self.chance.token(), self.chance.token());
        let standing = replica.claim(&self.name, &start, &names, self.adopt).await?;
        let mut statements: Vec<String> =
            names.iter().map(|name| format!("DROP TABLE IF EXISTS {}", quote(name))).collect();
        let made = replica.lacks(&there.without(&names), &description.schema)?;
        statements.extend(made.into_iter().flatten().map(|statement| statement.sql));
        statements.extend(Replica::forget_caught_up(&self.name));
        if let Some(job) = &job {
            statements.extend(Replica::record_of(&self.name, job, "nuke"));
        }
        let dead = standing.dead.iter().filter(|(table, _)| description.tables.contains_key(*table));
        let progress = Progress {
            tables: names.iter().map(|name| ((*name).to_owned(), PulledTable::default())).collect(),
            covered: dead.flat_map(|(table, keys)| keys.keys().map(move |key| (table.clone(), key.clone()))).collect(),
            ..Progress::default()
        };
        tracing::warn!(sync = self.name, tables = names.len(), "the replica's tables are made anew");
        let to = standing.head.next(self.chance.token());
        replica.alter_pull(&self.name, &standing.head, &to, &progress, statements).await?;
        Ok(true)
    }

    /// All rows of these tables, of all where none is named, are compared after the next pass, and what differs is
    /// repaired. A request's `id` works once.
    pub async fn ask_to_compare(&self, tables: &[String], id: Option<&str>) -> Result<Asked> {
        let replica = Replica::open(&self.target).await?;
        let job = id.map(|id| format!("resync-{id}"));
        if let Some(job) = &job
            && replica.job(job).await?.is_some()
        {
            return Ok(Asked::Replayed);
        }
        let there = replica.inventory().await?;
        let standing = if there.has_pulls() { replica.pull(&self.name).await? } else { None };
        let known: Vec<String> = standing.map(|standing| standing.tables.into_keys().collect()).unwrap_or_default();
        let asked: BTreeSet<&String> = tables.iter().collect();
        if let Some(unknown) = asked.iter().find(|table| !known.contains(table)) {
            return Ok(Asked::Unknown(format!(
                "the sync {:?} has no table {unknown:?} in the replica: it has {}",
                self.name,
                known.join(", ")
            )));
        }
        let names: Vec<String> = known.into_iter().filter(|name| asked.is_empty() || asked.contains(name)).collect();
        if there.has_pulls() {
            let record = job.into_iter().flat_map(|job| Replica::record_of(&self.name, &job, "resync")).collect();
            replica.forget_compared(&self.name, &names, record).await?;
        }
        Ok(Asked::Tables(names))
    }
}

/// What became of the wish to have tables compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// These are.
    Tables(Vec<String>),
    /// One of them is none of the sync's: what to say.
    Unknown(String),
    /// It was asked for by a request of this id before.
    Replayed,
}
