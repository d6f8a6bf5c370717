//! A connection to Postgres that may be cut: before a statement, or after it took effect.

use super::process::Process;
use async_trait::async_trait;
use pgflume::core::error::{Error, Result};
use pgflume::core::message::MarkedKey;
use pgflume::core::position::{Entry, Fate, Head, Identity};
use pgflume::core::reconcile::RetainedStep;
use pgflume::postgres::Purpose;
use pgflume::postgres::books::comparisons::Pass;
use pgflume::postgres::books::dead_letters::{Dead, DeadLetter, Supersedable, Superseded};
use pgflume::postgres::books::progress::Snapshot;
use pgflume::postgres::books::rebuilds::{Reason, Rebuild};
use pgflume::postgres::catalog::SourceTable;
use pgflume::postgres::drift::Drift;
use pgflume::postgres::drift::definition_version::{DefinitionVersion, Outgrown};
use pgflume::postgres::link::{
    Begun, Bell, Books, Connect, Doze, Flight, Known, Link, Opening, Pages, Queue, Reading, ReadsMessage, Savepoint,
    Source, Transaction,
};
use pgflume::postgres::queue::{Take, Taken, TakenMessages};
use pgflume::postgres::rows::page::{Cursor, Size};
use pgflume::replica::inventory::Inventory;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// Connects one process.
pub struct Network<C> {
    pub process: Arc<Process>,
    pub postgres: C,
}

#[async_trait]
impl<C: Connect> Connect for Network<C> {
    async fn connect(&self, purpose: Purpose) -> Result<Box<dyn Link>> {
        let link = self.process.act("connect", gone, self.postgres.connect(purpose)).await?;
        let process = self.process.clone();
        Ok(Box::new(Faulty { process, link: link.into(), turn: Mutex::new(()), is_cut: AtomicBool::new(false) }))
    }
}

fn gone(_took_effect: bool) -> Error {
    Error::retry("Postgres: the connection is closed")
}

struct Faulty {
    process: Arc<Process>,
    link: Arc<dyn Link>,
    /// Statements arrive in the order in which they were sent.
    turn: Mutex<()>,
    is_cut: AtomicBool,
}

impl Faulty {
    async fn call<T>(&self, name: &str, statement: impl Future<Output = Result<T>>) -> Result<T> {
        let _turn = self.turn.lock().await;
        if self.is_cut.load(Ordering::Relaxed) {
            return Err(gone(false));
        }
        let cut = |took_effect| {
            self.is_cut.store(true, Ordering::Relaxed);
            gone(took_effect)
        };
        let done = self.process.act(name, cut, statement).await;
        if self.is_cut.load(Ordering::Relaxed) {
            drop(self.link.rollback().await);
        }
        done
    }

    fn leave_flight(&self) {
        self.process.has_flight.store(false, Ordering::Relaxed);
    }
}

impl Drop for Faulty {
    /// Postgres may notice later that a process is gone.
    fn drop(&mut self) {
        let world = &self.process.world;
        if self.process.is_dead() && world.dice.one_in(2) {
            world.orphans.lock().unwrap().push(self.link.clone());
        }
    }
}

#[async_trait]
impl Transaction for Faulty {
    async fn begin(&self, tables: &[&SourceTable]) -> Result<Begun> {
        self.leave_flight();
        self.call("begin", self.link.begin(tables)).await
    }

    async fn begin_waiting(&self, patience: Duration) -> Result<()> {
        self.leave_flight();
        self.call("begin_waiting", self.link.begin_waiting(patience)).await
    }

    async fn commit(&self) -> Result<()> {
        self.leave_flight();
        self.call("commit", self.link.commit()).await
    }

    async fn rollback(&self) -> Result<()> {
        self.leave_flight();
        self.call("rollback", self.link.rollback()).await
    }

    async fn savepoint(&self, name: Savepoint, limit: Option<Duration>) -> Result<()> {
        self.call("savepoint", self.link.savepoint(name, limit)).await
    }

    async fn rollback_to(&self, name: Savepoint) -> Result<()> {
        self.call("rollback_to", self.link.rollback_to(name)).await
    }

    async fn release(&self, name: Savepoint) -> Result<()> {
        self.call("release", self.link.release(name)).await
    }

    async fn limit(&self, time: Duration) -> Result<()> {
        self.call("limit", self.link.limit(time)).await
    }

    async fn ping(&self) -> Result<()> {
        self.call("ping", self.link.ping()).await
    }

    async fn pulse(&self) -> Result<()> {
        self.link.pulse().await
    }

    async fn wal_position(&self) -> Result<String> {
        self.call("wal_position", self.link.wal_position()).await
    }

    async fn is_flushed(&self, position: &str) -> Result<bool> {
        self.call("is_flushed", self.link.is_flushed(position)).await
    }

    async fn flush(&self) -> Result<()> {
        self.call("flush", self.link.flush()).await
    }
}

impl Opening for Faulty {}

#[async_trait]
impl Flight for Faulty {
    async fn ensure(&self) -> Result<()> {
        self.call("ensure", self.link.ensure()).await
    }

    async fn lock(&self) -> Result<Option<Snapshot>> {
        let locked = self.call("lock", self.link.lock()).await?;
        self.process.has_flight.store(locked.is_some(), Ordering::Relaxed);
        self.process.world.steps.fetch_add(u64::from(locked.is_some()), Ordering::Relaxed);
        if self.process.world.goes_round() {
            self.process.world.violate("steps follow each other without an end".into());
            return self.process.end().await;
        }
        Ok(locked)
    }

    async fn look(&self) -> Result<Snapshot> {
        self.call("look", self.link.look()).await
    }

    async fn wait_for_flight(&self) -> Result<bool> {
        let locked = self.call("wait_for_flight", self.link.wait_for_flight()).await?;
        self.process.has_flight.store(locked, Ordering::Relaxed);
        Ok(locked)
    }

    fn lock_wait(&self) -> Duration {
        self.link.lock_wait()
    }

    async fn wait_for_table(&self, source: &SourceTable) -> Result<bool> {
        self.call("wait_for_table", self.link.wait_for_table(source)).await
    }

    async fn wait_for_queue(&self) -> Result<bool> {
        self.call("wait_for_queue", self.link.wait_for_queue()).await
    }

    async fn blocked(&self, tables: &[&SourceTable]) -> Result<Vec<String>> {
        self.call("blocked", self.link.blocked(tables)).await
    }

    async fn is_waited_for(&self, xid: &str) -> Result<bool> {
        self.call("is_waited_for", self.link.is_waited_for(xid)).await
    }

    async fn wake(&self) -> Result<()> {
        self.call("wake", self.link.wake()).await
    }

    async fn calls(&self) -> Result<i64> {
        self.call("calls", self.link.calls()).await
    }

    async fn advance(&self, head: &Head, identity: &Identity, is_caught_up: bool) -> Result<()> {
        self.call("advance", self.link.advance(head, identity, is_caught_up)).await
    }

    async fn announce(&self, epoch: &str, address: &str, refills: bool) -> Result<()> {
        self.call("announce", self.link.announce(epoch, address, refills)).await
    }

    async fn pair(&self, head: &Head, identity: &Identity, address: &str) -> Result<()> {
        self.call("pair", self.link.pair(head, identity, address)).await
    }

    async fn move_to(&self, address: &str) -> Result<()> {
        self.call("move_to", self.link.move_to(address)).await
    }

    async fn note_healing(&self, divergence: &str) -> Result<()> {
        self.call("note_healing", self.link.note_healing(divergence)).await
    }

    async fn take_losses(&self) -> Result<Vec<(String, String, i64)>> {
        self.call("take_losses", self.link.take_losses()).await
    }

    async fn fates(&self, entries: &[Entry]) -> Result<Vec<Fate>> {
        self.call("fates", self.link.fates(entries)).await
    }

    async fn name_step(&self, name: &str) -> Result<()> {
        self.call("name_step", self.link.name_step(name)).await
    }

    async fn redeem(&self, id: &str) -> Result<bool> {
        self.call("redeem", self.link.redeem(id)).await
    }

    async fn is_redeemed(&self, id: &str) -> Result<bool> {
        self.call("is_redeemed", self.link.is_redeemed(id)).await
    }
}

#[async_trait]
impl Bell for Faulty {
    async fn listen(&self) -> Result<bool> {
        self.call("listen", self.link.listen()).await
    }

    async fn ring(&self, word: &str) -> Result<()> {
        self.call("ring", self.link.ring(word)).await
    }

    async fn doze(&self) -> Result<Doze> {
        self.call("doze", self.link.doze()).await
    }

    async fn rung(&self) -> String {
        self.link.rung().await
    }

    fn rouse(&self) {
        self.link.rouse();
    }

    async fn wait_behind(&self) -> Result<bool> {
        self.call("wait_behind", self.link.wait_behind()).await
    }

    async fn waiter(&self) -> Result<Option<i32>> {
        self.call("waiter", self.link.waiter()).await
    }

    async fn doze_behind(&self, waiter: i32) -> Result<Doze> {
        self.call("doze_behind", self.link.doze_behind(waiter)).await
    }

    fn call_off(&self, waiter: i32) {
        self.link.call_off(waiter);
    }
}

#[async_trait]
impl Queue for Faulty {
    async fn take(&self, take: Take<'_>, read: &mut ReadsMessage<'_>) -> Result<TakenMessages> {
        // As where messages are large.
        let take = Take { limit: take.limit.min(self.process.world.mood.takes), ..take };
        self.call("take", self.link.take(take, read)).await
    }

    async fn acknowledge(&self, ids: &[i64], keeps: bool) -> Result<Vec<Taken>> {
        self.call("acknowledge", self.link.acknowledge(ids, keeps)).await
    }

    async fn mark(&self, table: &str, keys: &[MarkedKey]) -> Result<i64> {
        self.call("mark", self.link.mark(table, keys)).await
    }

    async fn send_again(&self, messages: &[(Option<i64>, String)]) -> Result<()> {
        self.call("send_again", self.link.send_again(messages)).await
    }

    async fn dead_letter_large(&self, ids: &[i64], reason: &str) -> Result<u64> {
        self.call("dead_letter_large", self.link.dead_letter_large(ids, reason)).await
    }

    async fn has_any(&self) -> Result<bool> {
        self.call("has_any", self.link.has_any()).await
    }

    async fn peek(&self) -> Result<bool> {
        self.call("peek", self.link.peek()).await
    }

    async fn depth(&self) -> Result<i64> {
        self.call("depth", self.link.depth()).await
    }

    async fn counted(&self) -> Result<Option<i64>> {
        self.call("counted", self.link.counted()).await
    }
}

#[async_trait]
impl Books for Faulty {
    async fn schedule(&self, names: &[&str], reason: Reason) -> Result<()> {
        self.call("schedule", self.link.schedule(names, reason)).await
    }

    async fn schedule_sweep(&self, name: &str) -> Result<()> {
        self.call("schedule_sweep", self.link.schedule_sweep(name)).await
    }

    async fn restart_rebuilds(&self) -> Result<()> {
        self.call("restart_rebuilds", self.link.restart_rebuilds()).await
    }

    async fn cancel_rebuilds(&self) -> Result<()> {
        self.call("cancel_rebuilds", self.link.cancel_rebuilds()).await
    }

    async fn pending(&self) -> Result<Vec<Rebuild>> {
        self.call("pending", self.link.pending()).await
    }

    async fn rebuilding(&self) -> Result<u64> {
        self.call("rebuilding", self.link.rebuilding()).await
    }

    async fn record_rebuild(&self, rebuild: &Rebuild) -> Result<()> {
        self.call("record_rebuild", self.link.record_rebuild(rebuild)).await
    }

    async fn note_empty(&self, names: &[&str]) -> Result<()> {
        self.call("note_empty", self.link.note_empty(names)).await
    }

    async fn set_problem(&self, name: &str, problem: &str) -> Result<()> {
        self.call("set_problem", self.link.set_problem(name, problem)).await
    }

    async fn retain(&self, after: &Head, tokens: &[String], copied: &BTreeSet<String>, window: Duration) -> Result<()> {
        self.call("retain", self.link.retain(after, tokens, copied, window)).await
    }

    async fn retained(&self, epoch: &str) -> Result<Vec<RetainedStep>> {
        self.call("retained", self.link.retained(epoch)).await
    }

    async fn can_put_back(&self, epoch: &str, seq: i64) -> Result<bool> {
        self.call("can_put_back", self.link.can_put_back(epoch, seq)).await
    }

    async fn put_back(&self, epoch: &str, seq: i64) -> Result<u64> {
        self.call("put_back", self.link.put_back(epoch, seq)).await
    }

    async fn dead_letter(&self, letters: &[DeadLetter], known: &Supersedable) -> Result<()> {
        self.call("dead_letter", self.link.dead_letter(letters, known)).await
    }

    async fn supersede(&self, superseded: &Superseded) -> Result<u64> {
        self.call("supersede", self.link.supersede(superseded)).await
    }

    async fn supersedable(&self) -> Result<Supersedable> {
        self.call("supersedable", self.link.supersedable()).await
    }

    async fn letters_of(&self, table: &str) -> Result<Vec<Dead>> {
        self.call("letters_of", self.link.letters_of(table)).await
    }

    async fn comparison(&self, table: &str, ordering: &str) -> Result<Pass> {
        self.call("comparison", self.link.comparison(table, ordering)).await
    }

    async fn record_comparison(&self, table: &str, pass: &Pass, ordering: &str) -> Result<()> {
        self.call("record_comparison", self.link.record_comparison(table, pass, ordering)).await
    }

    async fn finish_comparison(&self, table: &str, pass: &Pass, seconds: Option<f64>) -> Result<()> {
        self.call("finish_comparison", self.link.finish_comparison(table, pass, seconds)).await
    }

    async fn forget_compared(&self) -> Result<()> {
        self.call("forget_compared", self.link.forget_compared()).await
    }

    async fn recorded_definitions(&self) -> Result<BTreeSet<String>> {
        self.call("recorded_definitions", self.link.recorded_definitions()).await
    }

    async fn record_definitions(&self, definitions: &DefinitionVersion) -> Result<Vec<Outgrown>> {
        self.call("record_definitions", self.link.record_definitions(definitions)).await
    }
}

#[async_trait]
impl Source for Faulty {
    async fn known(&self) -> Result<Known> {
        self.call("known", self.link.known()).await
    }

    async fn fingerprint(&self) -> Result<String> {
        self.call("fingerprint", self.link.fingerprint()).await
    }

    async fn drift(&self, replica: Option<&Inventory>) -> Result<Vec<Drift>> {
        self.call("drift", self.link.drift(replica)).await
    }

    async fn measure(&self, sources: &[&SourceTable]) -> Result<()> {
        self.call("measure", self.link.measure(sources)).await
    }

    async fn read<'a>(&'a self, source: &'a SourceTable, keys: &'a [MarkedKey], may_span: bool) -> Result<Reading<'a>> {
        self.call("read", self.link.read(source, keys, may_span)).await
    }

    async fn page<'a>(&'a self, source: &'a SourceTable, after: Option<&'a Cursor>, rows: i64) -> Result<Pages<'a>> {
        self.call("page", self.link.page(source, after, rows)).await
    }

    async fn next_place(&self, source: &SourceTable, after: Option<&Cursor>) -> Result<Option<Cursor>> {
        self.call("next_place", self.link.next_place(source, after)).await
    }

    async fn size(&self, source: &SourceTable) -> Result<Size> {
        self.call("size", self.link.size(source)).await
    }

    async fn is_empty(&self, source: &SourceTable) -> Result<bool> {
        self.call("is_empty", self.link.is_empty(source)).await
    }

    async fn absent(&self, source: &SourceTable, keys: &[Vec<String>]) -> Result<Vec<usize>> {
        self.call("absent", self.link.absent(source, keys)).await
    }

    async fn absent_by_text(&self, source: &SourceTable, keys: &[Vec<String>], filtered: bool) -> Result<Vec<usize>> {
        self.call("absent_by_text", self.link.absent_by_text(source, keys, filtered)).await
    }

    async fn try_key(&self, source: &SourceTable, key: &[String]) -> Result<()> {
        self.call("try_key", self.link.try_key(source, key)).await
    }
}
