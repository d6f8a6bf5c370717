//! What each table is doing in a drain: read, left aside because others have locked it, or waiting for somebody to act.
//! No IO.

use crate::core::error::Side;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Rest before a table that was left aside is asked for again, at first; it doubles.
const FIRST_REST: Duration = Duration::from_millis(50);

/// The longest of these rests.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How long a drain waits for tables that others lock, when nothing else is left to do.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Why a table is left aside.
const LOCKED: &str = "another session keeps a lock on it that shuts readers out (see pg_locks); its changes follow when that ends, and nothing is lost";

/// What a table is doing.
#[derive(Debug, Default)]
enum Doing {
    /// No row of it was needed so far.
    #[default]
    Nothing,
    /// Its rows are read: it is locked before the snapshot of each step.
    Read,
    /// Others have locked it, for now.
    Aside(Aside),
    /// Its marks wait, and why.
    Paused {
        problem: String,
        /// Where the replica does not take it, its images wait, too.
        side: Side,
    },
}

/// How long others have locked it.
#[derive(Debug)]
struct Aside {
    since: Instant,
    again_at: Instant,
    rest: Duration,
    is_told: bool,
}

#[derive(Debug, Default)]
struct Table {
    doing: Doing,
    /// It cannot be rebuilt.
    is_stuck: bool,
    /// The replica lacked it, and it was created empty.
    is_created: bool,
}

/// All tables of a drain.
#[derive(Debug, Default)]
pub(super) struct Tables {
    tables: BTreeMap<String, Table>,
    /// Since when steps have met a lock that is of no table of theirs.
    met_at: Option<Instant>,
}

impl Tables {
    fn table(&mut self, name: &str) -> &mut Table {
        self.tables.entry(name.to_owned()).or_default()
    }

    fn doing(&self, name: &str) -> &Doing {
        self.tables.get(name).map_or(&Doing::Nothing, |table| &table.doing)
    }

    fn asides(&self) -> impl Iterator<Item = (&str, &Aside)> {
        self.tables.iter().filter_map(|(name, table)| match &table.doing {
            Doing::Aside(aside) => Some((name.as_str(), aside)),
            _ => None,
        })
    }

    /// The tables that the next step locks: those that are read, and those left aside whose rest is over.
    pub fn wanted(&self) -> impl Iterator<Item = &str> {
        let now = Instant::now();
        let is_wanted = move |doing: &Doing| match doing {
            Doing::Read => true,
            Doing::Aside(aside) => aside.again_at <= now,
            Doing::Nothing | Doing::Paused { .. } => false,
        };
        self.tables.iter().filter(move |(_, table)| is_wanted(&table.doing)).map(|(name, _)| name.as_str())
    }

    /// Whether no row of it was needed so far.
    pub fn is_idle(&self, name: &str) -> bool {
        matches!(self.doing(name), Doing::Nothing)
    }

    /// Whether its rows are read, under its lock.
    pub fn is_read(&self, name: &str) -> bool {
        matches!(self.doing(name), Doing::Read)
    }

    /// It is locked from the next step on, unless it waits; whether that is new.
    pub fn read(&mut self, name: &str) -> bool {
        let doing = &mut self.table(name).doing;
        let is_new = matches!(doing, Doing::Nothing);
        if is_new {
            *doing = Doing::Read;
        }
        is_new
    }

    /// Of those that are read only these are.
    pub fn read_only(&mut self, names: &BTreeSet<String>) {
        for (name, table) in &mut self.tables {
            if matches!(table.doing, Doing::Read) && !names.contains(name) {
                table.doing = Doing::Nothing;
            }
        }
        for name in names {
            self.read(name);
        }
    }

    /// A step has locked these.
    pub fn locked(&mut self, names: &[String]) {
        names.iter().for_each(|name| self.table(name).doing = Doing::Read);
    }

    /// Others have locked it: it is left aside, for longer each time.
    pub fn put_aside(&mut self, name: &str) {
        let now = Instant::now();
        let doing = &mut self.table(name).doing;
        if !matches!(doing, Doing::Aside(_)) {
            *doing = Doing::Aside(Aside { since: now, again_at: now, rest: FIRST_REST, is_told: false });
        }
        if let Doing::Aside(aside) = doing {
            aside.again_at = now + aside.rest;
            aside.rest = (aside.rest * 2).min(LONGEST_REST);
        }
    }

    /// Whether any is left aside.
    pub fn is_any_aside(&self) -> bool {
        self.asides().next().is_some()
    }

    /// How long to wait until one is to be asked for again.
    pub fn rest(&self) -> Duration {
        let next = self.asides().map(|(_, aside)| aside.again_at).min();
        next.map_or(FIRST_REST, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Whether one has not been waited for too long.
    pub fn is_any_fresh(&self) -> bool {
        self.asides().any(|(_, aside)| aside.since.elapsed() < PATIENCE)
    }

    /// Says in the log which have been locked for long, once.
    pub fn tell_late(&mut self) {
        for (table, state) in &mut self.tables {
            if let Doing::Aside(aside) = &mut state.doing
                && !aside.is_told
                && aside.since.elapsed() >= PATIENCE
            {
                aside.is_told = true;
                tracing::warn!(table, "changes of this table wait on the queue: {LOCKED}");
            }
        }
    }

    /// Whether a lock that is of no table of the step's is worth another try.
    pub fn is_worth_a_try(&mut self) -> bool {
        self.met_at.get_or_insert_with(Instant::now).elapsed() < PATIENCE
    }

    /// A step has met none.
    pub fn met_none(&mut self) {
        self.met_at = None;
    }

    /// Its marks wait until somebody acts, and where it is the replica that does not take it, its images.
    pub fn pause(&mut self, name: &str, problem: &str, side: Side) {
        let side = if self.is_refused_by_target(name) { Side::Target } else { side };
        self.table(name).doing = Doing::Paused { problem: problem.to_owned(), side };
    }

    /// Whether it is paused.
    pub fn is_paused(&self, name: &str) -> bool {
        matches!(self.doing(name), Doing::Paused { .. })
    }

    /// Whether any is paused.
    pub fn is_any_paused(&self) -> bool {
        self.tables.values().any(|table| matches!(table.doing, Doing::Paused { .. }))
    }

    /// Whether none of them waits for anybody.
    pub fn is_as_usual(&self) -> bool {
        !self.is_any_paused() && !self.is_any_aside() && self.stuck().is_empty()
    }

    /// Whether the replica does not take it.
    pub fn is_refused_by_target(&self, name: &str) -> bool {
        matches!(self.doing(name), Doing::Paused { side: Side::Target, .. })
    }

    /// Those whose marks are not taken: paused, or left aside.
    pub fn waiting(&self) -> impl Iterator<Item = &str> {
        let waits = |doing: &Doing| matches!(doing, Doing::Paused { .. } | Doing::Aside(_));
        self.tables.iter().filter(move |(_, table)| waits(&table.doing)).map(|(name, _)| name.as_str())
    }

    /// Those whose marks have not been taken for long, and why.
    pub fn problems(&self) -> BTreeMap<String, String> {
        let problem = |table: &Table| match &table.doing {
            Doing::Paused { problem, .. } => Some(problem.clone()),
            Doing::Aside(aside) if aside.since.elapsed() >= PATIENCE => Some(LOCKED.to_owned()),
            _ => None,
        };
        self.tables.iter().filter_map(|(name, table)| Some((name.clone(), problem(table)?))).collect()
    }

    /// It cannot be rebuilt; whether that is new.
    pub fn stick(&mut self, name: &str) -> bool {
        !std::mem::replace(&mut self.table(name).is_stuck, true)
    }

    /// Whether it cannot be rebuilt.
    pub fn is_stuck(&self, name: &str) -> bool {
        self.tables.get(name).is_some_and(|table| table.is_stuck)
    }

    /// Those that cannot be rebuilt.
    pub fn stuck(&self) -> BTreeSet<String> {
        self.tables.iter().filter(|(_, table)| table.is_stuck).map(|(name, _)| name.clone()).collect()
    }

    /// The replica lacked these, and they were created empty.
    pub fn create(&mut self, names: impl IntoIterator<Item = String>) {
        names.into_iter().for_each(|name| self.table(&name).is_created = true);
    }

    /// Those that were created, until [`forget_created`](Self::forget_created).
    pub fn created(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().filter(|(_, table)| table.is_created).map(|(name, _)| name.as_str())
    }

    /// Their copies are asked for.
    pub fn forget_created(&mut self) {
        self.tables.values_mut().for_each(|table| table.is_created = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_table_that_is_left_aside_is_wanted_after_its_rest_and_read_when_it_is_locked() {
        let mut tables = Tables::default();
        let wanted = |tables: &Tables| tables.wanted().map(str::to_owned).collect::<Vec<_>>();
        assert!(tables.read("a") && tables.read("b") && !tables.read("a"));
        tables.put_aside("a");
        assert_eq!((wanted(&tables), tables.rest()), (vec!["b".to_owned()], FIRST_REST));
        tokio::time::advance(FIRST_REST).await;
        assert_eq!(wanted(&tables), ["a", "b"]);
        assert!(!tables.is_read("a") && tables.waiting().eq(["a"]), "until a step has its lock, nobody touches it");
        tables.put_aside("a");
        assert_eq!(tables.rest(), FIRST_REST * 2, "longer each time");
        assert!(tables.problems().is_empty() && tables.is_any_fresh());
        tokio::time::advance(PATIENCE).await;
        assert!(tables.problems().contains_key("a") && !tables.is_any_fresh());
        tables.locked(&["a".to_owned()]);
        assert!(tables.is_read("a") && !tables.is_any_aside());
        tables.pause("a", "no", Side::Target);
        tables.pause("a", "still no", Side::Source);
        assert!(tables.is_refused_by_target("a") && !tables.read("a") && wanted(&tables) == ["b"]);
        tables.read_only(&["a".to_owned(), "c".to_owned()].into());
        assert!(tables.is_paused("a") && tables.is_idle("b") && tables.is_read("c"));
    }
}
