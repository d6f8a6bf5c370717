//! Single rows: inserted, updated, deleted, inserted again.

use super::Transaction;
use super::values::{json, numeric, text, time};
use crate::plan::pick;
use rand::RngExt;
use rand::rngs::StdRng;

/// Few, so that writers meet.
const ACCOUNTS: i64 = 300;
const NAMES: [&str; 8] = ["a", "A", "a ", "ü", "日本", "it''s", "1|2", "x/y?z=&"];

pub fn next(rng: &mut StdRng) -> Transaction {
    let id = rng.random_range(0..ACCOUNTS) * if rng.random_bool(0.1) { i64::MAX / ACCOUNTS } else { 1 };
    let account =
        format!("{id}, {}, {}, {}, {}, {}", text(rng), numeric(rng), rng.random_bool(0.5), json(rng), time(rng));
    let document = format!("'{}{}'", pick(rng, &NAMES), rng.random_range(0..30));
    Transaction::of(match rng.random_range(0..8) {
        0 | 1 => format!("insert into public.accounts values ({account})"),
        2 | 3 => {
            format!("update public.accounts set balance = {}, updated = {} where id = {id}", numeric(rng), time(rng))
        }
        4 => format!("delete from public.accounts where id = {id}"),
        5 => format!("delete from public.accounts where id = {id}; insert into public.accounts values ({account})"),
        6 => format!("insert into public.documents values ({document}, {}, {})", json(rng), numeric(rng)),
        _ => format!("delete from public.documents where name = {document}"),
    })
}
