//! A model of the step: workers, queue, ledger and replica as state machines, driven through random
//! schedules of faults, and judged after each action. The decisions are the product's own.
//!
//! `MODEL_SCHEDULES` and `MODEL_SEED` set how many schedules run, and with which the first begins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod intake;
mod judge;
mod memory;
mod mutants;
mod postgres;
mod schedule;
#[path = "../seam/mod.rs"]
mod seam;
mod target;
mod worker;
mod world;

use mutants::Mutant;
use std::sync::atomic::{AtomicBool, Ordering};

const THREADS: u64 = 2;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// The first failing seed of `from..to`, in steps of the number of threads.
fn first_failing(from: u64, to: u64, mutant: Mutant, stop: &AtomicBool) -> Option<u64> {
    let fails = |seed: &u64| schedule::run(&schedule::generate(*seed), mutant).is_err();
    let seeds = (from..to).step_by(THREADS as usize);
    let found = seeds.take_while(|_| !stop.load(Ordering::Relaxed)).find(fails);
    if found.is_some() {
        stop.store(true, Ordering::Relaxed);
    }
    found
}

fn search(mutant: Mutant) -> Option<u64> {
    // A mutant may take longer: the search for it ends where it is caught.
    let default = if mutant == Mutant::None { 200_000 } else { 2_000_000 };
    let (from, schedules) = (setting("MODEL_SEED", 0), setting("MODEL_SCHEDULES", default));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let stop = &stop;
                    move || first_failing(from + thread, from + schedules, mutant, stop)
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("the model itself fails")).min()
    })
}

/// The trace of a failing schedule, made short.
fn explain(seed: u64, mutant: Mutant) -> String {
    let actions = schedule::shrink(&schedule::generate(seed), mutant);
    format!("MODEL_SEED={seed}, made short:\n{}", schedule::tell(&actions, mutant))
}

#[test]
fn no_schedule_breaks_a_rule() {
    if let Some(seed) = search(Mutant::None) {
        panic!("{}", explain(seed, Mutant::None));
    }
}

/// The judge must miss the rule that was left out.
fn is_caught(mutant: Mutant) {
    let from = setting("MODEL_SEED", 0);
    let seed = search(mutant).unwrap_or_else(|| panic!("{mutant:?} is not caught: the model is too weak"));
    println!("{mutant:?} is caught after {} schedules. {}", seed - from + 1, explain(seed, mutant));
}

#[test]
fn a_replica_that_is_ahead_is_not_believed() {
    is_caught(Mutant::NoLedger);
}

#[test]
fn two_workers_may_not_drain_at_once() {
    is_caught(Mutant::NoLock);
}

#[test]
fn a_write_needs_the_head_that_it_was_made_for() {
    is_caught(Mutant::NoFence);
}

#[test]
fn acknowledging_comes_last() {
    is_caught(Mutant::AcknowledgesFirst);
}

#[test]
fn images_need_their_order() {
    is_caught(Mutant::UnsortedImages);
}

#[test]
fn what_is_applied_is_flushed_before() {
    is_caught(Mutant::NotDurable);
}

#[test]
fn a_page_is_read_at_its_own_step() {
    is_caught(Mutant::OldPage);
}

#[test]
fn images_that_were_applied_are_not_taken_again() {
    is_caught(Mutant::NoImageList);
}

#[test]
fn an_epoch_that_is_adopted_begins_its_rebuilds_anew() {
    is_caught(Mutant::NoRestart);
}

#[test]
fn a_batch_is_acknowledged_late_only_while_its_messages_are_queued() {
    is_caught(Mutant::NoWitness);
}

#[test]
fn a_page_is_acknowledged_late_only_where_its_step_is_known() {
    is_caught(Mutant::NoName);
}

#[test]
fn what_is_kept_has_to_lead_to_what_was_acknowledged() {
    is_caught(Mutant::NoChain);
}

#[test]
fn what_is_put_back_has_its_ids() {
    is_caught(Mutant::NewIds);
}

#[test]
fn a_step_without_rows_fences_what_is_on_its_way() {
    is_caught(Mutant::NoEmptyBatch);
}

#[test]
fn what_others_took_is_copied() {
    is_caught(Mutant::NoLosses);
}

#[test]
fn a_queue_is_not_taken_along_to_an_empty_replica_somewhere_else() {
    is_caught(Mutant::NoAddress);
}
