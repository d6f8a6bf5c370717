//! Long transactions and a long queue: the pace does not depend on how much waits, nor does the memory.

use super::{Run, assert_equal, directory_with, run};
use crate::support::{Path, Rig, schema};
use crate::volume::set_up;

const TABLE: &str = r#"{"rows":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT","n":"DECIMAL"}}}"#;

/// The documented size, or one that shows the same sooner.
fn size(full: i64, quick: i64) -> i64 {
    if std::env::var_os("LIMITS_FULL").is_some() { full } else { quick }
}

async fn empty_rig(path: Path) -> (Rig, tempfile::TempDir) {
    let rig = Rig::new(path, schema(TABLE)).await;
    rig.db.sql("create table rows (id bigint primary key, v text, n numeric)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let directory = directory_with(TABLE);
    run(&rig, directory.path(), &["sync"]).await.succeeded();
    (rig, directory)
}

async fn one_transaction(path: Path, rows: i64) {
    let (rig, directory) = empty_rig(path).await;
    let write = [
        format!("insert into rows select i, 'row ' || i, i / 7.0 from generate_series(1, {rows}) i"),
        "update rows set v = v || ' again'".to_owned(),
    ];
    for sql in write {
        rig.db.sql(&sql).await;
        let done = run(&rig, directory.path(), &["sync"]).await.succeeded();
        println!("{path:?}: {rows} rows in one transaction: {:?}, {} MB", done.took, done.peak_mb);
        assert!(done.peak_mb < 200, "{} MB", done.peak_mb);
        assert_equal(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_long_transaction_drains_in_bounded_memory() {
    one_transaction(Path::File, size(1_000_000, 100_000)).await;
    one_transaction(Path::Sqld, size(1_000_000, 50_000)).await;
}

/// Seconds for each tenth of the messages, from the log.
fn tenths(done: &Run, messages: i64) -> Vec<f64> {
    let (mut read, mut times, mut begun) = (0, Vec::new(), None);
    for line in done.log().lines().filter(|line| line.contains("messages read")) {
        let at = seconds_of_day(line);
        let count = line.split("batch.messages=").nth(1).and_then(|rest| rest.split_whitespace().next());
        read += count.and_then(|n| n.parse::<i64>().ok()).unwrap();
        let begin = *begun.get_or_insert(at);
        if read * 10 >= messages * (times.len() as i64 + 1) {
            times.push(at - begin);
            begun = Some(at);
        }
    }
    times
}

/// Of a line that begins like `2024-02-29T12:00:00.123456Z`.
fn seconds_of_day(line: &str) -> f64 {
    let part = |range: std::ops::Range<usize>| line[range].parse::<f64>().unwrap();
    part(11..13) * 3600.0 + part(14..16) * 60.0 + part(17..26)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_drains_at_one_pace_in_bounded_memory() {
    let messages = size(5_000_000, 200_000);
    let (rig, directory) = empty_rig(Path::File).await;
    rig.db.sql("insert into rows select i, 'row ' || i, i from generate_series(1, 100000) i").await;
    run(&rig, directory.path(), &["sync"]).await.succeeded();
    rig.db.sql("alter table rows disable trigger all; update rows set v = 'by the marks'").await;
    rig.db.sql(&format!("insert into pgmq.q_replicate_data_libsql (vt, message)
        select now(), jsonb_build_object('v', 1, 'table', 'rows', 'keys', jsonb_build_array(jsonb_build_array((1 + i * 7919 % 100000)::text)))
        from generate_series(1, {messages}::bigint) i")).await;
    rig.db.sql("alter table rows enable always trigger pgflume_replicate_data_libsql_update").await;
    let done = run(&rig, directory.path(), &["sync"]).await.succeeded();
    let times = tenths(&done, messages);
    println!("{messages} messages: {:?}, {} MB, seconds of each tenth {times:?}", done.took, done.peak_mb);
    assert_eq!(rig.db.queued().await, 0);
    assert_eq!(rig.rows("SELECT count(*) FROM rows WHERE v = 'by the marks'").await, ["100000"]);
    assert!(done.peak_mb < 200, "{} MB", done.peak_mb);
    // Generous: the machine is shared. What is linear in the queue would differ tenfold.
    let (early, late) = (times[1] + times[2], times[times.len() - 2] + times[times.len() - 3]);
    assert!(early < 4.0 * late + 1.0 && late < 4.0 * early + 1.0, "{times:?}");
}
