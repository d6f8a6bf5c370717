//! Rows that are always written together: both of a pair, or none. Clients that are fed must never see them apart.

use super::{Step, Transaction};
use crate::plan::millis;
use rand::RngExt;
use rand::rngs::StdRng;

/// Pairs of rows: 2n and 2n + 1.
const PAIRS: i32 = 20;

pub fn next(rng: &mut StdRng) -> Transaction {
    let (pair, owner, mark): (i32, u32, i64) = (rng.random_range(0..PAIRS), rng.random_range(0..3), rng.random());
    // Whoever finds no row to lock must not write between another's two statements.
    let lock = format!("select pg_catalog.pg_advisory_xact_lock(4711, {pair})");
    let owner = ["null", "'a'", "'b'"][owner as usize];
    let of = |id: i32, sql: &str| sql.replace("ID", &id.to_string());
    let sql = match rng.random_range(0..6) {
        0..4 => format!(
            "insert into public.twins values (ID, {owner}, {mark}) on conflict (id) do update set owner = excluded.owner, mark = excluded.mark"
        ),
        4 => format!("update public.twins set mark = {mark} where id = ID"),
        _ => "delete from public.twins where id = ID".to_owned(),
    };
    let pause = if rng.random_bool(0.3) { millis(rng, 1, 40) } else { std::time::Duration::ZERO };
    Transaction::steps(vec![
        Step::Sql(lock),
        Step::Sql(of(2 * pair, &sql)),
        Step::Pause(pause),
        Step::Sql(of(2 * pair + 1, &sql)),
    ])
}
