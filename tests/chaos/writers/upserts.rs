//! ON CONFLICT, MERGE, and one statement that writes two tables.

use super::Transaction;
use super::values::{json, numeric, text};
use rand::RngExt;
use rand::rngs::StdRng;

pub fn next(rng: &mut StdRng) -> Transaction {
    let (id, name) = (rng.random_range(0..300), rng.random_range(0..60));
    let (balance, body) = (numeric(rng), json(rng));
    Transaction::of(match rng.random_range(0..5) {
        0 => format!(
            "insert into public.documents values ('d{name}', {body}, {balance})
             on conflict (name) do update set body = excluded.body, size = excluded.size"
        ),
        1 => format!("insert into public.documents values ('d{name}', {body}, 1) on conflict do nothing"),
        2 => format!(
            "insert into public.accounts (id, owner) select i, {} from generate_series({id}, {id} + 20) i
             on conflict (id) do update set owner = excluded.owner where accounts.id % 2 = 0",
            text(rng)
        ),
        3 => format!(
            "merge into public.accounts a using (select i from generate_series({id}, {id} + 5) i) s on a.id = s.i
             when matched and a.active then delete
             when matched then update set balance = {balance}, active = true
             when not matched then insert (id, owner, balance) values (s.i, 'merged', {balance})"
        ),
        _ => format!(
            "with gone as (delete from public.documents where name = 'd{name}' returning name, size),
                  new as (insert into public.documents select name || '+', null, size from gone
                          on conflict (name) do update set size = excluded.size returning name)
             update public.accounts set owner = (select max(name) from new) where id = {id}"
        ),
    })
}
