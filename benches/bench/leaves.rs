//! How long after its commit a change of some rows is readable whose table has thousands of partitions.

use crate::freshness::{self, WRITERS};
use crate::ground::{Ground, Home, Kind};
use crate::report::{Section, median, thousands};
use pgflume::core::schema::Schema;
use pgflume::core::value::Cell;
use pgflume::replica::{Statement, Store};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SCHEMA: &str = r#"{"fresh":{"primaryKey":"id","columns":{"id":"INTEGER","version":"INTEGER"}},
    "visits":{"primaryKey":["id","day"],"columns":{"id":"INTEGER","day":"TEXT","note":"TEXT"}}}"#;

/// Rows of each change, each in a partition of its own.
const ROWS: i64 = 100;

/// Changes rows of a table of few partitions and of one of many, in turns of their own.
pub async fn run(ground: &Ground) -> Section {
    let (counts, changes) = if ground.is_quick { ([10, 300], 5) } else { ([100, 3_000], 15) };
    let mut rows = Vec::new();
    let mut bars = Vec::new();
    for leaves in counts {
        let mut late = measure(ground, leaves, changes).await;
        late.sort_by(f64::total_cmp);
        let (most, middle) = (late[late.len() - 1], median(late));
        let name = format!("{} partitions", thousands(f64::from(leaves)));
        rows.push(vec![name.clone(), format!("{middle:.0}"), format!("{most:.0}")]);
        bars.push((name, middle));
    }
    Section {
        name: "leaves",
        what: format!("Milliseconds from the return of a commit that changes {ROWS} rows of as many partitions until all of them are readable in a file, with `serve --follow`; {changes} changes, a second apart."),
        head: vec!["", "median", "most"],
        rows,
        plot: ("From commit to readable, 100 rows of as many partitions, ms".into(), bars),
    }
    .print()
}

async fn measure(ground: &Ground, leaves: i32, changes: i64) -> Vec<f64> {
    let rows = i64::from(leaves) * 4;
    let make = format!(
        "drop table if exists fresh, visits;\ncreate table fresh (id int primary key, version int);\ninsert into fresh select i, 0 from generate_series(1, {WRITERS}) i;\ncreate table visits (id bigint, day date, note text, primary key (id, day)) partition by range (day);\nselect format('create table visits_%s partition of visits for values from (%L) to (%L)', i, date '2015-01-01' + i, date '2015-01-02' + i) from generate_series(0, {leaves} - 1) i"
    );
    for (at, sql) in make.split(";\n").enumerate() {
        if at < 4 {
            ground.sql(sql).await;
            continue;
        }
        for row in ground.client.query(sql, &[]).await.unwrap() {
            ground.sql(row.get(0)).await; // each commits: all at once would take a lock a partition
        }
    }
    ground
        .sql(&format!(
            "insert into visits select i, date '2015-01-01' + (i % {leaves}), '' from generate_series(1, {rows}) i"
        ))
        .await;
    freshness::set_up(ground, &Arc::new(Schema::parse(SCHEMA).unwrap())).await;
    let home = Home::new(Kind::File);
    let _following = freshness::follow_by(ground, &home.target(), SCHEMA).await;
    let replica = freshness::reader(&home.target()).await;
    until(&*replica, "SELECT count(*) FROM visits", rows).await;
    let mut late = Vec::new();
    for change in 0..changes {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let first = change * ROWS % rows;
        ground
            .sql(&format!("update visits set note = 'n{change}' where id > {first} and id <= {first} + {ROWS}"))
            .await;
        let committed = Instant::now();
        until(&*replica, &format!("SELECT count(*) FROM visits WHERE note = 'n{change}'"), ROWS).await;
        late.push(committed.elapsed().as_secs_f64() * 1e3);
    }
    for leaf in 0..leaves {
        ground.sql(&format!("drop table visits_{leaf}")).await; // one by one for the same reason
    }
    ground.sql("drop table visits").await;
    late
}

async fn until(replica: &dyn Store, sql: &str, expected: i64) {
    let there = async || {
        let rows = replica.read(Statement::new(sql, vec![])).await;
        rows.is_ok_and(|rows| rows[0][0] == Cell::Integer(expected))
    };
    while !there().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
