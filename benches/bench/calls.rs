//! What a call of an empty queue takes, whether it opens its connection to Postgres or has that of the call before.

use crate::ground::{Ground, Home, Kind, Table, connect};
use crate::report::{Section, median};
use std::time::{Duration, Instant};

const BUDGET: Duration = Duration::from_secs(25);

/// Between two calls.
const REST: Duration = Duration::from_millis(100);

pub async fn run(ground: &Ground) -> Section {
    let calls = if ground.is_quick { 10 } else { 60 };
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    for (kind, replica) in [(Kind::File, "file"), (Kind::Sqld, "sqld")] {
        ground.fill(Table::Narrow, 1_000).await;
        ground.capture(Table::Narrow.json()).await;
        let home = Home::new(kind);
        let new = ground.worker(Table::Narrow, &home.target());
        let kept = ground.worker(Table::Narrow, &home.target()).keeping_its_connection();
        new.drain(BUDGET).await.unwrap();
        kept.drain(BUDGET).await.unwrap();
        let mut times: [Vec<f64>; 3] = Default::default();
        for _ in 0..calls {
            tokio::time::sleep(REST).await;
            times[0].push(
                timed(async { drop(connect(&ground.url).await.query_one("select 1", &[]).await.unwrap()) }).await,
            );
            times[1].push(timed(async { assert_eq!(new.drain(BUDGET).await.unwrap().queued, 0) }).await);
            times[2].push(timed(async { assert_eq!(kept.drain(BUDGET).await.unwrap().queued, 0) }).await);
        }
        let names =
            ["floor: a connection and `select 1`", "a call that connects", "a call with the last one's connection"];
        for (name, mut times) in names.into_iter().zip(times) {
            times.sort_by(f64::total_cmp);
            let (late, middle) = (times[times.len() * 95 / 100], median(times));
            let name = format!("{replica}, {name}");
            rows.push(vec![name.clone(), format!("{middle:.1}"), format!("{late:.1}")]);
            bars.push((name, middle));
        }
    }
    Section {
        name: "calls",
        what: format!("Milliseconds that a drain of an empty queue takes, {calls} of each in turns, by the replica; it also tells the replica how fresh that is."),
        head: vec!["", "median", "95 %"],
        rows,
        plot: ("A call of an empty queue, ms".into(), bars),
    }
    .print()
}

async fn timed(work: impl Future<Output = ()>) -> f64 {
    let began = Instant::now();
    work.await;
    began.elapsed().as_secs_f64() * 1e3
}
