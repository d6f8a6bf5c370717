//! The very code of the step, in a simulator: workers, applications, faults and DDL on one thread with paused time, over
//! a Postgres and a libSQL in memory, judged after each write to the replica and when all has come to rest.
//!
//! `MODEL_SCHEDULES` or `MODEL_SECONDS` set how many schedules run, `MODEL_SEED` with which they begin, and
//! `MODEL_LENGTH` how many times as long as usual each is. A schedule that fails is told with its trace; the same seed
//! gives the same again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod feed;
mod memory;
#[path = "../seam/mod.rs"]
mod seam;
mod sim;
#[path = "../store/mod.rs"]
mod store;
mod stores;
mod worker;

use pgflume::core::failpoint::Rule;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const THREADS: u64 = 2;

/// A rule that is left out is left out for the whole process: one search at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What a search came to.
#[derive(Default)]
struct Search {
    schedules: AtomicU64,
    steps: AtomicU64,
    stop: AtomicBool,
    failed: Mutex<Option<(u64, String)>>,
}

impl Search {
    /// Every `THREADS`th seed from `from` on, until `to`, `end` or one that fails.
    fn thread(&self, from: u64, to: u64, end: Option<Instant>) {
        for seed in (from..to).step_by(THREADS as usize) {
            if self.stop.load(Ordering::Relaxed) || end.is_some_and(|end| Instant::now() >= end) {
                return;
            }
            let outcome = sim::run(seed, false);
            self.schedules.fetch_add(1, Ordering::Relaxed);
            self.steps.fetch_add(outcome.steps, Ordering::Relaxed);
            if let Some(violation) = outcome.violation {
                self.stop.store(true, Ordering::Relaxed);
                let mut failed = self.failed.lock().unwrap();
                if failed.as_ref().is_none_or(|(first, _)| seed < *first) {
                    *failed = Some((seed, violation));
                }
            }
        }
    }
}

fn search(schedules: u64, end: Option<Instant>) -> Search {
    let from = setting("MODEL_SEED", 0);
    sim::LENGTH.store(setting("MODEL_LENGTH", 1) as u32, Ordering::Relaxed);
    let search = Search::default();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let search = &search;
            scope.spawn(move || search.thread(from + thread, from + schedules, end));
        }
    });
    search
}

fn explain(seed: u64) -> String {
    let outcome = sim::run(seed, true);
    let length = sim::LENGTH.load(Ordering::Relaxed);
    format!(
        "make simulate SEED={seed} SCHEDULES=1 LENGTH={length}\n{}\n{:?}",
        outcome.trace.join("\n"),
        outcome.violation
    )
}

/// Schedules of a run.
const SCHEDULES: u64 = 50_000;

/// Those within which a rule that is left out has to be noticed.
const MOST: u64 = 20_000;

/// The rules of the step, each left out in turn: the judge has to notice.
#[test]
fn a_rule_that_is_left_out_is_noticed() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let wanted = std::env::var("MODEL_RULE").unwrap_or_default();
    let mut missed = Vec::new();
    for rule in Rule::ALL.into_iter().filter(|rule| format!("{rule:?}").contains(&wanted)) {
        fail::cfg(rule.name(), "return").unwrap();
        let began = Instant::now();
        let found = search(setting("MODEL_SCHEDULES", MOST), None);
        fail::remove(rule.name());
        let (schedules, took) = (found.schedules.into_inner(), began.elapsed().as_secs_f64());
        match found.failed.into_inner().unwrap() {
            Some((_, violation)) => println!("{rule:?}: after {schedules} schedules, {took:.1} s: {violation}"),
            None => missed.push(rule),
        }
    }
    assert!(missed.is_empty(), "nobody notices that these are left out: {missed:?}");
}

#[test]
fn no_schedule_breaks_a_rule() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let began = Instant::now();
    let seconds = setting("MODEL_SECONDS", 0);
    let end = (seconds > 0).then(|| began + Duration::from_secs(seconds));
    let found = search(setting("MODEL_SCHEDULES", if end.is_some() { u64::MAX >> 1 } else { SCHEDULES }), end);
    let (schedules, steps) = (found.schedules.into_inner(), found.steps.into_inner());
    let took = began.elapsed().as_secs_f64();
    println!("{schedules} schedules, {steps} steps in {took:.1} s: {:.0} schedules a second", schedules as f64 / took);
    if let Some((seed, violation)) = found.failed.into_inner().unwrap() {
        panic!("{violation}\n{}", explain(seed));
    }
}

/// A failure can be had again.
#[test]
fn a_seed_gives_the_same_schedule_again() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for seed in 0..300 {
        let (once, again) = (sim::run(seed, true).trace, sim::run(seed, true).trace);
        let differs = once.iter().zip(&again).find(|(a, b)| a != b);
        assert!(differs.is_none() && once.len() == again.len(), "seed {seed}: {differs:#?}");
    }
}
