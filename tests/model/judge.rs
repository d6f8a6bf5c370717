//! What must always hold. Looks at both sides as nobody else can, after each action.

use super::intake::{differing, keys};
use super::postgres::{Data, IMAGED, KEYS, Kind, MARKED, Message, NAMES, Phase, Postgres, Resync, Row, Written};
use super::target::{Request, State, Target};
use super::worker::Event;
use super::world::HERE;
use pgflume::core::reconcile::{self, Decision};
use std::fmt;
use std::rc::Rc;

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl Violation {
    pub fn of(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(text) => f.write_str(text),
            Self::Healed(divergence) => write!(f, "heals: {divergence}"),
            Self::Replayed => f.write_str("takes again what is kept"),
            Self::Halted(why) => write!(f, "halts: {why}"),
            Self::Idle => f.write_str("has nothing to do"),
        }
    }
}

#[derive(Default)]
pub struct Judge {
    /// Somebody has restored, replaced or emptied a side, or taken messages.
    pub is_provoked: bool,
    /// Somebody has asked for a nuke: one that is cut short is finished by a healing.
    pub is_nuked: bool,
    pub has_healed: bool,
    /// A mutant: see `Mutant::NoRestart`.
    pub adopts_blindly: bool,
    pub is_halted: bool,
}

impl Judge {
    /// Two sides that nobody has touched never diverge.
    pub fn hear(&mut self, event: &Event) -> Result<(), Violation> {
        self.is_halted |= matches!(event, Event::Halted(_));
        self.has_healed |= matches!(event, Event::Healed(_) | Event::Replayed);
        match event {
            Event::Healed(_) | Event::Replayed | Event::Halted(_) if !self.is_provoked && !self.is_nuked => {
                Err(Violation(format!("nobody has touched either side, and a worker {event}")))
            }
            _ => Ok(()),
        }
    }

    /// A write of the replica: durable before visible, and nothing stale.
    pub fn weigh(&self, postgres: &Postgres, before: &Rc<State>, request: &Request) -> Result<(), Violation> {
        let Request::Apply { items, .. } = request else { return Ok(()) };
        for &(table, key, row) in items {
            let written = postgres.written[row.version as usize];
            if !postgres.is_durable(row.version) && written != Written::LostInRestore {
                return Err(Violation(format!("{} shows what Postgres can lose ({written:?})", name(table, key))));
            }
            let old = before.rows[table][key].version;
            let is_lost = postgres.written[old as usize] == Written::LostInRestore;
            // Images are applied in the order of the queue, which a healing begins anew.
            let may_repeat = table == IMAGED && (self.is_provoked || self.has_healed);
            if row.version < old && !is_lost && !may_repeat {
                let now = row.version;
                return Err(Violation(format!("{} goes back from version {old} to {now}", name(table, key))));
            }
        }
        Ok(())
    }

    /// Nothing lost, and nothing visible that a crash took away.
    pub fn look(&self, postgres: &Postgres, target: &Target) -> Result<(), Violation> {
        let rows = &target.now.rows;
        for (table, key) in keys() {
            if postgres.written[rows[table][key].version as usize] == Written::LostInCrash {
                return Err(Violation(format!("{} shows what a crash has undone", name(table, key))));
            }
        }
        let data = postgres.data();
        let is_lost = |&(table, key): &(usize, usize)| !is_covered(data, table, key, rows[table][key]);
        match differing(data, rows).into_iter().find(is_lost) {
            Some((table, key)) if !will_be_rebuilt(postgres, target, !self.adopts_blindly) => Err(Violation(format!(
                "{} is lost: {:?} in Postgres, {:?} in the replica, and nothing is queued or to be rebuilt",
                name(table, key),
                data.rows[table][key],
                rows[table][key],
            ))),
            _ => Ok(()),
        }
    }

    /// Equal when drained.
    pub fn settled(&self, postgres: &Postgres, target: &Target) -> Result<(), Violation> {
        let data = postgres.data();
        if !data.queue.is_empty() {
            return Err(Violation::of("a worker has nothing to do, and the queue is not empty"));
        }
        match differing(data, &target.now.rows).first() {
            None => Ok(()),
            Some(&(table, key)) => Err(Violation(format!(
                "all is drained, and {} is {:?} in Postgres, {:?} in the replica",
                name(table, key),
                data.rows[table][key],
                target.now.rows[table][key]
            ))),
        }
    }
}

fn name(table: usize, key: usize) -> String {
    format!("{} {key}", NAMES[table])
}

/// Whether a message or a rebuild will bring a key's state to the replica.
fn is_covered(data: &Data, table: usize, key: usize, replica: Row) -> bool {
    let source = data.rows[table][key];
    let brings = |message: &Message| match message {
        Message::Mark { key: k } => table == MARKED && *k == key,
        Message::Image { key: k, row } => table == IMAGED && *k == key && row.version == source.version,
        Message::Foreign => false,
    };
    // What others took is noted, and copied by the next step.
    (table == MARKED && data.losses > 0)
        || data.queue.iter().any(|m| brings(&m.message))
        || will_be_copied(&data.resyncs[table], key, source, replica)
}

fn will_be_copied(resync: &Resync, key: usize, source: Row, replica: Row) -> bool {
    debug_assert!(key < KEYS);
    match (resync.phase, source.kind) {
        (Phase::Copy, Kind::Gone) => !resync.fresh || replica.kind == Kind::Gone,
        (Phase::Copy, _) => key >= resync.cursor,
        (Phase::Sweep, Kind::Gone) => key >= resync.cursor,
        _ => false,
    }
}

/// Whether the next worker that looks at both sides rebuilds all, or stops and says so.
fn will_be_rebuilt(postgres: &Postgres, target: &Target, restarts: bool) -> bool {
    let data = postgres.data();
    match reconcile::decide(&data.progress, data.here(HERE), target.now.head.as_ref()) {
        // Whoever adopts an epoch begins all rebuilds anew.
        Decision::Adopt(_) => restarts,
        Decision::Stop(_) => true,
        Decision::Ahead { from, to } => {
            let ledger = target.ledger_between(&from, &to);
            reconcile::ahead(&from, &to, &ledger, &data.fates(&ledger)).is_err()
        }
        Decision::GoOn(_) | Decision::Pair => false,
    }
}
