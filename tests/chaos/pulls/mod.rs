//! The same for syncs that pull: two workers between a Postgres that they may only read and a replica, everything failing
//! all the time, also the source itself, which is put back, or another one, and the replica, which is put back or emptied.

mod faults;
mod scene;
mod watch;
#[path = "../../suite/pulls/writers.rs"]
#[expect(dead_code, reason = "the suite bounds what they write, this does not")]
mod writers;

use crate::compare::compare;
use crate::plan::{Path, Plan};
use crate::report::{self, End};
use crate::stage::Failure;
use faults::Faults;
use pgflume::core::failpoint;
use scene::Scene;
use serde_json::json;
use std::time::{Duration, Instant};

/// For the last passes and the comparison; the machine may be slow.
const LIMIT: Duration = Duration::from_secs(120);

/// One run; whether it was good.
pub async fn run(plan: &Plan, path: Path) -> bool {
    let (seed, time, began) = (plan.seed, plan.pull_time, Instant::now());
    println!("chaos: pulls, seed {seed}, path {}, {} s", path.name(), time.as_secs());
    let scene = match Scene::set(path, seed).await {
        Ok(scene) => scene,
        Err(error) => {
            println!("chaos: the stage cannot be set: {error}");
            return false;
        }
    };
    let end = match act(&scene, seed, time).await {
        Ok(end) => end,
        Err(error) => End { problems: vec![format!("the run broke off: {error}")], ..End::default() },
    };
    let run = json!({ "engine": "pull", "seed": seed, "path": path.name(), "seconds": time.as_secs(), "elapsed_s": began.elapsed().as_secs() });
    let good = report::publish(&run, &scene.tally, &end, plan.report.as_deref());
    if let Some(directory) = scene.strike(!good || plan.keeps) {
        let verdict = if good { "good" } else { "FAILED" };
        println!("chaos: {verdict} with seed {seed}; the logs and the replica are in {}", directory.display());
    }
    good
}

async fn act(scene: &std::sync::Arc<Scene>, seed: u64, time: Duration) -> Result<End, Failure> {
    let reader = watch::Reader::start(scene);
    let outcome = Faults::new(scene.clone(), seed).run(time).await;
    let shown = reader.end().await;
    outcome?;
    let mut end = End::default();
    // Rows that stood behind an open transaction come with the next pass.
    if !scene.settle(LIMIT).await {
        end.problems.push("no pass ended after the last fault".into());
    }
    let (code, said) = scene.run(&["verify", "--sync", "all", "--json"], LIMIT).await;
    if code != Some(0) {
        end.problems.push(format!("pgflume verify ended with {code:?}: {said}"));
    }
    let comparison = compare(&scene.connect().await?, scene.replica().await?.as_ref(), &scene::schema()).await?;
    (end.rows, end.differences) = (comparison.rows, comparison.differences);
    end.problems.extend(comparison.examples);
    if shown == 0 {
        end.problems.push("no reader saw anything".into());
    }
    let logs = scene.logs();
    end.batches = logs.matches("pass done").count() as u64;
    for name in failpoint::PULL_NAMES {
        let logged = |what: &str| logs.matches(&format!("failpoint {name}: the process {what}")).count() as u64;
        scene.tally.faults_of(format!("stopped at {name}"), logged("ends"));
        scene.tally.faults_of(format!("stalled at {name}"), logged("stalls"));
    }
    Ok(end)
}
