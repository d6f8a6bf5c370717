//! Statements that a session runs again and again, prepared there: reading and planning their text takes longer than
//! running them. Only where the session is known to be the connection's alone: a transaction pooler gives each
//! transaction another one, in which they would be missing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio_postgres::Statement;
use tokio_postgres::types::Type;

/// Most statements of one session: the server keeps each with its plan.
const MOST: usize = 64;

/// How often one has to run before it is worth it.
const RUNS: u32 = 2;

/// What a session has.
#[derive(Default)]
pub(super) struct Prepared(Mutex<Option<Texts>>);

/// Statements by their text.
#[derive(Default)]
struct Texts {
    ready: HashMap<String, Statement>,
    /// How often the others have run, and the types of their parameters.
    run: HashMap<String, (u32, Vec<Type>)>,
}

impl Prepared {
    fn texts(&self) -> MutexGuard<'_, Option<Texts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session is the connection's alone.
    pub fn begin(&self) {
        self.texts().get_or_insert_default();
    }

    /// Whether that was said.
    pub fn has_begun(&self) -> bool {
        self.texts().is_some()
    }

    /// The catalog has changed: what was prepared may give other columns.
    pub fn forget(&self) {
        if let Some(texts) = self.texts().as_mut() {
            *texts = Texts::default();
        }
    }

    /// This one runs, with parameters of these types: prepared, if it is. Else it is counted.
    pub fn find<'t>(&self, sql: &str, types: impl Iterator<Item = &'t Type>) -> Option<Statement> {
        let mut texts = self.texts();
        let texts = texts.as_mut()?;
        if let Some(ready) = texts.ready.get(sql) {
            return Some(ready.clone());
        }
        if let Some((runs, _)) = texts.run.get_mut(sql) {
            *runs += 1;
            return None;
        }
        if texts.run.len() >= MOST {
            texts.run.clear(); // few of them recur
        }
        texts.run.insert(sql.to_owned(), (1, types.cloned().collect()));
        None
    }

    /// Those that are worth it, and are not counted any more.
    pub fn take_due(&self) -> Vec<(String, Vec<Type>)> {
        let mut texts = self.texts();
        let Some(texts) = texts.as_mut() else { return Vec::new() };
        let room = MOST - texts.ready.len().min(MOST);
        let due: Vec<String> =
            texts.run.iter().filter(|(_, (runs, _))| *runs >= RUNS).map(|(sql, _)| sql.clone()).take(room).collect();
        due.into_iter().filter_map(|sql| texts.run.remove(&sql).map(|(_, types)| (sql, types))).collect()
    }

    /// This one is prepared.
    pub fn add(&self, sql: String, statement: Statement) {
        if let Some(texts) = self.texts().as_mut() {
            texts.ready.insert(sql, statement);
        }
    }
}
