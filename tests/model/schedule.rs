//! Random schedules: from a seed to a list of actions, and from a list that fails to a short one.

use super::judge::Violation;
use super::mutants::Mutant;
use super::world::{Action, SIZES, WORKERS, World, kind};

/// A small generator (splitmix64): the same schedule for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// How much goes wrong in one schedule.
struct Mood {
    length: usize,
    workers: usize,
    /// Of 100 actions, how many are faults of processes and networks.
    faults: usize,
    crashes: bool,
    restores: bool,
    nukes: bool,
    keeps: bool,
    /// Somebody runs a worker of this queue on another replica.
    strays: bool,
}

pub fn generate(seed: u64) -> Vec<Action> {
    let mut dice = Dice(seed);
    let mood = Mood {
        length: 20 + dice.below(100),
        workers: 1 + dice.below(WORKERS),
        faults: [4, 12, 25][dice.below(3)],
        crashes: dice.one_in(2),
        restores: dice.one_in(2),
        nukes: dice.one_in(3),
        keeps: dice.one_in(2),
        strays: dice.one_in(4),
    };
    let kept = mood.keeps.then_some(Action::Keep { is_on: true });
    let mut actions: Vec<Action> = kept.into_iter().collect();
    actions.extend((0..mood.length).map(|_| one(&mut dice, &mood)));
    // Last of all, there is the most to be lost.
    let ends_badly = mood.restores && dice.one_in(2);
    actions.extend(ends_badly.then(|| restore(&mut dice)));
    actions
}

fn one(dice: &mut Dice, mood: &Mood) -> Action {
    let at = dice.below(100);
    if at < mood.faults {
        return fault(dice, mood);
    }
    if at < mood.faults + 5 && (mood.crashes || mood.restores || mood.nukes) {
        return disaster(dice, mood);
    }
    match dice.below(40) {
        0..=11 => write(dice),
        12..=15 => end(dice),
        16 => match mood.strays && dice.one_in(2) {
            true => Action::Stray { dice: dice.next() as u8 },
            false => Action::Resync { table: dice.below(SIZES.0) },
        },
        17..=19 => Action::Drain { worker: dice.below(mood.workers), dice: dice.next() as u8 },
        _ => Action::Work { worker: dice.below(mood.workers), dice: dice.next() as u8 },
    }
}

fn write(dice: &mut Dice) -> Action {
    let (tables, keys, writers) = SIZES;
    if dice.one_in(16) {
        return Action::WriteForeign;
    }
    let (writer, table, key) = (dice.below(writers), dice.below(tables), dice.below(keys));
    Action::Write { writer, table, key, kind: kind(dice.next()) }
}

fn end(dice: &mut Dice) -> Action {
    let writer = dice.below(SIZES.2);
    match dice.below(8) {
        0 => Action::Abort { writer },
        n => Action::Commit { writer, is_synchronous: n < 5 },
    }
}

fn fault(dice: &mut Dice, mood: &Mood) -> Action {
    let worker = dice.below(mood.workers);
    match dice.below(10) {
        0 | 1 => Action::Kill { worker, is_noticed: dice.one_in(2) },
        2 | 3 => Action::TimeOut { worker },
        4 => Action::Cut { worker },
        5 => Action::Reap,
        6 => Action::Lose { at: dice.below(4) },
        7 => Action::Flush,
        _ => Action::Deliver { at: dice.below(4), stays: dice.one_in(3) },
    }
}

fn disaster(dice: &mut Dice, mood: &Mood) -> Action {
    let worker = dice.below(mood.workers);
    match dice.below(12) {
        0..=2 if mood.crashes => Action::CrashPostgres { keep: dice.below(8) },
        4 | 5 | 9 | 10 if mood.restores => restore(dice),
        3 if mood.restores => match dice.below(4) {
            0 => Action::Keep { is_on: dice.one_in(2) },
            n => Action::Purge { at: dice.below(4), all: n == 1 },
        },
        6 if mood.restores => match dice.below(3) {
            0 => Action::RecreateQueue,
            1 => Action::EmptyTarget,
            _ => Action::CopyTarget,
        },
        6 | 7 if mood.nukes => Action::Nuke { worker },
        8 | 11 if mood.restores => restore(dice),
        _ => Action::Work { worker, dice: dice.next() as u8 },
    }
}

/// One side goes back.
fn restore(dice: &mut Dice) -> Action {
    let back = 1 + dice.below(24);
    match dice.below(5) {
        0 | 1 => Action::RestoreTarget { back: 1 + back % 8 },
        2 => Action::Promote { back: [0, back][dice.below(2)] },
        _ => Action::RestorePostgres { back, is_other: dice.one_in(4) },
    }
}

/// Runs a schedule to its end.
pub fn run(actions: &[Action], mutant: Mutant) -> Result<(), Violation> {
    let mut world = World::new(mutant, false);
    actions.iter().try_for_each(|action| world.act(*action))?;
    world.settle()
}

/// A failing schedule, without whatever is not needed for it to fail.
pub fn shrink(actions: &[Action], mutant: Mutant) -> Vec<Action> {
    let mut actions = actions.to_vec();
    let mut length = actions.len() / 2;
    while length > 0 {
        let mut at = 0;
        let mut is_shorter = false;
        while at + length <= actions.len() {
            let mut rest = actions.clone();
            rest.drain(at..at + length);
            if run(&rest, mutant).is_err() {
                (actions, is_shorter) = (rest, true);
            } else {
                at += 1;
            }
        }
        if !is_shorter || length > 1 {
            length /= 2;
        }
    }
    actions
}

/// What happens in a schedule, for a reader.
pub fn tell(actions: &[Action], mutant: Mutant) -> String {
    let mut world = World::new(mutant, true);
    let ends = actions.iter().try_for_each(|action| world.act(*action)).and_then(|()| world.settle());
    let end = ends.err().map_or_else(|| "nothing is wrong".to_owned(), |violation| violation.0);
    format!("{}\n=> {end}", world.trace.join("\n"))
}
