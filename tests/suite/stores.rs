//! The stores that `tests/store` runs on: a file, sqld as it is asked by itself, over protobuf and over JSON, memory as it
//! is made and as it is restored; and what only a server does.

use crate::store::{Bench, text};
use crate::support::{Home, PATHS, Path, schema};
use pgflume::core::error::ErrorKind;
use pgflume::core::secret::Secret;
use pgflume::core::value::Cell;
use pgflume::replica::Replica;
use pgflume::replica::hrana::Encoding;
use pgflume::replica::memory::Memory;
use pgflume::replica::remote::Remote;
use pgflume::replica::target::{Given, Target};
use std::sync::Arc;

const T: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#;

/// What has to live as long as the replica.
pub type Keep = Option<Home>;

pub async fn every_store() -> Vec<(String, Replica, Keep)> {
    let mut all = Vec::new();
    for path in PATHS {
        let encodings =
            if path == Path::File { vec![None] } else { vec![None, Some(Encoding::Protobuf), Some(Encoding::Json)] };
        for encoding in encodings {
            let home = Home::new(path);
            let replica = match (home.target(), encoding) {
                (Target::Remote { url, token }, Some(e)) => {
                    Replica::on(Box::new(Remote::with_encoding(&url, token, e).unwrap()))
                }
                (target, _) => Replica::open(&target).await.unwrap(),
            };
            all.push((format!("{path:?} {encoding:?}"), replica, Some(home)));
        }
    }
    let (made, restored) = (Memory::new().unwrap(), Memory::new().unwrap());
    restored.restore(&made.image().unwrap()).unwrap();
    for (name, memory) in [("Memory", made), ("Memory restored", restored)] {
        let replica = Replica::open(&Target::Given(Given::new(name, Arc::new(memory)))).await.unwrap();
        all.push((name.to_owned(), replica, None));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn reals_are_kept_to_the_last_bit_though_a_server_rounds_them_in_json() {
    let home = Home::new(Path::Sqld);
    let Target::Remote { url, token } = home.target() else { unreachable!() };
    let over_json = Remote::with_encoding(&url, token, Encoding::Json).unwrap();
    let mut bench = Bench::on(Replica::on(Box::new(over_json)), None).await;
    let reals: Vec<f64> = (1..2000_u64).map(|i| f64::from_bits(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let reals: Vec<f64> = reals.into_iter().filter(|real| real.is_finite()).collect();
    let row = |(i, real): (usize, &f64)| vec![Cell::Integer(i as i64), Cell::Null, Cell::Real(*real)];
    let items = reals.iter().enumerate().map(|at| bench.row("t", row(at))).collect();
    bench.apply(items).await.unwrap();
    let exact = Replica::open(&home.target()).await.unwrap();
    let back = exact.query("SELECT r FROM t ORDER BY id", vec![]).await.unwrap();
    assert_eq!(back, reals.iter().map(|real| vec![Cell::Real(*real)]).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_large_for_the_server_is_rejected() {
    let home = Home::new(Path::Sqld);
    let mut bench = Bench::on(Replica::open(&home.target()).await.unwrap(), Some(home)).await;
    let items = vec![bench.row("t", vec![Cell::Integer(3), text(&"x".repeat(6_000_000))])]; // sqld takes 5 MB
    let error = bench.apply(items).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Row, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_read_only_token_pauses_and_a_dead_server_is_retried() {
    let Home::Sqld(mut sqld) = Home::new(Path::Sqld) else { unreachable!() };
    for token in [None, Some("nonsense".to_owned()), Some(sqld.token_expired()), Some(sqld.token_ro())] {
        let remote =
            Replica::open(&Target::Remote { url: sqld.url(), token: token.clone().map(Secret::new) }).await.unwrap();
        let error = remote.prepare(&schema(T)).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::WholeSide, "{error}");
        assert!(token.is_none_or(|t| !error.to_string().contains(&t)));
    }
    sqld.kill();
    let remote = Replica::open(&Target::Remote { url: sqld.url(), token: None }).await.unwrap();
    assert_eq!(remote.prepare(&schema(T)).await.unwrap_err().kind(), &ErrorKind::Retry);
}
