//! Rows written to the target, which hosted libSQL bills: what coalescing leaves, and a handful a batch.

use crate::limits::{assert_equal, drained};
use crate::support::{Home, Path, Rig, schema};
use crate::volume::set_up;

const TABLE: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

/// Head, ledger, what the ledger forgets, freshness: most rows of them a batch.
const BOOKKEEPING: i64 = 8;

/// Rows that the server has counted as written.
fn written(rig: &Rig) -> i64 {
    let Home::Sqld(sqld) = &rig.home else { unreachable!() };
    let stats = sqld.admin("GET", "/v1/namespaces/default/stats", "").json();
    stats["rows_written_count"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_writes_each_key_once_and_an_idle_drain_writes_nothing() {
    let rig = Rig::new(Path::Sqld, schema(TABLE)).await;
    rig.db.sql("create table t (id int primary key, v text)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    drained(&rig).await;
    let cases = [
        ("insert into t select i, 'a' from generate_series(1, 1000) i", 1000),
        ("update t set v = 'b'; update t set v = 'c'; update t set v = 'd' where id <= 500", 1000),
        ("do $$ begin for i in 1..50 loop update t set v = i where id = 1; end loop; end $$", 1),
        ("insert into t values (2000, 'x'); delete from t where id = 2000", 0),
        ("delete from t where id > 900", 100),
    ];
    for (sql, rows) in cases {
        rig.db.sql(sql).await;
        let before = written(&rig);
        let batches = rig.drain().await.batches as i64;
        let more = written(&rig) - before - rows;
        println!("{sql}: {batches} batches, {more} rows beside the {rows}");
        assert!(
            batches <= if rows == 1000 { 2 } else { 1 } && (0..=BOOKKEEPING * batches).contains(&more),
            "{sql}: {more} beside {rows} in {batches}"
        );
    }
    let before = written(&rig);
    for _ in 0..3 {
        rig.drain().await;
    }
    assert_eq!(written(&rig), before, "nothing was to be done");
    assert_equal(&rig).await;
}
