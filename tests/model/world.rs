//! All parts together, and what may happen to them.

use super::judge::{Judge, Violation};
use super::mutants::Mutant;
use super::postgres::{KEYS, Kind, Postgres, TABLES};
use super::target::Target;
use super::worker::{Event, Surroundings, Worker};
use pgflume::core::position::Head;

pub const WORKERS: usize = 3;
const WRITERS: usize = 2;
/// Actions of a worker that nobody disturbs: about two steps.
const DRAIN_TURNS: u8 = 16;

/// Names of epochs and batches, in order, so that a trace can be read.
#[derive(Default)]
pub struct Names {
    count: u32,
    pub is_traced: bool,
}

impl Names {
    pub fn next(&mut self, prefix: &str) -> String {
        self.count += 1;
        format!("{prefix}{}", self.count)
    }

    pub fn start(&mut self, epoch: String) -> Head {
        Head { epoch, seq: 0, token: self.next("t") }
    }

    pub fn after(&mut self, head: &Head) -> Head {
        Head { epoch: head.epoch.clone(), seq: head.seq + 1, token: self.next("t") }
    }
}

/// One thing that happens. What cannot happen in a state changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A worker goes on.
    Work {
        worker: usize,
        dice: u8,
    },
    /// A worker goes on undisturbed for a while.
    Drain {
        worker: usize,
        dice: u8,
    },
    /// A worker's process dies; Postgres notices at once or later.
    Kill {
        worker: usize,
        is_noticed: bool,
    },
    /// A worker waits no longer for an answer. The request is still on its way.
    TimeOut {
        worker: usize,
    },
    /// Postgres ends the transaction of a worker that stalls, which learns of it later.
    Cut {
        worker: usize,
    },
    /// A dead process' transaction ends.
    Reap,
    Write {
        writer: usize,
        table: usize,
        key: usize,
        kind: Kind,
    },
    /// A message of a table that nobody replicates.
    WriteForeign,
    Commit {
        writer: usize,
        is_synchronous: bool,
    },
    Abort {
        writer: usize,
    },
    Deliver {
        at: usize,
        stays: bool,
    },
    Lose {
        at: usize,
    },
    Flush,
    CrashPostgres {
        keep: usize,
    },
    RestorePostgres {
        back: usize,
        is_other: bool,
    },
    /// A standby takes over, maybe without the end of the log.
    Promote {
        back: usize,
    },
    /// Somebody takes messages off the queue by hand.
    Purge {
        at: usize,
        all: bool,
    },
    /// Whether steps keep what they take, from now on.
    Keep {
        is_on: bool,
    },
    RecreateQueue,
    RestoreTarget {
        back: usize,
    },
    EmptyTarget,
    Nuke {
        worker: usize,
    },
    Resync {
        table: usize,
    },
    /// A copy of the replica, somewhere else.
    CopyTarget,
    /// A worker of this queue goes on whose replica is there, and nobody's until it is copied.
    Stray {
        dice: u8,
    },
}

/// Where the replica is.
pub const HERE: &str = "here";
/// Where the stray worker's is.
const ELSEWHERE: &str = "elsewhere";

pub struct World {
    pub postgres: Postgres,
    pub target: Target,
    elsewhere: Target,
    stray: Worker,
    pub names: Names,
    pub mutant: Mutant,
    pub judge: Judge,
    workers: Vec<Worker>,
    orphans: Vec<super::postgres::Opened>,
    writers: [Option<u64>; WRITERS],
    restores: u32,
    keeps: bool,
    pub trace: Vec<String>,
}

impl World {
    pub fn new(mutant: Mutant, is_traced: bool) -> Self {
        Self {
            postgres: Postgres::new(),
            target: Target::default(),
            elsewhere: Target::default(),
            stray: Worker::new(),
            names: Names { count: 0, is_traced },
            mutant,
            judge: Judge { adopts_blindly: mutant == Mutant::NoRestart, ..Judge::default() },
            workers: (0..WORKERS).map(|_| Worker::new()).collect(),
            orphans: Vec::new(),
            writers: [None; WRITERS],
            restores: 0,
            keeps: false,
            trace: Vec::new(),
        }
    }

    /// Lets `action` happen, and judges.
    pub fn act(&mut self, action: Action) -> Result<(), Violation> {
        if self.names.is_traced {
            self.trace.push(format!("{action:?}"));
        }
        match action {
            Action::Work { worker, dice } => return self.work(worker, dice).map(|_| ()),
            Action::Drain { worker, dice } => {
                let on = |turn: u8| self.work(worker, dice.wrapping_add(turn.wrapping_mul(53))).map(|_| ());
                return (0..DRAIN_TURNS).try_for_each(on);
            }
            Action::Deliver { at, stays } if at < self.target.flights.len() => return self.deliver(at, stays),
            Action::Deliver { .. } => {}
            Action::Lose { at } if at < self.target.flights.len() => drop(self.target.flights.swap_remove(at)),
            Action::Lose { .. } => {}
            Action::Kill { worker, is_noticed } => self.kill(worker, is_noticed),
            Action::TimeOut { worker } if self.workers[worker].awaited().is_some() => self.kill(worker, true),
            Action::TimeOut { .. } => {}
            Action::Cut { worker } => {
                if let Some(opened) = self.workers[worker].opened().cloned() {
                    self.postgres.rollback(&opened);
                }
            }
            Action::Reap => self.reap(),
            Action::Write { writer, table, key, kind } => {
                let xid = self.postgres.write(self.writers[writer], table, key, kind);
                self.writers[writer] = self.writers[writer].or(xid);
            }
            Action::Commit { writer, is_synchronous } => {
                if let Some(xid) = self.writers[writer].take() {
                    self.postgres.commit_writes(xid, is_synchronous);
                }
            }
            Action::Abort { writer } => {
                if let Some(xid) = self.writers[writer].take() {
                    self.postgres.abort_writes(xid);
                }
            }
            Action::Nuke { worker } => self.judge.is_nuked |= self.workers[worker].nuke(),
            Action::Resync { table } => self.postgres.run(|data| data.resyncs[table].schedule(false)),
            Action::WriteForeign => self.postgres.write_foreign(),
            Action::Keep { is_on } => self.keeps = is_on,
            Action::Stray { dice } => return self.go_astray(dice),
            Action::Flush => self.postgres.flush(),
            _ => self.befall(action),
        }
        self.judge.look(&self.postgres, &self.target)
    }

    /// What no worker and no writer does.
    fn befall(&mut self, action: Action) {
        match action {
            Action::CrashPostgres { keep } => {
                self.postgres.crash(keep);
                self.writers = [None; WRITERS];
            }
            Action::RestorePostgres { back, is_other } => {
                self.restore(back, is_other.then_some("another"));
                self.judge.is_provoked = true;
            }
            // Without a loss, nobody needs a healing.
            Action::Promote { back } => self.judge.is_provoked |= self.restore(back, Some("pg")),
            Action::Purge { at, all } => {
                self.postgres.run(|data| data.purge(at, all));
                self.judge.is_provoked = true;
            }
            Action::RecreateQueue => {
                self.postgres.recreate_queue();
                self.judge.is_provoked = true;
            }
            Action::RestoreTarget { back } => {
                self.target.restore(back);
                self.judge.is_provoked = true;
            }
            Action::EmptyTarget => {
                self.target.empty();
                self.judge.is_provoked = true;
            }
            _ => {
                self.elsewhere.now = self.target.now.clone();
                self.judge.is_provoked = true;
            }
        }
    }

    /// Postgres goes back, under its own name or as another server or timeline.
    fn restore(&mut self, back: usize, system: Option<&str>) -> bool {
        self.restores += 1;
        let source = system.map(|system| match system {
            "pg" => format!("{}/{}", self.system(), self.restores + 1),
            other => format!("{other} {}/1", self.restores),
        });
        self.writers = [None; WRITERS];
        self.postgres.restore(back, source.as_deref())
    }

    fn system(&self) -> String {
        let source = &self.postgres.data().identity.source;
        source.split('/').next().unwrap_or_default().to_owned()
    }

    fn kill(&mut self, worker: usize, is_noticed: bool) {
        let opened = self.workers[worker].opened().filter(|_| !is_noticed).cloned();
        match opened {
            Some(opened) => {
                self.orphans.push(opened);
                self.workers[worker] = Worker::new();
            }
            None => self.workers[worker].give_up(&mut self.postgres),
        }
    }

    fn reap(&mut self) {
        for opened in self.orphans.drain(..) {
            self.postgres.rollback(&opened);
        }
    }

    /// A worker's next action: mostly its request arrives before it looks for the answer. Whether
    /// it found nothing to do.
    fn work(&mut self, worker: usize, dice: u8) -> Result<bool, Violation> {
        if let Some(id) = self.workers[worker].awaited()
            && let Some(at) = self.target.flights.iter().position(|f| f.id == id)
        {
            return self.deliver(at, false).map(|()| false);
        }
        let mut around = Surroundings {
            postgres: &mut self.postgres,
            target: &mut self.target,
            address: HERE,
            names: &mut self.names,
            mutant: self.mutant,
            keeps: self.keeps,
            events: Vec::new(),
        };
        self.workers[worker].act(&mut around, dice);
        let events = around.events;
        let is_idle = events.contains(&Event::Idle);
        for event in events {
            if self.names.is_traced {
                self.trace.push(format!("    worker {worker}: {event}"));
            }
            self.judge.hear(&event)?;
        }
        self.judge.look(&self.postgres, &self.target)?;
        Ok(is_idle)
    }

    /// The stray worker takes some steps, once the queue has its replica here. That it is refused is right.
    fn go_astray(&mut self, dice: u8) -> Result<(), Violation> {
        let is_paired = self.postgres.data().progress.address.is_some();
        for turn in 0..if is_paired { DRAIN_TURNS } else { 0 } {
            if let Some(id) = self.stray.awaited()
                && let Some(at) = self.elsewhere.flights.iter().position(|f| f.id == id)
            {
                self.elsewhere.deliver(at, false, true);
            }
            let mut around = Surroundings {
                postgres: &mut self.postgres,
                target: &mut self.elsewhere,
                address: ELSEWHERE,
                names: &mut self.names,
                mutant: self.mutant,
                keeps: self.keeps,
                events: Vec::new(),
            };
            self.stray.act(&mut around, dice.wrapping_add(turn.wrapping_mul(53)));
            let events = around.events;
            for event in events.into_iter().filter(|event| !matches!(event, Event::Halted(_))) {
                if self.names.is_traced {
                    self.trace.push(format!("    stray worker: {event}"));
                }
                self.judge.hear(&event)?;
            }
            self.judge.look(&self.postgres, &self.target)?;
        }
        self.stray.give_up(&mut self.postgres);
        Ok(())
    }

    fn deliver(&mut self, at: usize, stays: bool) -> Result<(), Violation> {
        let before = self.target.now.clone();
        let (id, request, is_written) = self.target.deliver(at, stays, self.mutant != Mutant::NoFence);
        if self.names.is_traced {
            let outcome = if is_written { "is written" } else { "is fenced" };
            self.trace.push(format!("    replica: request {id} {outcome}"));
        }
        if is_written {
            self.judge.weigh(&self.postgres, &before, &request)?;
        }
        self.judge.look(&self.postgres, &self.target)
    }

    /// Nothing goes wrong any more: one worker drains to the end, and both sides have to be equal.
    pub fn settle(&mut self) -> Result<(), Violation> {
        for writer in 0..WRITERS {
            self.act(Action::Commit { writer, is_synchronous: true })?;
        }
        (0..WORKERS).try_for_each(|worker| self.act(Action::Kill { worker, is_noticed: true }))?;
        self.act(Action::Reap)?;
        self.target.flights.clear();
        self.trace.push("all is quiet: worker 0 drains".into());
        for turn in 1_u8..=255 {
            self.judge.is_halted = false;
            if self.work(0, 1 + turn % 15 * 2)? {
                return self.judge.settled(&self.postgres, &self.target);
            }
            if self.judge.is_halted {
                self.workers[0].nuke(); // what the message says
            }
        }
        Err(Violation::of("a drain without faults does not come to an end"))
    }
}

/// The state of a key that a writer leaves.
pub fn kind(dice: u64) -> Kind {
    match dice % 16 {
        0..=3 => Kind::Gone,
        4..=6 => Kind::Unfit,
        _ => Kind::Live,
    }
}

/// All keys and tables are numbers below these.
pub const SIZES: (usize, usize, usize) = (TABLES, KEYS, WRITERS);
