//! What is done with dead letters: shown, tried again, dropped. A letter that is tried again is a mark where the
//! row can be read from Postgres, and its message otherwise.

use crate::core::error::{Error, Result};
use crate::core::message;
use crate::postgres::books::dead_letters::{Choice, Waiting};
use crate::postgres::books::{dead_letters, progress};
use crate::postgres::catalog::{Access, SourceTable};
use crate::postgres::{Client, Purpose, catalog, rows};
use crate::sync::Worker;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long to wait for a step that is running: what it applies may supersede a letter.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long to wait for somebody who holds the letters themselves.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// Letters handled in one transaction.
const PAGE: i64 = 1_000;

/// What became of the chosen letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retried {
    /// Marks or messages that are on the queue again.
    pub sent: u64,
    /// Dead letters that cannot be tried again, and stay: of a table that schema.json does not name, partly superseded, or
    /// somebody else's.
    pub stay: u64,
}

/// The chosen letters, oldest first; at most `limit`.
pub async fn list(worker: &Worker, choice: &Choice, limit: i64) -> Result<Vec<Waiting>> {
    let client = connect(worker).await?;
    rows::begin_waiting(&client, LOOK_PATIENCE).await?;
    let dead_letters = dead_letters::waiting(&client, worker.queue(), choice, 0, limit).await?;
    client.commit().await?;
    Ok(dead_letters)
}

/// Puts the chosen letters on the queue again; the next drain reads their rows as they are then.
pub async fn retry(worker: &Worker, choice: &Choice) -> Result<Retried> {
    let client = connect(worker).await?;
    let sources = catalog::read(&client, worker.schema(), worker.queue()).await?.tables;
    let (mut done, mut after) = (Retried::default(), 0);
    loop {
        rows::begin_waiting(&client, PATIENCE).await?;
        progress::wait_for_lock(&client, worker.queue()).await.map_err(busy)?;
        let page = dead_letters::waiting(&client, worker.queue(), choice, after, PAGE).await?;
        let Some(last) = page.last().map(|letter| letter.id) else { break };
        let again = page.iter().filter_map(|letter| Some((letter.id, again(worker, &sources, letter)?)));
        let (ids, messages): (Vec<i64>, Vec<_>) = again.unzip();
        dead_letters::send_again(&client, worker.queue(), &messages).await?;
        dead_letters::forget(&client, worker.queue(), &ids).await?;
        client.commit().await?;
        done.sent += ids.len() as u64;
        done.stay += (page.len() - ids.len()) as u64;
        after = last;
    }
    client.rollback().await?;
    Ok(done)
}

/// The message that tries a letter again, and the id that it should have.
fn again(worker: &Worker, sources: &BTreeMap<String, SourceTable>, letter: &Waiting) -> Option<(Option<i64>, String)> {
    let is_readable = |name: &str| sources.get(name).is_some_and(|s| s.access == Access::Readable);
    match letter.concerns(worker.schema()) {
        Some((table, keys)) if letter.message.is_none() || is_readable(&table.name) => {
            Some((None, message::mark_of(&table.name, &keys)))
        }
        // Its other key has a newer state, which the whole message would take back.
        _ if letter.is_superseded_in_part => None,
        _ => Some((letter.msg_id, letter.message.clone()?)),
    }
}

/// Drops the chosen letters; how many.
pub async fn drop_letters(worker: &Worker, choice: &Choice) -> Result<u64> {
    let client = connect(worker).await?;
    let (mut dropped, mut after) = (0, 0);
    loop {
        rows::begin_waiting(&client, LOOK_PATIENCE).await?;
        let page = dead_letters::waiting(&client, worker.queue(), choice, after, PAGE).await?;
        let ids: Vec<i64> = page.iter().map(|letter| letter.id).collect();
        let gone = dead_letters::forget(&client, worker.queue(), &ids).await?;
        // Not without it: whoever gives up meanwhile has dropped nothing.
        client.commit().await?;
        let Some(last) = ids.last() else { return Ok(dropped) };
        (dropped, after) = (dropped + gone, *last);
    }
}

fn busy(error: Error) -> Error {
    match error.is_locked() {
        true => Error::retry("a drain is running; try again when it has ended"),
        false => error,
    }
}

async fn connect(worker: &Worker) -> Result<Client> {
    let client = worker.postgres().pinned(Purpose::Dead).await?;
    progress::ensure(&client, worker.queue()).await?;
    Ok(client)
}
