//! Rows: under keys, in pages, and those that are odd.

use super::{Bench, Odd, Worker, fault, put};
use futures_util::TryStreamExt;
use pgflume::core::error::{Cause, Result};
use pgflume::core::message::MarkedKey;
use pgflume::core::value::Cell;
use pgflume::postgres::catalog::SourceTable;
use pgflume::postgres::link::Savepoint;
use pgflume::postgres::rows::{MarkedRow, Unfit};
use std::time::Duration;

fn texts(keys: &[i64]) -> Vec<MarkedKey> {
    keys.iter().map(|key| vec![key.to_string()]).collect()
}

/// What is under keys, in their order.
async fn read(worker: &Worker, source: &SourceTable, keys: &[MarkedKey], may_span: bool) -> Result<Vec<MarkedRow>> {
    let mut found: Vec<MarkedRow> = worker.link.read(source, keys, may_span).await?.try_collect().await?;
    found.sort_unstable_by_key(|found| found.position);
    assert!(found.iter().map(|found| found.position).eq(0..keys.len()), "one for each key");
    Ok(found)
}

pub async fn values(worker: &Worker, keys: &[i64]) -> Vec<Option<String>> {
    let found = read(worker, worker.t(), &texts(keys), false).await.unwrap();
    let value = |found: MarkedRow| Some(found.cells?.unwrap()[1].as_text().unwrap().to_owned());
    found.into_iter().map(value).collect()
}

pub async fn rows_are_found_under_their_keys(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    put(bench, 7, "seven").await;
    put(bench, -8, "").await;
    worker.step().await;
    let keys: Vec<MarkedKey> = ["007", "8", "-8", "7"].map(|key| vec![key.to_owned()]).into();
    let found = read(&worker, worker.t(), &keys, false).await.unwrap();
    let keyed: Vec<_> = found.iter().map(|found| found.key.clone().unwrap()).collect();
    assert_eq!(keyed, [7, 8, -8, 7].map(|id| vec![Cell::Integer(id)]));
    let cells: Vec<_> = found.into_iter().map(|found| found.cells.map(Result::unwrap)).collect();
    let row = |id, v: &str| Some(vec![Cell::Integer(id), Cell::Text(v.into())]);
    assert_eq!(cells, [row(7, "seven"), None, row(-8, ""), row(7, "seven")]);
    assert!(read(&worker, worker.t(), &[], false).await.unwrap().is_empty());
}

pub async fn a_key_that_is_none_is_an_error_of_a_row(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    put(bench, 1, "x").await;
    worker.step().await;
    worker.link.savepoint(Savepoint::Read, None).await.unwrap();
    for key in ["x", "", "1.5", "9223372036854775808"] {
        let keys = [vec!["1".to_owned()], vec![key.to_owned()]];
        let refused = read(&worker, worker.t(), &keys, false).await.unwrap_err();
        assert_eq!(refused.cause(), Some(Cause::Row), "{key}");
        worker.link.rollback_to(Savepoint::Read).await.unwrap();
        let refused = worker.link.try_key(worker.t(), &keys[1]).await.unwrap_err();
        assert_eq!(refused.cause(), Some(Cause::Row), "{key}");
        worker.link.rollback_to(Savepoint::Read).await.unwrap();
    }
    for key in ["1", "-0", " 12 ", "+3"] {
        worker.link.try_key(worker.t(), &[key.to_owned()]).await.unwrap();
    }
    assert_eq!(values(&worker, &[1]).await, [Some("x".into())]);
}

pub async fn a_row_that_does_not_fit_is_found_so(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    bench.put_odd(1, Odd::Fits).await;
    bench.put_odd(2, Odd::Unfit).await;
    worker.step().await;
    let found = read(&worker, worker.w(), &texts(&[1, 2, 3]), false).await.unwrap();
    let is_unfit = |cells: &Option<Result<Vec<Cell>, Unfit>>| {
        cells.as_ref().map(|cells| matches!(cells, Err(Unfit::Value { column, .. }) if column == "n"))
    };
    let seen: Vec<_> = found.iter().map(|found| is_unfit(&found.cells)).collect();
    assert_eq!(seen, [Some(false), Some(true), None]);
    assert_eq!(found[1].key.clone().unwrap(), [Cell::Integer(2)]);
    let mut page = worker.link.page(worker.w(), None, 10).await.unwrap();
    let mut rows = Vec::new();
    while let Some(row) = page.try_next().await.unwrap() {
        rows.push((row.is_ok(), page.place().unwrap().unwrap()));
    }
    assert_eq!(rows, [(true, vec!["1".to_owned()]), (false, vec!["2".to_owned()])]);
}

pub async fn a_row_that_cannot_be_read_is_at_fault_alone(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    put(bench, 1, "x").await;
    bench.put_odd(1, Odd::Fits).await;
    bench.put_odd(2, Odd::Unreadable).await;
    worker.step().await;
    assert_eq!(worker.take().await.messages.len(), 1);
    worker.link.savepoint(Savepoint::Read, None).await.unwrap();
    let failed = read(&worker, worker.w(), &texts(&[1, 2]), false).await.unwrap_err();
    assert_eq!(failed.cause(), Some(Cause::Row));
    let after = worker.link.is_empty(worker.t()).await.unwrap_err();
    assert_eq!(fault(&after), ("25P02", Some(Cause::Other)));
    worker.link.rollback_to(Savepoint::Read).await.unwrap();
    assert_eq!(read(&worker, worker.w(), &texts(&[1, 3]), false).await.unwrap().len(), 2);
    worker.link.release(Savepoint::Read).await.unwrap();
    worker.link.commit().await.unwrap();
    assert!(worker.queued().await.is_empty());
}

pub async fn a_row_that_takes_too_long_is_cancelled(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    bench.put_odd(1, Odd::Slow).await;
    bench.put_odd(2, Odd::Fits).await;
    worker.step().await;
    let limit = Duration::from_millis(100);
    for is_later in [false, true] {
        worker.link.savepoint(Savepoint::Read, Some(if is_later { super::LONG } else { limit })).await.unwrap();
        if is_later {
            worker.link.limit(limit).await.unwrap();
        }
        let begun = tokio::time::Instant::now();
        let cancelled = read(&worker, worker.w(), &texts(&[1, 2]), false).await.unwrap_err();
        assert_eq!(fault(&cancelled), ("57014", Some(Cause::Cancelled)));
        assert!(begun.elapsed() >= limit && begun.elapsed() < super::LONG);
        worker.link.rollback_to(Savepoint::Read).await.unwrap();
        assert_eq!(read(&worker, worker.w(), &texts(&[2]), false).await.unwrap().len(), 1);
        worker.link.release(Savepoint::Read).await.unwrap();
    }
}

pub async fn a_span_meets_what_nobody_asked_for(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    for id in [1, 7, 10, 39] {
        bench.put_odd(id, Odd::Fits).await;
    }
    let close: Vec<i64> = (1..40).filter(|id| *id != 10).collect();
    let there = |found: Vec<MarkedRow>| found.iter().filter(|found| found.cells.is_some()).count();
    worker.step().await;
    assert_eq!(there(read(&worker, worker.w(), &texts(&close), true).await.unwrap()), 3);
    worker.link.rollback().await.unwrap();
    bench.put_odd(10, Odd::Unreadable).await;
    worker.step().await;
    worker.link.savepoint(Savepoint::Read, None).await.unwrap();
    assert_eq!(there(read(&worker, worker.w(), &texts(&close), false).await.unwrap()), 3);
    let failed = read(&worker, worker.w(), &texts(&close), true).await.unwrap_err();
    assert_eq!(failed.cause(), Some(Cause::Row));
    worker.link.rollback_to(Savepoint::Read).await.unwrap();
    let few = &close[..31];
    assert_eq!(there(read(&worker, worker.w(), &texts(few), true).await.unwrap()), 2, "too few for a span");
    let far: Vec<i64> = close.iter().map(|id| if *id == 39 { 100 } else { *id }).collect();
    assert_eq!(there(read(&worker, worker.w(), &texts(&far), true).await.unwrap()), 2, "too far apart");
}

/// Ids of a page, whether it is the last, and where it ends.
async fn page(worker: &Worker, source: &SourceTable, after: Option<i64>, rows: i64) -> (Vec<i64>, bool, Option<i64>) {
    let after = after.map(|after| vec![after.to_string()]);
    let mut page = worker.link.page(source, after.as_ref(), rows).await.unwrap();
    let mut ids = Vec::new();
    while let Some(row) = page.try_next().await.unwrap() {
        let (key, cells) = row.unwrap();
        assert_eq!(key[..], cells[..1]);
        let Cell::Integer(id) = key[0] else { panic!("{key:?}") };
        assert_eq!(page.place().unwrap(), Some(vec![id.to_string()]), "while it comes");
        ids.push(id);
    }
    let place = page.place().unwrap().map(|place| place[0].parse().unwrap());
    (ids, page.is_last(), place)
}

pub async fn pages_follow_each_other_in_the_order_of_the_key(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    for id in [10, 2, -3, 1] {
        put(bench, id, "x").await;
        bench.put_odd(id, Odd::Fits).await;
    }
    worker.step().await;
    put(bench, 5, "too late").await;
    for source in [worker.t(), worker.w()] {
        assert_eq!(page(&worker, source, None, 3).await, (vec![-3, 1, 2], false, Some(2)));
        assert_eq!(page(&worker, source, Some(2), 3).await, (vec![10], true, Some(10)));
        assert_eq!(page(&worker, source, None, 4).await, (vec![-3, 1, 2, 10], false, Some(10)));
        assert_eq!(page(&worker, source, Some(10), 4).await, (vec![], true, Some(10)));
        assert_eq!(page(&worker, source, Some(3), 9).await, (vec![10], true, Some(10)), "behind one that is gone");
        let next = async |after: Option<i64>| {
            let after = after.map(|after| vec![after.to_string()]);
            worker.link.next_place(source, after.as_ref()).await.unwrap().map(|place| place[0].clone())
        };
        assert_eq!(
            (next(None).await, next(Some(2)).await, next(Some(10)).await),
            (Some("-3".into()), Some("10".into()), None)
        );
    }
    worker.link.size(worker.t()).await.unwrap();
}

pub async fn a_page_ends_at_a_row_that_cannot_be_read(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    assert_eq!(
        {
            worker.step().await;
            page(&worker, worker.w(), None, 5).await
        },
        (vec![], true, None)
    );
    worker.link.rollback().await.unwrap();
    for (id, odd) in [(1, Odd::Fits), (2, Odd::Unreadable), (3, Odd::Fits)] {
        bench.put_odd(id, odd).await;
    }
    worker.step().await;
    worker.link.savepoint(Savepoint::Read, None).await.unwrap();
    let whole = async {
        let mut page = worker.link.page(worker.w(), None, 3).await?;
        while page.try_next().await?.is_some() {}
        Result::<()>::Ok(())
    };
    let failed = whole.await.unwrap_err();
    assert_eq!(failed.cause(), Some(Cause::Row));
    worker.link.rollback_to(Savepoint::Read).await.unwrap();
    assert_eq!(page(&worker, worker.w(), None, 1).await, (vec![1], false, Some(1)));
    let place = worker.link.next_place(worker.w(), Some(&vec!["1".into()])).await.unwrap();
    assert_eq!(place, Some(vec!["2".to_owned()]), "whether or not it can be read");
    assert_eq!(page(&worker, worker.w(), Some(2), 2).await, (vec![3], true, Some(3)));
}

pub async fn absent_keys_are_found(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    put(bench, 1, "x").await;
    put(bench, 3, "x").await;
    worker.step().await;
    let keys: Vec<MarkedKey> = ["1", "2", "3", "04", "03"].map(|key| vec![key.to_owned()]).into();
    assert_eq!(worker.link.absent(worker.t(), &keys).await.unwrap(), [1, 3]);
    assert_eq!(worker.link.absent_by_text(worker.t(), &keys, true).await.unwrap(), [1, 3, 4], "as they are written");
    let odd = [vec!["x".to_owned()], vec!["1".to_owned()]];
    assert_eq!(worker.link.absent_by_text(worker.t(), &odd, false).await.unwrap(), [0]);
    assert!(worker.link.absent(worker.t(), &[]).await.unwrap().is_empty());
    assert_eq!(worker.link.absent(worker.t(), &odd).await.unwrap_err().cause(), Some(Cause::Row));
}

pub async fn an_empty_table_is_empty(bench: &impl Bench) {
    let worker = Worker::new(bench).await;
    worker.step().await;
    assert!(worker.link.is_empty(worker.t()).await.unwrap());
    worker.link.rollback().await.unwrap();
    put(bench, 1, "x").await;
    let mut application = bench.begin().await;
    application.delete(1).await;
    worker.step().await;
    assert!(!worker.link.is_empty(worker.t()).await.unwrap(), "it is not committed");
    worker.link.rollback().await.unwrap();
    application.commit().await;
    worker.step().await;
    assert!(worker.link.is_empty(worker.t()).await.unwrap());
}
