//! All SQL of `pgflume.pushes`: what became of each request, kept so that one that is sent again is answered again and not
//! done again. Written as `pgflume_push`, in the transaction of what it tells of.

use super::answer::Answer;
use super::request::Push;
use crate::core::error::{Error, Result};
use crate::postgres::{Client, WRITTEN_ALIKE};
use std::time::Duration;
use tokio_postgres::types::Type;

/// Most rows that are pruned at once.
const PRUNED_ROWS: u64 = 10_000;

/// What a transaction runs under, whatever its login or database says. A statement that waits for longer is tried again by
/// the client; rows are told in the texts that the replica has.
const SETTINGS: &str = "set local statement_timeout = '10s';
set local lock_timeout = '5s';
set local synchronous_commit = on;
set local row_security = on";

/// How long an answer is kept: longer than a device is away, as a rule.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Whose a key is.
#[derive(Debug)]
pub(super) enum Claimed {
    /// Ours, from now on: the number of the transaction.
    Now(u64),
    /// It was answered before.
    Before(Answer),
    /// It stands for another request, or for one of somebody else's.
    Taken,
}

/// Begins a transaction that may write the journal.
pub(super) async fn begin(client: &Client) -> Result<()> {
    let settings = format!("{SETTINGS}; {WRITTEN_ALIKE}; set local role pgflume_push");
    Ok(client.begin("isolation level read committed read write", &settings).await?)
}

/// Takes a key, or finds what was answered under it. Waits for whoever is about to.
pub(super) async fn claim(client: &Client, push: &Push, subject: Option<&str>) -> Result<Claimed> {
    let digest = push.digest();
    let sql = "insert into pgflume.pushes (client, key, subject, digest) values ($1, $2, $3, $4)
               on conflict (client, key) do nothing returning txid::pg_catalog.text";
    let all = [
        (&push.client as _, Type::TEXT),
        (&push.key as _, Type::TEXT),
        (&subject as _, Type::TEXT),
        (&digest as _, Type::TEXT),
    ];
    if let [row] = &client.query_typed(sql, &all).await?[..] {
        let txid: String = row.try_get(0)?;
        return Ok(Claimed::Now(txid.parse().map_err(|_| Error::retry("Postgres gave no number of a transaction"))?));
    }
    let sql = "select p.subject, p.digest, p.result from pgflume.pushes as p
               where p.client operator(pg_catalog.=) $1 and p.key operator(pg_catalog.=) $2";
    let found = client.query_typed(sql, &all[..2]).await?;
    let Some(row) = found.first() else {
        return Err(Error::retry("the journal lost a key just now: send it again"));
    };
    let (whose, what): (Option<String>, String) = (row.try_get(0)?, row.try_get(1)?);
    if whose.as_deref() != subject || what != digest {
        return Ok(Claimed::Taken);
    }
    let result: Option<String> = row.try_get(2)?;
    let kept: Option<Answer> = result.and_then(|text| serde_json::from_str(&text).ok());
    let answer = kept.ok_or_else(|| Error::halt("the journal pgflume.pushes holds an answer that is none"))?;
    Ok(Claimed::Before(Answer { duplicate: true, ..answer }))
}

/// Writes down what became of a request, as `pgflume_push` again, whoever wrote before.
pub(super) async fn finish(client: &Client, push: &Push, answer: &Answer) -> Result<()> {
    client.batch_execute("set local search_path = ''; set local role pgflume_push").await?;
    let text = serde_json::to_string(answer).map_err(|_| Error::halt("an answer could not be written as JSON"))?;
    let sql = "update pgflume.pushes as p set result = $3
               where p.client operator(pg_catalog.=) $1 and p.key operator(pg_catalog.=) $2 and p.result is null";
    let all = [(&push.client as _, Type::TEXT), (&push.key as _, Type::TEXT), (&text as _, Type::TEXT)];
    match client.execute_typed(sql, &all).await? {
        1 => Ok(()),
        _ => Err(Error::halt("somebody else has written into the journal pgflume.pushes: see who may")),
    }
}

/// Removes what is older than it is kept, a bounded piece; whether that was all.
pub(super) async fn prune(client: &Client) -> Result<bool> {
    begin(client).await?;
    let seconds = RETENTION.as_secs_f64();
    let sql = format!(
        "with old as materialized (
             select p.client, p.key from pgflume.pushes as p
             where p.at operator(pg_catalog.<) (pg_catalog.now() operator(pg_catalog.-) pg_catalog.make_interval(secs => $1))
             order by p.at limit {PRUNED_ROWS} for update skip locked)
         delete from pgflume.pushes as p using old
         where p.client operator(pg_catalog.=) old.client and p.key operator(pg_catalog.=) old.key"
    );
    let pruned = client.execute_typed(&sql, &[(&seconds, Type::FLOAT8)]).await?;
    client.commit().await?;
    Ok(pruned < PRUNED_ROWS)
}
