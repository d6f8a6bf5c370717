//! A primary key that is checked at commit: rows exchange keys in one statement, or hold the same one for a while.

use super::Transaction;
use super::values::text;
use rand::RngExt;
use rand::rngs::StdRng;

pub fn next(rng: &mut StdRng) -> Transaction {
    let (a, b) = (rng.random_range(1..=60), rng.random_range(1..=60));
    Transaction::of(match rng.random_range(0..5) {
        0 => format!("update public.slots set id = case id when {a} then {b} else {a} end where id in ({a}, {b})"),
        1 => format!("update public.slots set id = 61 - id where id between least({a}, {b}) and least({a}, {b}) + 5
             or id between 56 - least({a}, {b}) and 61 - least({a}, {b})"),
        2 => format!(
            "insert into public.slots values ({a}, {}); delete from public.slots where id = {a} and label is not null and ctid <> (
             select max(ctid) from public.slots where id = {a})",
            text(rng)
        ),
        3 => format!("update public.slots set label = {} where id = {a}", text(rng)),
        _ => format!("delete from public.slots where id = {a}; insert into public.slots values ({a}, {})", text(rng)),
    })
}
