//! What is wrong on either side, as far as it can be seen from here: looks, changes nothing, and names for each finding
//! the command that mends it. [`mend`] runs those that are safe. Its conductor is [`examine`]; `source`, `tables`,
//! `calls`, `feed`, `replica` and `process` each look at one part.

mod calls;
mod feed;
mod finding;
mod process;
mod replica;
mod source;
mod status;
mod tables;

pub use finding::{Finding, Severity};
pub use process::Process;

use crate::core::codes;
use crate::core::error::Result;
use crate::operate::feed::FedSync;
use crate::postgres::{Client, PgUrl, Purpose};
use crate::pull::Pull;
use crate::replica::target::Target;
use crate::sync::Worker;
use finding::Fix;
use std::time::Duration;

/// From when on a transaction is taken for one that somebody forgot.
pub const OLD_TRANSACTION: Duration = Duration::from_secs(300);

/// Room on a disk below which a batch may not find any.
pub const LEAST_ROOM: u64 = 256 * 1024 * 1024;

/// What is examined by what is known here.
#[derive(Debug, Clone)]
pub struct Examination {
    /// What the worker's environment says.
    pub process: Process,
    /// From when on a transaction is old.
    pub old_transaction: Duration,
    /// Bytes on the replica's disk below which there is too little room.
    pub least_room: u64,
}

impl Default for Examination {
    fn default() -> Self {
        Self { process: Process::default(), old_transaction: OLD_TRANSACTION, least_room: LEAST_ROOM }
    }
}

/// Looks at both sides of a queue; worst first.
pub async fn examine(worker: &Worker, examination: &Examination) -> Vec<Finding> {
    let process = &examination.process;
    let mut found = process.examine(worker.postgres());
    found.extend(feed::settings(worker.schema().tables(), process));
    found.extend(feed::login(process).await);
    let client = match worker.postgres().pinned(Purpose::Doctor).await {
        Ok(client) => Some(client),
        Err(e) => {
            found.push(source_down(worker.postgres(), &e));
            None
        }
    };
    if let Some(client) = &client {
        found.extend(postgres(worker, client, examination).await);
    }
    found.extend(replica::examine(worker, client.as_ref(), examination.least_room).await);
    let unfit: Vec<String> =
        found.iter().filter(|one| one.code == &codes::FEED_ROWIDS).map(|one| one.subject.clone()).collect();
    found.retain(|one| one.code != &codes::FEED_UNWHOLE || !unfit.contains(&one.subject));
    finding::sort(&mut found);
    found
}

fn source_down(postgres: &PgUrl, error: &impl std::fmt::Display) -> Finding {
    let command = "psql \"$PGMQ_URL\" -c 'select 1'";
    Finding::new(&codes::SOURCE_DOWN, postgres.place(), error.to_string()).mended_by(command)
}

/// What one part of Postgres says. A part that cannot be looked at is a finding, and the others are looked at all the
/// same.
async fn postgres(worker: &Worker, client: &Client, examination: &Examination) -> Vec<Finding> {
    if let Err(e) = source::transactions(client).await {
        let command = "PGMQ_URL='...' # the port of the pooler's transaction mode, or the server's own";
        return vec![Finding::new(&codes::POOLER, worker.postgres().place(), e.to_string()).mended_by(command)];
    }
    let mut found = Vec::new();
    let mut add = |part: Result<Vec<Finding>>| match part {
        Ok(part) => found.extend(part),
        Err(e) => found.push(source_down(worker.postgres(), &e)),
    };
    add(source::examine(client, worker.queue(), examination.old_transaction).await);
    add(source::clock(client).await);
    add(tables::examine(client, worker.schema(), worker.queue()).await);
    add(calls::examine(client, &examination.process).await);
    add(feed::written(client, worker.schema()).await);
    found.extend(status::examine(worker, &examination.process, &found).await);
    found
}

/// Runs the commands of those findings that are safe to run unasked; those that were mended, and those that were not,
/// with why.
pub async fn mend(worker: &Worker, found: &[Finding]) -> Result<Vec<(Finding, Result<()>)>> {
    let mut done = Vec::new();
    for finding in found {
        let result = match &finding.fix {
            None => continue,
            Some(Fix::Postgres(sql)) => {
                let client = worker.postgres().pinned(Purpose::Doctor).await?;
                client.batch_execute(sql).await.map_err(Into::into)
            }
            Some(Fix::Replica(sql)) => replica::run(worker, sql).await,
        };
        done.push((finding.clone(), result));
    }
    Ok(done)
}

/// Looks at both sides of a sync that pulls, from this Postgres or from something else; worst first.
pub async fn examine_pull(pull: &Pull, source: Option<&PgUrl>, process: &Process) -> Vec<Finding> {
    let status = pull.status().await;
    let mut found = Vec::from_iter(feed::settings(pull.fed().iter(), process));
    if let Some(fed) = FedSync::of_pull(pull)
        && let Ok(state) = fed.state().await
    {
        let is_copied = |name: &str| status.tables.get(name).is_none_or(|table| table.state != "following");
        found.extend(feed::log(Some(&state), is_copied, process));
    }
    if let Some(source) = source.filter(|source| source.is_open_to_others()) {
        let what = "it is not checked whom it talks to, or not encrypted";
        let command = "pgflume connection add NAME --url 'postgres://...?sslmode=verify-full'";
        found.push(Finding::new(&codes::PLAIN_CONNECTION, source.place(), what).mended_by(command));
    }
    let command = format!("pgflume sync {}", pull.name());
    found.extend(status.source_error.map(|e| match source {
        Some(source) => source_down(source, &e),
        None => Finding::new(&codes::SOURCE_DOWN, pull.name(), e).mended_by(&command),
    }));
    found.extend(status.replica_error.map(|e| Finding::new(&codes::TARGET_DOWN, pull.name(), e).mended_by(&command)));
    for (name, table) in status.tables {
        found.extend(table.problem.map(|problem| Finding::new(&codes::TABLE, name, problem).mended_by(&command)));
    }
    if status.dead > 0 {
        let letters = format!("{} of them", status.dead);
        let command = format!("pgflume dead list --sync {}", pull.name());
        found.push(Finding::new(&codes::DEAD_LETTERS, pull.name(), letters).mended_by(command));
    }
    if let Target::File(path) = pull.target() {
        found.extend(replica::file(path, LEAST_ROOM));
    }
    finding::sort(&mut found);
    found
}
