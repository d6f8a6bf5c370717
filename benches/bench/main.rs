//! The benchmark: every figure beside a floor or the reference algorithm, on a real Postgres with PGMQ and a
//! real sqld, in one run. `cargo bench --bench bench -- [--quick] [--write] [SECTION…]`; `--write` puts tables and
//! plots into `docs/performance.md` and `docs/sizing.md`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark fails by panicking")]

#[path = "../../tests/suite/parts/mod.rs"]
mod parts;

mod bell;
mod beside;
mod calls;
mod capture;
mod dashboard;
mod dlt;
mod drain;
mod feed;
mod floors;
mod freshness;
mod ground;
mod growth;
mod leaves;
mod mysql;
mod peers;
mod pull;
mod reference;
mod report;
mod roundtrip;
mod sizing;
mod syncs;

use ground::Ground;
use report::Section;

/// The one of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() {
    tokio::spawn(run()).await.unwrap(); // as the worker's calls, not on the main thread
}

async fn run() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let has = |flag: &str| arguments.iter().any(|a| a == flag);
    let named: Vec<&str> = arguments.iter().map(String::as_str).filter(|a| !a.starts_with("--")).collect();
    let is_wanted = |name: &str| named.is_empty() || named.contains(&name);
    pgflume::core::crypto::install();
    let ground = Ground::prepare(has("--quick")).await;
    let mut sections: Vec<Section> = Vec::new();
    if is_wanted("drain") {
        sections.push(drain::run(&ground).await);
    }
    if is_wanted("roundtrip") {
        sections.push(roundtrip::run(&ground).await);
    }
    if is_wanted("calls") {
        sections.push(calls::run(&ground).await);
    }
    if is_wanted("freshness") {
        sections.push(freshness::run(&ground).await);
    }
    if is_wanted("writers") {
        sections.push(bell::writers(&ground).await);
    }
    if is_wanted("beside") {
        sections.push(beside::run(&ground).await);
    }
    if is_wanted("leaves") {
        sections.push(leaves::run(&ground).await);
    }
    if is_wanted("growth") {
        sections.push(growth::run(&ground).await);
    }
    if is_wanted("feed") {
        sections.push(feed::run(&ground).await);
    }
    if is_wanted("pull") {
        sections.push(pull::run(&ground).await);
    }
    if is_wanted("mysql") {
        sections.push(mysql::run(&ground).await);
    }
    if is_wanted("syncs") {
        sections.push(syncs::run(&ground).await);
    }
    if is_wanted("sizing") {
        sections.push(sizing::run(&ground).await);
    }
    if is_wanted("dashboard") {
        sections.push(dashboard::run(&ground).await);
    }
    // Only by name: eleven minutes in which nothing happens.
    if named.contains(&"idle") {
        sections.push(bell::idle(&ground).await);
    }
    // Only by name: they need what `make bench-peers` and `make bench-dlt` install.
    if named.contains(&"peers") {
        sections.extend(peers::run(&ground).await);
    }
    if named.contains(&"dlt") {
        sections.push(dlt::run(&ground).await);
    }
    if is_wanted("capture") {
        sections.push(capture::run(&ground).await);
    }
    if has("--write") {
        report::write(&sections);
    }
}
