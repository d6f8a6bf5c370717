//! Transactions that stay open for seconds and commit late, or not at all; savepoints that are rolled back.

use super::values::{json, numeric, text};
use super::{Step, Transaction};
use crate::plan::millis;
use rand::RngExt;
use rand::rngs::StdRng;

pub fn next(rng: &mut StdRng) -> Transaction {
    let id = 400 + rng.random_range(0..20);
    let write = |rng: &mut StdRng| {
        Step::Sql(match rng.random_range(0..4) {
            0 => format!(
                "insert into public.accounts (id, owner) values ({id}, {}) on conflict (id) do update set owner = 'again'",
                text(rng)
            ),
            1 => format!("update public.accounts set balance = {} where id = {id}", numeric(rng)),
            2 => format!("delete from public.accounts where id = {id}"),
            _ => format!(
                "insert into public.documents values ('held {id}', {}, 0) on conflict (name) do update set body = excluded.body",
                json(rng)
            ),
        })
    };
    let mut steps = vec![write(rng)];
    match rng.random_range(0..3) {
        0 => steps.extend([Step::Pause(millis(rng, 200, 4_000)), write(rng)]),
        1 => {
            steps.extend([Step::Sql("savepoint s".into()), write(rng), write(rng)]);
            steps.extend([Step::Sql("rollback to s".into()), write(rng), Step::Pause(millis(rng, 0, 500))]);
        }
        _ => steps.extend([Step::Sql("savepoint s".into()), write(rng), Step::Sql("release s".into()), write(rng)]),
    }
    Transaction { steps, commits: rng.random_bool(0.8) }
}
