//! A composite key that others refer to: changed, deleted and inserted again, each with its cascade.

use super::Transaction;
use super::values::{bytes, float};
use crate::plan::pick;
use rand::RngExt;
use rand::rngs::StdRng;

const REGIONS: [&str; 4] = ["eu", "us", "asia", "it''s"];

pub fn next(rng: &mut StdRng) -> Transaction {
    let (region, other) = (pick(rng, &REGIONS), pick(rng, &REGIONS));
    let (number, line) = (rng.random_range(1..=40), rng.random_range(1..=400));
    let item = format!("'{region}', {number}, {}, {}, md5('{number}')::uuid", float(rng), bytes(rng));
    Transaction::of(match rng.random_range(0..24) {
        0..6 => format!("insert into public.items values ({item}) on conflict do nothing"),
        6..10 => format!("update public.items set region = '{other}' where region = '{region}' and number = {number}"),
        10..12 => format!("delete from public.items where region = '{region}' and number = {number}"),
        12..18 => format!(
            "insert into public.lines select {line} + i, region, number, i from public.items, generate_series(0, 3) i
             where region = '{region}' and number = {number}
             on conflict (id) do update set quantity = excluded.quantity, region = excluded.region, number = excluded.number"
        ),
        18..22 => format!("update public.items set price = {} where number = {number}", float(rng)),
        22 => format!("update public.items set number = number + 100 where region = '{region}' and number % 7 = 0 and number < 100"),
        _ => format!("truncate public.lines; insert into public.lines select i, region, number, i
             from (select region, number, row_number() over () i from public.items limit {line}) q"),
    })
}
