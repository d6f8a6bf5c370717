//! Rows that come into the filter of `where` and leave it, by themselves and by the hundred.

use super::Transaction;
use super::values::text;
use rand::RngExt;
use rand::rngs::StdRng;

pub fn next(rng: &mut StdRng) -> Transaction {
    let (id, score) = (rng.random_range(0..150), rng.random_range(0..25));
    Transaction::of(match rng.random_range(0..7) {
        0..2 => format!(
            "insert into public.shown values ({id}, {score}, {}, {}) on conflict (id) do update set score = excluded.score",
            rng.random_bool(0.7),
            text(rng)
        ),
        2 => format!("update public.shown set is_public = not is_public where id = {id}"),
        3 => format!("update public.shown set score = {score} where id between {id} and {id} + 20"),
        4 => format!("update public.shown set note = {} where id = {id}", text(rng)),
        5 => format!("update public.shown set score = null, is_public = null where id = {id}"),
        _ => format!("delete from public.shown where id = {id}"),
    })
}
