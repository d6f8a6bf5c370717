//! pgflume beside what else keeps SQLite copies of Postgres tables: Rocicorp's zero-cache, which reads a replication
//! slot, and dlt, which runs now and then. In turns, on the same rows, looked at by the same reader. Needs `ZERO_HOME`
//! and `DLT_PYTHON` (`make bench-peers`).

mod engine;
mod reader;
mod source;
mod table;
mod turn;
pub mod usage;

use crate::ground::Ground;
use crate::report::Section;
use engine::{Engine, Installed};
use source::Source;
use std::collections::HashMap;
use turn::{Plan, Turn};

const FULL: Plan = Plan { rows: 300_000, singles: 10_000, rounds: 5, seconds: [40, 10, 5, 5], rest_s: 20, idle_s: 10 };

const QUICK: Plan = Plan { rows: 60_000, singles: 2_000, rounds: 2, seconds: [6, 3, 3, 3], rest_s: 5, idle_s: 3 };

/// Each engine takes its turn in every round, and another one begins.
const ENGINES: [Engine; 4] = [Engine::Pgflume, Engine::ZeroCache, Engine::Dlt, Engine::Nobody];

/// What all turns found.
type Found = HashMap<Engine, Vec<Turn>>;

/// Two sections: what it takes and costs, and how fresh it is.
pub async fn run(ground: &Ground) -> [Section; 2] {
    let usual = if ground.is_quick { QUICK } else { FULL };
    let rounds = std::env::var("ROUNDS").map_or(usual.rounds, |rounds| rounds.parse().unwrap());
    let plan = Plan { rounds, ..usual };
    let installed = Installed::find();
    let source = Source::start().await;
    let mut found = Found::new();
    for round in 0..plan.rounds {
        for i in 0..ENGINES.len() {
            let engine = ENGINES[(round + i) % ENGINES.len()];
            let name = format!("peers_{round}_{i}");
            let turn = Turn::take(engine, &installed, &source, &name, &plan).await;
            println!("round {}, {}: {}", round + 1, engine.name(), table::brief(&turn));
            found.entry(engine).or_default().push(turn);
        }
    }
    [table::costs(&found, &plan, &installed, &source).await.print(), table::freshness(&found, &plan).print()]
}
