//! A pull, end to end: a private Postgres in which nothing is installed, a login that may only read, a local libSQL file,
//! and the proof that both sides are equal.

use super::compare;
use super::postgres::Cluster;
use super::{Failure, SCHEMA, TABLES, WRITES, private, say};
use crate::core::queue_name::{DEFAULT_QUEUE, QueueName};
use crate::core::schema::Schema;
use crate::postgres::catalog::DEFAULT_ROW_BYTES;
use crate::postgres::{Client, PgUrl, Purpose};
use crate::provider::StampOptions;
use crate::provider::postgres::{PostgresProvider, Wanted};
use crate::pull::Pull;
use crate::replica::Replica;
use crate::replica::target::Target;
use std::sync::Arc;
use std::time::Instant;

/// Runs the demo; whether both sides were equal after each pass.
pub async fn run() -> Result<bool, Failure> {
    let started = Instant::now();
    say("starting a private Postgres, in which nothing is installed");
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(private())).await??;
    let directory = tempfile::Builder::new().prefix("pgflume-demo-").tempdir()?;
    let url = cluster.url("postgres");
    let owner = PgUrl::parse(&url)?.pinned(Purpose::Demo).await?;
    owner.batch_execute(TABLES).await?;
    owner.batch_execute("create role reader login; grant select on all tables in schema public to reader").await?;
    say("a login that may SELECT from three tables, and nothing else");
    let schema = Arc::new(Schema::parse(SCHEMA)?);
    let provider = PostgresProvider {
        url: PgUrl::parse(&url.replace("user=postgres", "user=reader"))?,
        wanted: Wanted::Defined(schema.clone()),
        row_bytes: DEFAULT_ROW_BYTES,
        stamps: StampOptions::default(),
    };
    let target = Target::File(directory.path().join("replica.db"));
    let pull = Pull::new("shop".into(), Arc::new(provider), target.clone(), false);
    let mut is_equal = true;
    for (what, sql) in WRITES {
        let at = Instant::now();
        owner.batch_execute(sql).await?;
        say(&format!("\nPostgres  {what} ({} ms)", at.elapsed().as_millis()));
        let at = Instant::now();
        let done = pull.pass().await?;
        say(&format!(
            "a pass    {} rows written, {} deleted ({} ms)",
            done.rows,
            done.removed,
            at.elapsed().as_millis()
        ));
        is_equal &= prove(&owner, &target, &schema).await?;
    }
    let at = Instant::now();
    let idle = pull.pass().await?;
    is_equal &= idle.rows + idle.removed == 0;
    say(&format!("\na pass that finds nothing ({} ms)", at.elapsed().as_millis()));
    say(&format!(
        "{} after {:.1} s",
        if is_equal { "equal on both sides" } else { "NOT EQUAL" },
        started.elapsed().as_secs_f64()
    ));
    Ok(is_equal)
}

async fn prove(client: &Client, target: &Target, schema: &Schema) -> Result<bool, Failure> {
    let replica = Replica::open(target).await?;
    let verdicts = compare::compare(client, &replica, schema, &QueueName::parse(DEFAULT_QUEUE)?).await?;
    for v in &verdicts {
        say(&format!(
            "  {:<10} {:>7} rows, {} missing, {} extra, {} different",
            v.table, v.rows, v.missing, v.extra, v.different
        ));
    }
    Ok(verdicts.len() == 3 && verdicts.iter().all(compare::Verdict::is_equal))
}
