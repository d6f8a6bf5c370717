//! Rebuilds, retained messages, dead letters, comparisons and definitions, as the seam asks for them.

use super::link::{Connection, said};
use super::postgres::asked;
use super::tables::{
    DEAD, DEFINITIONS, KEPT, Kept, Letter, RESYNCS, Resync, Stored, VERIFIED, Verified, named, number, numbered, only,
};
use async_trait::async_trait;
use pgflume::core::error::{Error, Result};
use pgflume::core::message::MarkedKey;
use pgflume::core::position::Head;
use pgflume::core::reconcile::RetainedStep;
use pgflume::postgres::books::comparisons::{self, Pass};
use pgflume::postgres::books::dead_letters::{Covering, Dead, DeadLetter, Supersedable, Superseded};
use pgflume::postgres::books::rebuilds::{Phase, Reason, Rebuild};
use pgflume::postgres::drift::definition_version::{DefinitionVersion, Outgrown, Recorded};
use pgflume::postgres::link::Books;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Most messages that are put back.
const MOST_PUT_BACK: usize = 500_000;

/// Most letters that are looked at.
const SUPERSEDABLE: usize = 100_000;

impl Connection {
    async fn put<T: Stored>(&self, relation: &str, key: Vec<String>, value: T) -> Result<()> {
        self.access().put(relation, key, value).await.map_err(said)
    }

    async fn change<T: Stored + Clone>(&self, relation: &str, name: &str, change: impl FnOnce(&mut T)) -> Result<bool> {
        self.access().update(relation, &named(name), change).await.map_err(said)
    }

    fn resyncs(&self) -> Result<Vec<Arc<Resync>>> {
        let rows = self.access().scan::<Resync>(RESYNCS).map_err(said)?;
        Ok(rows.into_iter().map(|(_, resync)| resync).collect())
    }

    async fn schedule_one(&self, name: &str, reason: Reason) -> Result<()> {
        let new = asked(name, reason.name(), self.at());
        let again = new.clone();
        let change = |old: &mut Resync| {
            let ordered_by = old.rebuild.ordered_by.take();
            *old = again;
            old.rebuild.ordered_by = ordered_by;
        };
        match self.change(RESYNCS, name, change).await? {
            true => Ok(()),
            false => self.put(RESYNCS, named(name), new).await,
        }
    }

    async fn sweep_one(&self, name: &str) -> Result<()> {
        let at = self.at();
        if self.change(RESYNCS, name, |old| begin_sweep(old, at)).await? {
            return Ok(());
        }
        let mut new = asked(name, "truncate", at);
        new.rebuild.phase = Phase::Sweep;
        self.put(RESYNCS, named(name), new).await
    }

    async fn restart_all(&self) -> Result<()> {
        for resync in self.resyncs()? {
            let begin = |old: &mut Resync| {
                let fresh = asked(&old.rebuild.name, "", Duration::ZERO).rebuild;
                old.rebuild = Rebuild { ordered_by: old.rebuild.ordered_by.take(), ..fresh };
                (old.started_at, old.finished_at) = (None, None);
            };
            self.change(RESYNCS, &resync.rebuild.name, begin).await?;
        }
        Ok(())
    }

    async fn put_all_back(&self, epoch: &str, seq: i64) -> Result<u64> {
        let is_it = |kept: &Kept| kept.epoch == epoch && kept.after_seq >= seq;
        let gone = self.access().delete_where::<Kept>(KEPT, is_it).await.map_err(said)?;
        let mut messages: Vec<_> = gone.iter().flat_map(|(_, kept)| &kept.messages).collect();
        messages.sort_by_key(|(id, _)| *id);
        let mut put = 0;
        for (id, text) in messages {
            put += u64::from(self.put_in_place(*id, text.clone()).await?);
        }
        Ok(put)
    }

    async fn bury_one(&self, letter: &DeadLetter, json: Json, known: &Supersedable) -> Result<()> {
        for id in known.of_key(letter) {
            let like = self.access().get::<Letter>(DEAD, &numbered(id)).map_err(said)?;
            if like.is_some_and(|like| like.0["key"] == json["key"] && like.0["reason"] == json["reason"]) {
                return Ok(());
            }
        }
        self.insert_letter(json).await
    }

    fn letters(&self) -> Result<Vec<(i64, Arc<Letter>)>> {
        let letters = self.access().scan::<Letter>(DEAD).map_err(said)?;
        Ok(letters.into_iter().map(|(key, letter)| (number(&key), letter)).collect())
    }

    async fn supersede_all(&self, superseded: &Superseded) -> Result<u64> {
        let mut gone = 0;
        for (id, keys) in &superseded.partly {
            let note = |letter: &mut Letter| letter.0["superseded"] = serde_json::json!(keys);
            self.access().update(DEAD, &numbered(*id), note).await.map_err(said)?;
        }
        for id in &superseded.wholly {
            gone += u64::from(self.access().delete(DEAD, &numbered(*id)).await.map_err(said)?);
        }
        Ok(gone)
    }

    async fn finish_pass(&self, table: &str, pass: &Pass, seconds: Option<f64>) -> Result<()> {
        let clock = self.clock();
        let began = clock.saturating_sub(Duration::from_secs_f64(seconds.unwrap_or(0.0)));
        let finish = |row: &mut Verified| {
            row.last_started_at = Some(if seconds.is_none() { row.started_at } else { began });
            (row.is_sweep, row.cursor, row.rows, row.different) = (false, None, 0, 0);
            row.last_finished_at = Some(clock);
            (row.last_rows, row.last_different) = (Some(pass.rows), Some(pass.different));
            row.started_at = clock;
        };
        if !self.change(VERIFIED, table, finish).await? {
            let mut row = Verified { started_at: self.at(), ..Verified::default() };
            finish(&mut row);
            row.last_started_at = Some(began);
            self.put(VERIFIED, named(table), row).await?;
        }
        Ok(())
    }

    async fn save_pass(&self, table: &str, pass: &Pass, ordering: &str) -> Result<()> {
        let at = self.at();
        let save = |row: &mut Verified| {
            let is_first = row.rows == 0 && row.cursor.is_none() && !row.is_sweep;
            row.started_at = if is_first { at } else { row.started_at };
            row.is_sweep = pass.phase != comparisons::Phase::Compare;
            (row.cursor, row.rows, row.different) = (pass.cursor.clone(), pass.rows, pass.different);
            row.ordered_by = Some(ordering.to_owned());
        };
        if !self.change(VERIFIED, table, save).await? {
            let mut row = Verified { started_at: at, ..Verified::default() };
            save(&mut row);
            self.put(VERIFIED, named(table), row).await?;
        }
        Ok(())
    }

    fn recorded(&self) -> Result<Recorded> {
        let recorded = self.access().get::<Recorded>(DEFINITIONS, &only()).map_err(said)?;
        Ok(recorded.map_or_else(Recorded::default, |recorded| (*recorded).clone()))
    }

    async fn record(&self, definitions: &DefinitionVersion) -> Result<Vec<Outgrown>> {
        let before = self.recorded()?;
        let progress = self.progress()?;
        let has_stored = progress.is_some_and(|row| row.epoch.is_some() && row.shape.is_some());
        let is_forgotten = before == Recorded::default() && has_stored;
        let (now, outgrown) = definitions.clone().succeed(&before, is_forgotten, &BTreeSet::new());
        if now != before {
            self.put(DEFINITIONS, only(), now).await?;
        }
        self.change_progress(|row| row.shape = Some(definitions.hash().to_owned())).await?;
        Ok(outgrown)
    }
}

/// A copy under way goes on, and ends with the sweep.
fn begin_sweep(old: &mut Resync, at: Duration) {
    let before = old.rebuild.phase;
    let rebuild = &mut old.rebuild;
    (rebuild.fresh, rebuild.problem, rebuild.unfit, old.finished_at) = (false, None, 0, None);
    rebuild.phase = if matches!(before, Phase::Copy | Phase::Failed) { Phase::Copy } else { Phase::Sweep };
    rebuild.cursor = rebuild.cursor.take().filter(|_| before == Phase::Copy);
    if before == Phase::Done {
        (rebuild.rows, rebuild.removed, rebuild.busy_ms) = (0, 0, 0);
        (old.requested_at, old.reason) = (at, "truncate".to_owned());
    }
}

/// A letter as far as newer states of its keys would supersede it; others may have put letters of their own there.
fn covering(id: i64, letter: &Json) -> Option<Covering> {
    let table = letter.get("table")?.as_str()?.to_owned();
    let keys: BTreeSet<MarkedKey> = match (letter.get("keys"), letter.get("key")) {
        (Some(keys), _) => serde_json::from_value(keys.clone()).ok()?,
        (None, Some(key)) => BTreeSet::from([serde_json::from_value(key.clone()).ok()?]),
        (None, None) => return None,
    };
    let msg_id = letter.get("msg_id").and_then(|id| id.as_i64().or_else(|| id.as_str()?.parse().ok()));
    let covered = letter.get("superseded").and_then(|keys| serde_json::from_value(keys.clone()).ok());
    Some(Covering { id, msg_id, table, keys, covered: covered.unwrap_or_default() })
}

fn text_of(json: &Json) -> String {
    json.as_str().map_or_else(|| if json.is_null() { String::new() } else { json.to_string() }, str::to_owned)
}

/// A letter of a table as far as it tells a key.
fn dead_of(letter: &Json, table: &str) -> Option<Dead> {
    let key = letter.get("key").and_then(Json::as_array);
    let message = letter.get("message");
    if letter.get("table")?.as_str()? != table || key.is_none() && message.is_none() {
        return None;
    }
    let key = || key.into_iter().flatten().map(text_of).collect();
    Some(match message.filter(|message| !message.is_null()) {
        Some(message) => {
            let keys = letter.get("keys").and_then(|keys| serde_json::from_value(keys.clone()).ok());
            Dead::Message(text_of(message), keys.unwrap_or_default())
        }
        None if letter.get("class").and_then(Json::as_str) == Some("target") => Dead::Target(key()),
        None => Dead::Key(key()),
    })
}

#[async_trait]
impl Books for Connection {
    async fn schedule(&self, names: &[&str], reason: Reason) -> Result<()> {
        let schedule = async {
            for name in BTreeSet::from_iter(names) {
                self.schedule_one(name, reason).await?;
            }
            Ok(())
        };
        self.run("schedule", schedule).await
    }

    async fn schedule_sweep(&self, name: &str) -> Result<()> {
        self.run("schedule_sweep", self.sweep_one(name)).await
    }

    async fn restart_rebuilds(&self) -> Result<()> {
        self.run("restart_rebuilds", self.restart_all()).await
    }

    async fn cancel_rebuilds(&self) -> Result<()> {
        self.run("cancel_rebuilds", self.forget::<Resync>(RESYNCS)).await
    }

    async fn pending(&self) -> Result<Vec<Rebuild>> {
        let pending = async {
            let mut pending = self.resyncs()?;
            pending.retain(|resync| resync.rebuild.phase != Phase::Done);
            pending.sort_by(|a, b| (a.requested_at, &a.rebuild.name).cmp(&(b.requested_at, &b.rebuild.name)));
            Ok(pending.into_iter().map(|resync| resync.rebuild.clone()).collect())
        };
        self.run("pending", pending).await
    }

    async fn rebuilding(&self) -> Result<u64> {
        let count = async {
            let is_known = |name: &str| self.memory.postgres.schema().get(name).is_some();
            let is_counted = |r: &&Arc<Resync>| r.rebuild.phase != Phase::Done && is_known(&r.rebuild.name);
            Ok(self.resyncs()?.iter().filter(is_counted).count() as u64)
        };
        self.run("rebuilding", count).await
    }

    async fn record_rebuild(&self, rebuild: &Rebuild) -> Result<()> {
        let record = async {
            let (at, clock) = (self.at(), self.clock());
            let change = |old: &mut Resync| {
                old.rebuild = Rebuild { fresh: old.rebuild.fresh && rebuild.fresh, ..rebuild.clone() };
                old.started_at = old.started_at.or(Some(at));
                old.finished_at = (rebuild.phase == Phase::Done).then_some(clock);
            };
            self.change(RESYNCS, &rebuild.name, change).await.map(drop)
        };
        self.run("record_rebuild", record).await
    }

    async fn note_empty(&self, names: &[&str]) -> Result<()> {
        let note = async {
            for name in names {
                let change = |old: &mut Resync| {
                    let has_begun = old.rebuild.phase != Phase::Copy || old.rebuild.cursor.is_some();
                    old.rebuild.fresh |= !has_begun;
                };
                self.change(RESYNCS, name, change).await?;
            }
            Ok(())
        };
        self.run("note_empty", note).await
    }

    async fn set_problem(&self, name: &str, problem: &str) -> Result<()> {
        let set = async {
            let found = self.access().get::<Resync>(RESYNCS, &named(name)).map_err(said)?;
            let differs = |row: &Rebuild| row.phase != Phase::Done && row.problem.as_deref() != Some(problem);
            if found.is_some_and(|found| differs(&found.rebuild)) {
                self.change(RESYNCS, name, |old: &mut Resync| old.rebuild.problem = Some(problem.to_owned())).await?;
            }
            Ok(())
        };
        self.run("set_problem", set).await
    }

    async fn retain(&self, after: &Head, tokens: &[String], copied: &BTreeSet<String>, window: Duration) -> Result<()> {
        let retain = async {
            let at = self.at();
            let (epoch, after_seq, after_token) = (after.epoch.clone(), after.seq, after.token.clone());
            let (tokens, copied) = (tokens.to_vec(), copied.iter().cloned().collect());
            self.insert_kept(Kept { epoch, after_seq, after_token, tokens, copied, messages: Vec::new(), at }).await?;
            let is_old = |kept: &Kept| kept.at + window < at && kept.after_seq < after.seq;
            self.access().delete_where::<Kept>(KEPT, is_old).await.map(drop).map_err(said)
        };
        self.run("retain", retain).await
    }

    async fn retained(&self, epoch: &str) -> Result<Vec<RetainedStep>> {
        let retained = async {
            let mut kept = self.access().scan::<Kept>(KEPT).map_err(said)?;
            kept.retain(|(_, kept)| kept.epoch == epoch && !kept.tokens.is_empty());
            kept.sort_by_key(|(_, kept)| kept.after_seq);
            let step = |kept: &Kept| RetainedStep {
                after: Head { epoch: epoch.to_owned(), seq: kept.after_seq, token: kept.after_token.clone() },
                tokens: kept.tokens.clone(),
                copied: kept.copied.clone(),
            };
            Ok(kept.iter().map(|(_, kept)| step(kept)).collect())
        };
        self.run("retained", retained).await
    }

    async fn can_put_back(&self, epoch: &str, seq: i64) -> Result<bool> {
        let can = async {
            let mut kept = self.access().scan::<Kept>(KEPT).map_err(said)?;
            kept.retain(|(_, kept)| kept.epoch == epoch && kept.after_seq >= seq);
            let ids: Vec<i64> = kept.iter().flat_map(|(_, kept)| &kept.messages).map(|(id, _)| *id).collect();
            Ok(ids.len() <= MOST_PUT_BACK && ids.iter().all(|id| *id <= self.last_id()))
        };
        self.run("can_put_back", can).await
    }

    async fn put_back(&self, epoch: &str, seq: i64) -> Result<u64> {
        self.run("put_back", self.put_all_back(epoch, seq)).await
    }

    async fn dead_letter(&self, letters: &[DeadLetter], known: &Supersedable) -> Result<()> {
        if letters.is_empty() {
            return Ok(());
        }
        let bury = async {
            let mut told: Vec<Json> = Vec::new();
            for letter in letters {
                let json = serde_json::to_value(letter)
                    .map_err(|e| Error::retry(format!("a dead letter cannot be written: {e}")))?;
                if !told.contains(&json) {
                    told.push(json.clone());
                    self.bury_one(letter, json, known).await?;
                }
            }
            Ok(())
        };
        self.run("dead_letter", bury).await
    }

    async fn supersede(&self, superseded: &Superseded) -> Result<u64> {
        if superseded.wholly.is_empty() && superseded.partly.is_empty() {
            return Ok(0);
        }
        self.run("supersede", self.supersede_all(superseded)).await
    }

    async fn supersedable(&self) -> Result<Supersedable> {
        let read = async {
            let letters = self.letters()?;
            let covering = letters.iter().filter_map(|(id, letter)| covering(*id, &letter.0));
            Ok(Supersedable::of(covering.take(SUPERSEDABLE)))
        };
        self.run("supersedable", read).await
    }

    async fn letters_of(&self, table: &str) -> Result<Vec<Dead>> {
        let read = async { Ok(self.letters()?.iter().filter_map(|(_, letter)| dead_of(&letter.0, table)).collect()) };
        self.run("letters_of", read).await
    }

    async fn comparison(&self, table: &str, ordering: &str) -> Result<Pass> {
        let load = async {
            let found = self.access().get::<Verified>(VERIFIED, &named(table)).map_err(said)?;
            let Some(row) = found.filter(|row| row.ordered_by.as_deref() == Some(ordering)) else {
                return Ok(Pass::default());
            };
            let phase = if row.is_sweep { comparisons::Phase::Sweep } else { comparisons::Phase::Compare };
            Ok(Pass { phase, cursor: row.cursor.clone(), rows: row.rows, different: row.different })
        };
        self.run("comparison", load).await
    }

    async fn record_comparison(&self, table: &str, pass: &Pass, ordering: &str) -> Result<()> {
        self.run("record_comparison", self.save_pass(table, pass, ordering)).await
    }

    async fn finish_comparison(&self, table: &str, pass: &Pass, seconds: Option<f64>) -> Result<()> {
        self.run("finish_comparison", self.finish_pass(table, pass, seconds)).await
    }

    async fn forget_compared(&self) -> Result<()> {
        self.run("forget_compared", self.forget::<Verified>(VERIFIED)).await
    }

    async fn recorded_definitions(&self) -> Result<BTreeSet<String>> {
        self.run("recorded_definitions", async { Ok(self.recorded()?.kept()) }).await
    }

    async fn record_definitions(&self, definitions: &DefinitionVersion) -> Result<Vec<Outgrown>> {
        self.run("record_definitions", self.record(definitions)).await
    }
}
