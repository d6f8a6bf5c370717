//! The end of a schedule: nothing goes wrong any more, one worker drains, and both sides have to be equal.

use super::process::Process;
use super::world::{MARKED, NAMES, POISON, World};
use crate::memory::tables::{Letter, Reading, Row};
use pgflume::core::value::Cell;
use pgflume::sync::compare::Comparison;
use pgflume::sync::compare::report::VerifyOptions;
use pgflume::sync::{Drained, Worker, pairing};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Drains until all is quiet; more are a violation.
const DRAINS: usize = 40;

impl World {
    /// Both sides come to rest, and are compared.
    pub async fn settle(self: &Arc<Self>) {
        self.quieten().await;
        let process = Process::new(self.clone(), 0);
        let worker = self.worker(&process);
        tokio::select! {
            biased;
            () = process.death() => {}
            () = self.come_to_rest(&worker) => {}
        }
    }

    async fn come_to_rest(&self, worker: &Worker) {
        for _ in 0..DRAINS {
            let drained = worker.drain(Duration::from_secs(100_000)).await;
            self.tell(|| format!("all is quiet: {drained:?}"));
            match drained {
                Ok(done) if is_quiet(&done) => return self.compare(worker).await,
                Ok(_) => {}
                Err(e) if e.needs_operator() => {
                    self.hear("a drain", &e);
                    // What the message says.
                    let nuked = pairing::nuke(worker, None, true).await;
                    self.tell(|| format!("nuke: {nuked:?}"));
                }
                Err(e) => self.tell(|| format!("a drain: {e}")),
            }
        }
        self.violate("drains without faults do not come to an end".into());
    }

    async fn quieten(&self) {
        self.become_quiet();
        self.orphans.lock().unwrap().clear();
        self.late.lock().unwrap().clear();
        for table in MARKED {
            self.postgres.restore_access(table).await.unwrap();
        }
        for (id, message) in self.postgres.queue() {
            self.tell(|| format!("left on the queue: {id} {:?}", message.text));
        }
        self.tell(|| "nothing goes wrong any more".into());
    }

    /// Equal when drained; what somebody has changed in the replica is found and repaired.
    async fn compare(&self, worker: &Worker) {
        let was_tampered = self.judge.lock().unwrap().is_tampered;
        if was_tampered {
            let tables = NAMES.map(str::to_owned).to_vec();
            let options = VerifyOptions { tables, repair: true, ..VerifyOptions::default() };
            let verified =
                worker.verify(Comparison::new(options, None, Arc::default()), Duration::from_secs(100_000)).await;
            self.tell(|| format!("repaired: {verified:?}"));
        }
        for (_, letter) in self.postgres.letters() {
            self.tell(|| format!("letter: {}", letter.0));
        }
        for table in NAMES {
            self.compare_table(table);
        }
        self.compare_letters();
        if let Some(healed) = self.postgres.progress().and_then(|progress| progress.healed_from.clone())
            && !self.judge.lock().unwrap().may_diverge()
        {
            self.violate(format!("nobody has touched either side, and they were healed: {healed}"));
        }
    }

    fn compare_table(&self, table: &'static str) {
        let definition = self.postgres.table(table);
        let width = definition.columns.len();
        let keyed = |cells: &[Cell]| definition.key.iter().map(|&i| cells[i].to_postgres_text().unwrap()).collect();
        let mut there: BTreeMap<Vec<String>, Vec<Cell>> =
            self.query(&format!("SELECT * FROM {table}")).into_iter().map(|cells| (keyed(&cells), cells)).collect();
        for row in self.postgres.rows(table) {
            let found = there.remove(&keyed(&row.cells));
            if is_bad(&row) {
                continue;
            }
            if found.as_deref() != Some(&row.cells[..width]) {
                self.violate(format!("all is drained, and {table} has {found:?} for {:?}", row.cells));
            }
        }
        // An image that took a row away may wait in a letter.
        let letters = self.postgres.letters();
        let waits =
            |key: &Vec<String>| !MARKED.contains(&table) && letters.iter().any(|(_, letter)| names(letter, table, key));
        if let Some((_, row)) = there.iter().find(|(key, _)| !waits(key)) {
            self.violate(format!("all is drained, and {table} still has {row:?}"));
        }
    }

    /// Each bad row has its letter, and no message has two.
    fn compare_letters(&self) {
        let letters = self.postgres.letters();
        let of_message = |letter: &Letter| letter.0.get("msg_id").and_then(serde_json::Value::as_i64);
        let mut messages: Vec<i64> = letters.iter().filter_map(|(_, letter)| of_message(letter)).collect();
        messages.sort_unstable();
        if messages.windows(2).any(|two| two[0] == two[1]) && !self.judge.lock().unwrap().is_provoked {
            self.violate(format!("a message has two letters: {messages:?}"));
        }
        for table in NAMES {
            for row in self.postgres.rows(table).iter().filter(|row| is_bad(row)) {
                let key = row.key(self.postgres.table(table));
                if !letters.iter().any(|(_, letter)| names(letter, table, &key)) {
                    self.violate(format!("{table} {key:?} cannot be applied, and no letter says so: {row:?}"));
                }
            }
        }
    }
}

fn is_quiet(done: &Drained) -> bool {
    done.queued == 0 && done.rebuilding == 0 && done.paused.is_empty() && !done.busy
}

/// Whether the replica cannot have this row.
fn is_bad(row: &Row) -> bool {
    row.reading != Reading::Fits || row.cells.contains(&Cell::Text(POISON.into()))
}

/// Whether a letter is of this key.
fn names(letter: &Letter, table: &str, key: &[String]) -> bool {
    let is_key = |value: &serde_json::Value| {
        value.as_array().is_some_and(|parts| parts.iter().map(|part| part.as_str().unwrap_or_default()).eq(key))
    };
    let of = |name: &str| letter.0.get(name);
    of("table").and_then(|name| name.as_str()) == Some(table)
        && (of("key").is_some_and(is_key)
            || of("keys").and_then(|keys| keys.as_array()).is_some_and(|keys| keys.iter().any(is_key)))
}
