//! The rules that a pull rests on: each is left out once, in a process of its own, and a test notices.

use super::Rig;
use super::armed;
use super::watched::{Hook, Hooked};
use crate::support::Path;
use pgflume::core::failpoint::PullRule;
use pgflume::provider::Limits;
use pgflume::provider::postgres::PostgresProvider;
use pgflume::pull::{Pace, Pull};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// Done once.
fn once(what: impl Fn() -> futures_util::future::BoxFuture<'static, ()> + Send + Sync + 'static) -> Hook {
    let is_done = AtomicBool::new(false);
    Arc::new(move || match is_done.swap(true, Ordering::SeqCst) {
        true => Box::pin(std::future::ready(())),
        false => what(),
    })
}

fn hooked(rig: &Rig) -> Hooked<PostgresProvider> {
    Hooked { inner: rig.provider(), begun: None, durable: None, end: None }
}

/// Runs this once.
fn sql_once(rig: &Arc<Rig>, sql: &'static str) -> Hook {
    let rig = rig.clone();
    once(move || {
        let rig = rig.clone();
        Box::pin(async move {
            for statement in sql.split(";\n") {
                // A lock that does not come in time is what has to be here.
                let done = rig.db.client.batch_execute(statement).await;
                assert!(
                    done.as_ref().err().is_none_or(|e| e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)),
                    "{done:?}"
                );
            }
        })
    })
}

/// Ends each view with its first part.
fn in_many_views() -> Pace {
    let limits = Limits { rows: 1000, bytes: 1 << 20 };
    Pace { closing: limits, part: limits, view_time: Duration::ZERO }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_truncated_and_refilled_beside_a_view_is_never_read_as_empty() {
    let _armed = armed();
    let rig = Arc::new(
        Rig::new(
            Path::File,
            "create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 50) i",
            r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
        )
        .await,
    );
    rig.pass().await;
    rig.db.sql("update t set v = 'changed' where id = 1").await;
    let refill = "set lock_timeout = '100ms';
        do $$ begin truncate t; insert into t select i, 'again' from generate_series(1, 50) i; end $$";
    let provider = Hooked { begun: Some(sql_once(&rig, refill)), ..hooked(&rig) };
    Pull::new("p".into(), Arc::new(provider), rig.home.target(), false).pass().await.unwrap();
    assert_eq!(rig.rows("SELECT count(*) FROM t").await, ["50"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changes_behind_the_place_of_a_long_pass_is_found() {
    let _armed = armed();
    let rig = Arc::new(
        Rig::new(
            Path::File,
            "create table t (id int primary key, v text) with (fillfactor = 50);
             insert into t select i, repeat('x', 100) from generate_series(1, 20000) i",
            r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
        )
        .await,
    );
    let provider = Hooked { end: Some(sql_once(&rig, "update t set v = 'changed' where id < 5")), ..hooked(&rig) };
    let pull = Pull::new("p".into(), Arc::new(provider), rig.home.target(), false).at_pace(in_many_views());
    pull.pass().await.unwrap();
    rig.assert_equal("t", &["id", "v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_move_between_two_views_are_found() {
    let _armed = armed();
    let rig = Rig::new(
        Path::File,
        "create table t (id int primary key, v text); insert into t select i, repeat('x', 100) from generate_series(1, 30000) i",
        r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
    )
    .await;
    // As many rows move before the place as go: a count sees nothing.
    let rig = Arc::new(rig);
    let end = {
        let rig = rig.clone();
        once(move || {
            let rig = rig.clone();
            Box::pin(async move {
                assert_ne!(rig.rows("SELECT count(*) FROM t").await, ["0"], "a part was brought");
                rig.db.sql("delete from t where id <= 500").await;
                rig.db.sql("vacuum full t").await;
            })
        })
    };
    let provider = Hooked { end: Some(end), ..hooked(&rig) };
    let pull = Pull::new("p".into(), Arc::new(provider), rig.home.target(), false).at_pace(in_many_views());
    pull.pass().await.unwrap();
    rig.assert_equal("t", &["id", "v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_attached_brings_its_old_rows_along() {
    let _armed = armed();
    let rig = Rig::new(
        Path::File,
        "create table p (id int, part int, primary key (id, part)) partition by list (part);
         create table p0 partition of p for values in (0);
         create table p1 (id int, part int, primary key (id, part));
         insert into p select i, 0 from generate_series(1, 100) i; insert into p1 select i, 1 from generate_series(1, 30) i",
        r#"{"p":{"primaryKey":["id","part"],"columns":{"id":"INTEGER","part":"INTEGER"}}}"#,
    )
    .await;
    rig.pass().await;
    // As many rows go as come: a count sees nothing.
    rig.db.sql("alter table p attach partition p1 for values in (1); delete from p where part = 0 and id <= 30").await;
    rig.pass().await;
    assert_eq!(
        rig.rows("SELECT id, part FROM p ORDER BY part, id").await,
        rig.source("select concat_ws('|', id, part) from p order by part, id").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slower_worker_has_read_before_is_not_written_over_newer_rows() {
    let _armed = armed();
    let rig = Rig::new(
        Path::File,
        "create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 50) i",
        r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
    )
    .await;
    rig.pass().await;
    rig.db.sql("update t set v = 'read by the slower one' where id = 1").await;
    let rig = Arc::new(rig);
    let durable = {
        let rig = rig.clone();
        once(move || {
            let rig = rig.clone();
            Box::pin(async move {
                rig.db.sql("update t set v = 'newest' where id = 1").await;
                rig.pass().await;
                assert_eq!(rig.rows("SELECT v FROM t WHERE id = 1").await, ["newest"]);
            })
        })
    };
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let end = {
        let (rig, seen) = (rig.clone(), seen.clone());
        let hook: Hook = Arc::new(move || {
            let (rig, seen) = (rig.clone(), seen.clone());
            Box::pin(async move {
                let rows = rig.rows("SELECT v FROM t WHERE id = 1").await;
                seen.lock().unwrap().extend(rows);
            })
        });
        hook
    };
    let provider = Hooked { durable: Some(durable), end: Some(end), ..hooked(&rig) };
    let slower = Pull::new("p".into(), Arc::new(provider), rig.home.target(), false);
    slower.pass().await.unwrap();
    let seen = seen.lock().unwrap().clone();
    assert!(seen.len() > 1 && seen.iter().all(|v| v == "newest"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_completed_when_what_it_brings_is_there_and_not_before() {
    let _armed = armed();
    let rig = Arc::new(
        Rig::new(
            Path::File,
            "create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 50) i",
            r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
        )
        .await,
    );
    rig.pass().await;
    let job = rig.pull().add_job(None, &serde_json::json!(null)).await.unwrap().0;
    rig.db.sql("update t set v = 'new'").await;
    let watcher = {
        let rig = rig.clone();
        tokio::spawn(async move {
            loop {
                let sql = "SELECT (SELECT status FROM _pgflume_jobs), (SELECT count(*) FROM t WHERE v = 'new')";
                let seen = rig.rows(sql).await;
                match seen[0].as_str() {
                    "completed|50" => return,
                    "completed|0" => panic!("completed before anything is there"),
                    _ => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        })
    };
    rig.pull().pass_for_jobs().await.unwrap();
    watcher.await.unwrap();
    assert_eq!(rig.pull().job(&job.id).await.unwrap().unwrap().status, "completed");
}

/// Which test has to fail without a rule.
fn noticed_by(rule: PullRule) -> &'static str {
    match rule {
        PullRule::OneSnapshot | PullRule::OldestOpen | PullRule::Counts => {
            "pulls::exact::every_pass_equals_its_view_under_writers"
        }
        PullRule::LockFirst => {
            "pulls::rules::a_table_that_is_truncated_and_refilled_beside_a_view_is_never_read_as_empty"
        }
        PullRule::FirstMark => "pulls::rules::a_row_that_changes_behind_the_place_of_a_long_pass_is_found",
        PullRule::SameFiles => "pulls::rules::rows_that_move_between_two_views_are_found",
        PullRule::NewLeaves => "pulls::rules::a_partition_that_is_attached_brings_its_old_rows_along",
        PullRule::Fence => "pulls::rules::what_a_slower_worker_has_read_before_is_not_written_over_newer_rows",
        PullRule::JobWithBatch => "pulls::rules::a_job_is_completed_when_what_it_brings_is_there_and_not_before",
        PullRule::LookBack => "pulls::listed::a_row_whose_writer_commits_later_than_it_stamps_is_found",
        PullRule::Origin => "pulls::sides::a_source_that_was_put_back_is_read_anew",
    }
}

/// Time to look between what should be one transaction.
fn slowed(rule: PullRule) -> &'static str {
    if rule == PullRule::JobWithBatch { ";sent=return(300)" } else { "" }
}

#[test]
fn each_rule_that_is_left_out_is_noticed() {
    for rule in PullRule::ALL {
        let began = std::time::Instant::now();
        let test = noticed_by(rule);
        let run = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env("FAILPOINTS", format!("{}=return{}", rule.name(), slowed(rule)))
            .env("PULL_PASSES", "300")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(said.contains("running 1 test"), "{rule:?}: {test} is no test");
        assert!(!run.status.success(), "{rule:?}: {test} has not noticed");
        println!("{rule:?}: noticed after {:.0?}", began.elapsed());
    }
}
