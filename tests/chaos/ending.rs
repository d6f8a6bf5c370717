//! The end of a run: everything is up again, nobody writes, the queue is drained; then both sides must be equal, and
//! all that readers were shown must have been durable.

use crate::compare::compare;
use crate::faults::{POISONED, differences};
use crate::readers::Shown;
use crate::report::End;
use crate::stage::{Failure, SCHEMA, Stage, queue_table};
use crate::workers::ENDS;
use pgflume::core::failpoint;
use serde_json::Value;
use std::time::{Duration, Instant};

/// For all drains and rebuilds that are left, and once more for the comparison; the machine may be slow.
const LIMIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(200);
/// Versions that are looked up in one query.
const LOOKUP_ROWS: usize = 20_000;
/// What the product logs when it brings two sides together that diverged.
const HEALINGS: [(&str, &str); 3] = [
    ("by kept messages", "what it lost is taken again"),
    ("by a resync", "all tables are compared with Postgres and rebuilt"),
    ("of removed messages", "somebody took messages off the queue"),
];
/// Failures that are told in words.
const EXAMPLES: usize = 5;

/// Drains what is left: `None`, or why that did not work.
pub async fn drain(stage: &Stage) -> Option<String> {
    let began = Instant::now();
    while stage.proxy.as_ref().is_some_and(|proxy| proxy.late() > 0) {
        tokio::time::sleep(POLL).await;
    }
    loop {
        let (code, said) = stage.workers.binary().run(&["sync"], None, LIMIT).await;
        let answer = said.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
        if code == Some(0)
            && let Some(answer) = &answer
            && answer["queued"] == 0
            && answer["rebuilding"] == 0
            && answer["busy"] != true
        {
            return None;
        }
        if began.elapsed() > LIMIT {
            return Some(format!("the queue is not drained after {LIMIT:?} (exit code {code:?}): {answer:?}"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Compares both sides, twice over, and looks up what was shown.
pub async fn judge(stage: &Stage, shown: &Shown) -> Result<End, Failure> {
    let mut end = End::default();
    let (code, said) = stage.workers.binary().run(&["verify", "--json"], None, LIMIT).await;
    if code != Some(0) || differences(&said) > 0 {
        end.problems.push(format!("pgflume verify ended with {code:?}: {said}"));
    }
    let client = stage.connect().await?;
    let comparison = compare(&client, stage.replica().await?.as_ref(), SCHEMA).await?;
    (end.rows, end.differences) = (comparison.rows, comparison.differences);
    end.problems.extend(comparison.examples);
    count(stage, &client, &mut end).await?;
    if shown.is_empty() {
        end.problems.push("no reader saw anything".into());
    }
    end.problems.extend(lost(&client, shown).await?);
    Ok(end)
}

async fn count(stage: &Stage, client: &tokio_postgres::Client, end: &mut End) -> Result<(), Failure> {
    let sql = format!(
        "select (select count(*) from {queue}_dead), (select count(*) from history), max(last_value)::bigint,
             (select count(*) from {queue}_dead where not (message->>'table' = 'accounts' and message->>'class' = 'target'
                 and (message->'key'->>0)::bigint {POISONED}))
         from pg_sequences where schemaname || '.' || sequencename = '{queue}_msg_id_seq'",
        queue = queue_table()
    );
    let row = client.query_one(&sql, &[]).await?;
    let number = |i| u64::try_from(row.get::<_, Option<i64>>(i).unwrap_or(0));
    (end.dead_letters, end.row_versions, end.messages) = (number(0)?, number(1)?, number(2)?);
    if number(3)? > 0 {
        end.problems.push(format!("{} dead letters of rows that could be applied", number(3)?));
    }
    let logs = stage.workers.binary().logs();
    let logged = |words: &str| logs.matches(words).count() as u64;
    (end.drains, end.batches) = (logged("drain done"), logged("batch applied"));
    end.healed = HEALINGS.iter().map(|(name, words)| (*name, logged(words))).collect();
    for name in failpoint::NAMES {
        stage.tally.faults_of(format!("stopped at {name}"), logged(&format!("failpoint {name}{ENDS}")));
        stage.tally.faults_of(format!("stalled at {name}"), logged(&format!("failpoint {name}: the process stalls")));
    }
    Ok(())
}

/// What readers were shown and Postgres does not have: it was not durable.
async fn lost(client: &tokio_postgres::Client, shown: &Shown) -> Result<Vec<String>, Failure> {
    client.batch_execute("create index on history (version); analyze history").await?;
    let sql = "select t, k, v from unnest($1::text[], $2::text[], $3::bigint[]) u(t, k, v)
               where not exists (select from history h where h.version = v and h.tab = t and h.key = k)";
    let (mut found, mut count) = (Vec::new(), 0);
    for part in shown.chunks(LOOKUP_ROWS) {
        let tables: Vec<&str> = part.iter().map(|(table, _, _)| *table).collect();
        let keys: Vec<&str> = part.iter().map(|(_, key, _)| key.as_str()).collect();
        let versions: Vec<i64> = part.iter().map(|(_, _, version)| *version).collect();
        for row in client.query(sql, &[&tables, &keys, &versions]).await? {
            count += 1;
            if found.len() < EXAMPLES {
                let (table, key, version): (&str, &str, i64) = (row.get(0), row.get(1), row.get(2));
                found.push(format!("{table}: key {key} was shown in version {version}, which Postgres lost"));
            }
        }
    }
    if count > EXAMPLES {
        found.push(format!("{count} versions in all were shown and lost"));
    }
    Ok(found)
}
