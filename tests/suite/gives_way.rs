//! A comparison lets go of the queue as soon as another worker has asked for it, and tables and indexes are made by
//! requests that may take long, one at a time.

use crate::snapshot::rebuilt;
use crate::support::{Path, Rig, schema};
use crate::volume::set_up;
use pgflume::core::error::Result;
use pgflume::operate::verify::verify;
use pgflume::postgres::books::progress;
use pgflume::replica::inventory::Inventory;
use pgflume::replica::{Replica, Rows, Statement, Store, Work};
use pgflume::sync::compare::report::{Counters, VerifyOptions};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
const ROWS: u64 = 150_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_gives_way_to_whoever_has_found_the_queue_busy() {
    let rig = Rig::new(Path::File, schema(TABLES)).await;
    let fill = format!("insert into t select i, 'row ' || i from generate_series(1, {ROWS}) i; analyze t");
    rig.db.sql(&format!("create table t (id int primary key, v text); {fill}")).await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rebuilt(&rig).await;
    let (counters, worker) = (Arc::new(Counters::default()), rig.second_worker());
    let verifying = tokio::spawn({
        let counters = counters.clone();
        async move {
            verify(&worker, VerifyOptions { tables: vec!["t".into()], ..VerifyOptions::default() }, counters).await
        }
    });
    let other = rig.db.pinned().await;
    while counters.rows.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    progress::wake(&other, rig.worker.queue()).await.unwrap();
    other.begin("", "set local lock_timeout = '100s'").await.unwrap();
    progress::wait_for_lock(&other, rig.worker.queue()).await.unwrap();
    let compared = counters.rows.load(Ordering::Relaxed);
    assert!(compared < ROWS, "it had gone through all {compared} rows before it let go");
    other.rollback().await.unwrap();
    let report = verifying.await.unwrap().unwrap();
    assert!(report.is_equal() && report.tables["t"].rows == ROWS, "{report:?}");
}

/// One write: whether it may take long, and its statements.
type Written = (bool, Vec<String>);

/// Remembers what is written.
#[derive(Default)]
struct Paper(Arc<Mutex<Vec<Written>>>);

#[async_trait::async_trait]
impl Store for Paper {
    async fn query(&self, _: Statement) -> Result<Rows> {
        Ok(Rows::new())
    }
    async fn read(&self, _: Statement) -> Result<Rows> {
        Ok(Rows::new())
    }
    async fn read_together(&self, statements: Vec<Statement>) -> Result<Vec<Rows>> {
        Ok(vec![Rows::new(); statements.len()])
    }
    async fn write(&self, work: Work) -> Result<()> {
        let statements = work.before.into_iter().map(|statement| statement.sql).collect();
        self.0.lock().unwrap().push((work.is_long, statements));
        Ok(())
    }
}

#[tokio::test]
async fn tables_and_indexes_may_take_long_and_each_index_is_made_for_itself() {
    let written = Arc::default();
    let replica = Replica::on(Box::new(Paper(Arc::clone(&written))));
    let tables = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","a":"TEXT","b":"TEXT"},"indexes":["a","b"]}}"#;
    replica.complete(&Inventory::default(), &schema(tables)).await.unwrap();
    let written = written.lock().unwrap();
    assert!(written.iter().all(|(is_long, _)| *is_long), "{written:?}");
    let indexes: Vec<_> = written.iter().filter(|(_, sql)| sql.iter().any(|sql| sql.contains("INDEX"))).collect();
    assert_eq!(indexes.len(), 2, "{written:?}");
    assert!(indexes.iter().all(|(_, sql)| sql.len() == 1), "{written:?}");
}
