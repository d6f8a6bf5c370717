//! The chaos run: the real binary between a real Postgres and a real replica, an application that writes, readers
//! that watch, and everything failing all the time. At the end both sides must be equal, no reader may have seen a
//! row go back, and nothing that Postgres lost may have been shown.
//!
//! `CHAOS_SECONDS` on each path (30, pulls 15), `CHAOS_SEED` (random, printed), `CHAOS_PATH` (file, sqld, both),
//! `CHAOS_ENGINE` (queue, pull, both),
//! `CHAOS_REPORT` (a file that gets one line of JSON a run), `CHAOS_KEEP` (keeps the logs of a good run too).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod clients;
mod compare;
mod ending;
mod faults;
mod judge;
mod older;
#[path = "../suite/parts/mod.rs"]
mod parts;
mod plan;
mod proxy;
mod pulls;
mod readers;
mod report;
mod stage;
mod workers;
mod writers;

use clients::Clients;
use faults::Faults;
use plan::{Engine, Path, Plan};
use readers::Readers;
use report::End;
use serde_json::json;
use stage::{Failure, Stage};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use writers::Writers;

/// Between two calls of the cron job, which is faster here than anywhere.
const CRON: Duration = Duration::from_millis(150);

fn main() -> ExitCode {
    if !is_wanted() {
        return ExitCode::SUCCESS;
    }
    let plan = match Plan::from_env() {
        Ok(plan) => plan,
        Err(error) => {
            println!("chaos: {error}");
            return ExitCode::from(2);
        }
    };
    assert!(judge::can_fail(), "the judge does not see what it has to see");
    pgflume::core::crypto::install();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut is_good = true;
    for (engine, path) in plan.engines.iter().flat_map(|engine| plan.paths.iter().map(move |path| (engine, *path))) {
        is_good &= match engine {
            Engine::Queue => runtime.block_on(run(&plan, path)),
            Engine::Pull => runtime.block_on(pulls::run(&plan, path)),
        };
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `cargo test NAME` and `cargo test -- --list` mean other tests, as far as they do not name this one.
fn is_wanted() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut names = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    let is_listing = arguments.iter().any(|argument| argument == "--list" || argument == "--ignored");
    !is_listing && (names.peek().is_none() || names.any(|name| "chaos".contains(name.as_str())))
}

/// One run; whether it was good.
async fn run(plan: &Plan, path: Path) -> bool {
    let (seed, began) = (plan.seed, Instant::now());
    println!(
        "chaos: seed {seed}, path {}, {} s (CHAOS_SEED={seed} draws the same again)",
        path.name(),
        plan.time.as_secs()
    );
    let stage = match Stage::set(path, seed).await {
        Ok(stage) => stage,
        Err(error) => {
            println!("chaos: the stage cannot be set: {error}");
            return false;
        }
    };
    let end = match act(&stage, plan).await {
        Ok(end) => end,
        Err(error) => End { problems: vec![format!("the run broke off: {error}")], ..End::default() },
    };
    let run = json!({ "seed": seed, "path": path.name(), "seconds": plan.time.as_secs(), "elapsed_s": began.elapsed().as_secs() });
    let good = report::publish(&run, &stage.tally, &end, plan.report.as_deref());
    let kept = Arc::into_inner(stage).and_then(|stage| stage.strike(!good || plan.keeps));
    if let Some(directory) = kept {
        let verdict = if good { "good" } else { "FAILED" };
        println!("chaos: {verdict} with seed {seed}; the logs and the replica are in {}", directory.display());
    }
    good
}

async fn act(stage: &Arc<Stage>, plan: &Plan) -> Result<End, Failure> {
    let writers = Writers::start(stage, plan.seed);
    let readers = Readers::start(stage);
    let clients = Clients::start(stage, plan.seed);
    stage.workers.tend();
    let cron = [0, 1].map(|worker| tokio::spawn(call(stage.clone(), worker)));
    let faults = Faults::new(stage.clone(), plan.seed);
    let outcome = faults.run(plan.time).await;
    stage.workers.restart_sound();
    cron.iter().for_each(tokio::task::JoinHandle::abort);
    for cron in cron {
        cron.await.ok();
    }
    writers.end().await;
    let stuck = ending::drain(stage).await;
    let shown = readers.end().await;
    let (arrivals, compared) = clients.end().await;
    outcome?;
    let mut end = ending::judge(stage, &shown).await?;
    end.problems.extend(stuck);
    (end.arrivals, end.compared) = (arrivals, compared);
    if compared == 0 {
        end.problems.push("no client was compared with the replica at a cut".into());
    }
    Ok(end)
}

/// What cron does.
async fn call(stage: Arc<Stage>, worker: usize) {
    loop {
        if !stage.hasty.load(Ordering::Relaxed) {
            stage.workers.post(worker, "/sync", String::new()).await;
        }
        let is_alone = stage.comparing.load(Ordering::Relaxed) == 0;
        tokio::time::sleep(if is_alone { CRON } else { CRON * 8 }).await;
    }
}
