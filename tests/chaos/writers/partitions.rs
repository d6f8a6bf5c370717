//! A partitioned table, written through the parent and through its leaves; rows move from one leaf to another.

use super::Transaction;
use super::values::{json, time};
use crate::plan::pick;
use rand::RngExt;
use rand::rngs::StdRng;

const KINDS: [&str; 5] = ["a", "b", "c", "d", "e"];

pub fn next(rng: &mut StdRng) -> Transaction {
    let (id, kind, other) = (rng.random_range(0..200), pick(rng, &KINDS), pick(rng, &KINDS));
    let (payload, at) = (json(rng), time(rng));
    Transaction::of(match rng.random_range(0..10) {
        0..2 => format!("insert into public.events values ({id}, '{kind}', {payload}, {at}) on conflict do nothing"),
        2 => format!(
            "insert into public.events_a values ({id}, 'a', {payload}, {at}) on conflict (id, kind) do update set payload = excluded.payload"
        ),
        3 => format!(
            "insert into public.events_b select i, 'b', null, {at} from generate_series({id}, {id} + 10) i on conflict do nothing"
        ),
        4..6 => format!("update public.events set kind = '{other}' where kind = '{kind}' and id = {id}"),
        6 => format!("update public.events set payload = {payload} where id between {id} and {id} + 5"),
        7 => format!("delete from public.events_b where id = {id}"),
        8 => format!("update public.events_rest set at = {at} where id = {id}"),
        _ if id == 0 => "truncate public.events".to_owned(),
        _ => format!("delete from public.events where id = {id}"),
    })
}
