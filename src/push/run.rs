//! One request: one transaction. It takes the key in the journal, writes as the role of the token, and commits both; so
//! whoever does not hear the answer may ask again.

use super::answer::{Answer, Status};
use super::apply::Writer;
use super::failure::Failure;
use super::figures::Figures;
use super::journal::{self, Claimed};
use super::login;
use super::pool::Pool;
use super::request::{Push, Writables};
use super::turns::Turns;
use crate::core::claims::Claims;
use crate::core::error::{Error, ErrorKind, Result};
use crate::postgres::{Client, PgUrl};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The journal is pruned so often, or at once again where more is left.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Longest time that one request takes: it may hold rows that others want.
const MOST_TIME: Duration = Duration::from_secs(20);

/// Takes writes of clients.
pub struct Pushes {
    pool: Pool,
    turns: Turns,
    writables: Writables,
    pruned: Mutex<Option<Instant>>,
    figures: Figures,
}

impl Pushes {
    /// Over the login of `PUSH_URL`, into these tables.
    pub fn new(url: PgUrl, writables: Writables) -> Self {
        let (turns, pruned, figures) = (Turns::default(), Mutex::default(), Figures::default());
        Self { pool: Pool::new(url), turns, writables, pruned, figures }
    }

    /// What may be written.
    pub fn writables(&self) -> &Writables {
        &self.writables
    }

    /// What became of requests so far.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Connects, and refuses a login that could do more than its users may.
    pub async fn check(&self) -> Result<()> {
        self.pool.take().await?.give_back().await;
        Ok(())
    }

    /// Does what a request asks, or finds that it was done.
    pub async fn push(&self, push: &Push, claims: &Claims) -> Result<Answer, Failure> {
        let done = self.run(push, claims).await;
        self.figures.ran(&done);
        done
    }

    async fn run(&self, push: &Push, claims: &Claims) -> Result<Answer, Failure> {
        let Some(role) = claims.role().filter(|role| !role.contains('\0')) else {
            return Err(Failure::Forbidden("it has no claim `role`, which says as whom it writes"));
        };
        let subject = subject(claims);
        let _turn = self.turns.take(&subject).await?;
        let taken = self.pool.take().await?;
        let client = taken.client();
        let done = tokio::time::timeout(MOST_TIME, transaction(client, push, claims, (role, &subject))).await;
        let done = done.unwrap_or_else(|_| Err(Error::retry("a push took too long: send less at once").into()));
        match &done {
            // Whatever it was about may still be in the connection: it is closed.
            Err(Failure::Again(_)) => return done,
            Ok(answer) if answer.duplicate => client.rollback().await.map_err(Error::from)?,
            Ok(_) => self.prune(client).await,
            Err(_) => client.rollback().await.map_err(Error::from)?,
        }
        taken.give_back().await;
        done
    }

    /// Once in a while. What fails is tried again with a later request.
    async fn prune(&self, client: &Client) {
        let is_due = {
            let mut pruned = self.pruned.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY);
            if is_due {
                *pruned = Some(Instant::now());
            }
            is_due
        };
        if !is_due {
            return;
        }
        match journal::prune(client).await {
            Ok(true) => {}
            Ok(false) => *self.pruned.lock().unwrap_or_else(PoisonError::into_inner) = None,
            Err(e) => {
                tracing::warn!(error = %e, "the journal of pushes is not pruned");
                client.rollback().await.ok();
            }
        }
    }
}

/// Whose the keys of requests are: the subject of a token, or of one that names none, all that it says but for its times.
fn subject(claims: &Claims) -> String {
    match claims.subject() {
        Some(subject) if !subject.contains('\0') => subject.to_owned(),
        _ => format!("claims {}", claims.digest()),
    }
}

async fn transaction(
    client: &Client,
    push: &Push,
    claims: &Claims,
    (role, subject): (&str, &str),
) -> Result<Answer, Failure> {
    journal::begin(client).await?;
    if !login::may_be(client, role).await? {
        return Err(Failure::Forbidden(
            "its claim `role` names none that PUSH_URL's login may be: grant it that role, which must not be above row-level security",
        ));
    }
    let txid = match journal::claim(client, push, Some(subject)).await? {
        Claimed::Now(txid) => txid,
        Claimed::Before(answer) => return Ok(answer),
        Claimed::Taken => return Err(Failure::KeyTaken),
    };
    let results = Writer { client, role, claims: &claims.json() }.apply(push).await?;
    let is_done = results.iter().all(|result| result.status == Status::Applied);
    let answer = Answer { txid: is_done.then_some(txid), pos: None, results, duplicate: false };
    journal::finish(client, push, &answer).await?;
    client.commit().await.map_err(not_committed)?;
    Ok(answer)
}

/// Where Postgres itself refuses, nothing was done; else nobody knows, and the journal will.
fn not_committed(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(_) => Error::from(error),
        None => Error::new(ErrorKind::Unknown, "the connection ended while a push was committed").caused_by(error),
    }
}
