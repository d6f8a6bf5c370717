//! Keys that change, chains of them in one transaction, keys that two rows exchange, and rows that a trigger writes again.

use super::Transaction;
use rand::RngExt;
use rand::rngs::StdRng;

pub fn next(rng: &mut StdRng) -> Transaction {
    let (a, b) = (rng.random_range(0..300), rng.random_range(300..330));
    let counter = rng.random_range(1..=20);
    Transaction::of(match rng.random_range(0..6) {
        0 => format!("update public.accounts set id = {b} where id = {a}"),
        1 => format!("update public.accounts set id = {a} where id = {b}"),
        // A free key is the third hand of the exchange.
        2 => format!(
            "update public.accounts set id = -1 where id = {a}; update public.accounts set id = {a} where id = {};
             update public.accounts set id = {} where id = -1",
            a + 1,
            a + 1
        ),
        3 => format!("update public.counters set n = n + 1 where id = {counter}"),
        4 => format!("update public.counters set n = 0, id = -id where id in ({counter}, -{counter})"),
        _ => "update public.counters set n = n + 1 where id % 5 = 0".to_owned(),
    })
}
