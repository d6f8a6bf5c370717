//! Thousands of rows in one statement, COPY, TRUNCATE, and TRUNCATE with a new load in one transaction.

use super::{Step, Transaction};
use rand::RngExt;
use rand::rngs::StdRng;
use std::fmt::Write as _;
use std::time::Duration;

pub fn next(rng: &mut StdRng) -> Transaction {
    let batch = rng.random_range(0..6);
    match rng.random_range(0..14) {
        0 | 1 => Transaction::steps(vec![Step::Sql(insert(rng, batch))]),
        2 => Transaction::of(format!("update public.loads set body = body || '!' where batch = {batch}")),
        3 => Transaction::of(format!("delete from public.loads where batch = {batch}")),
        4 => copy(rng, batch),
        5 => Transaction::of("truncate public.loads"),
        6 => Transaction::steps(vec![
            Step::Sql("truncate public.loads".into()),
            Step::Pause(Duration::from_millis(rng.random_range(0..300))),
            Step::Sql(insert(rng, batch)),
        ]),
        // Small ones between the large, so that the queue is empty at times.
        _ => Transaction::of(format!(
            "update public.loads set batch = {batch} where id in (select id from public.loads limit {})",
            rng.random_range(1..20)
        )),
    }
}

/// The ids of a batch are the same each time: rows come back under their old key.
fn insert(rng: &mut StdRng, batch: i32) -> String {
    let most = if rng.random_bool(0.2) { 6_000 } else { 600 };
    let rows = rng.random_range(100..most);
    format!(
        "delete from public.loads where batch = {batch} or id in (select md5('{batch}/' || i)::uuid from generate_series(1, {rows}) i);
         insert into public.loads select md5('{batch}/' || i)::uuid, {batch}, 'row ' || i from generate_series(1, {rows}) i"
    )
}

fn copy(rng: &mut StdRng, batch: i32) -> Transaction {
    let mut lines = String::new();
    for i in 0..rng.random_range(1..1_500) {
        let id = uuid::Uuid::from_u128(u128::from(batch.unsigned_abs()) << 64 | i);
        writeln!(lines, "{id}\t{batch}\tcopied {i}").ok();
    }
    let first = uuid::Uuid::from_u128(u128::from(batch.unsigned_abs()) << 64);
    let last = uuid::Uuid::from_u128(u128::from(batch.unsigned_abs()) << 64 | 100_000);
    Transaction::steps(vec![
        Step::Sql(format!("delete from public.loads where id between '{first}' and '{last}'")),
        Step::Copy { into: "public.loads (id, batch, body)", lines },
    ])
}
