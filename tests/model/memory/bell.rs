//! The bell of the queue: the lock by which a writer sees whether the follower sleeps, and who is notified.

use super::engine::{Failure, Isolation, Lock, Session, Wait};
use super::link::{Connection, said};
use super::tables::Value;
use async_trait::async_trait;
use pgflume::core::error::Result;
use pgflume::postgres::link::{Bell, Doze, Queue as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// What the lock is on, in place of a number.
const LOCK: &str = "bell";

/// The longest wait behind a writer. Much longer than that of the real one: what a look after it finds was lost.
const LONGEST_WAIT: Duration = Duration::from_secs(100_000);

/// A savepoint of the trigger: it does not fail where it does not get the lock.
const TRIAL: &str = "bell_trial";

/// What a connection was notified of.
#[derive(Default)]
pub struct Rings {
    last: Mutex<String>,
    any: Notify,
}

/// Who listens, and how the bell works.
#[derive(Default)]
pub struct Listeners {
    all: Mutex<Vec<Weak<Rings>>>,
    is_there: AtomicBool,
    looks_first: AtomicBool,
    counts_nobody: AtomicBool,
}

impl Listeners {
    /// There is a trigger that rings.
    pub fn install(&self) {
        self.is_there.store(true, Ordering::Relaxed);
    }

    /// Whoever falls asleep looks before it takes the lock, and not once more: wrong, for a test that sees it.
    pub fn look_first(&self) {
        self.looks_first.store(true, Ordering::Relaxed);
    }

    /// Whoever falls asleep behind a writer does so behind several: wrong, for a test that sees it.
    pub fn count_nobody(&self) {
        self.counts_nobody.store(true, Ordering::Relaxed);
    }

    /// Notifies all who listen.
    pub fn notify(&self, word: &str) {
        for rings in self.all.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            word.clone_into(&mut rings.last.lock().unwrap_or_else(PoisonError::into_inner));
            rings.any.notify_one();
        }
    }

    /// What the trigger does in a writer's transaction; whether it notifies at its commit.
    pub(super) async fn try_keep_awake(&self, writer: &Session<Value>) -> std::result::Result<bool, Failure> {
        if !self.is_there.load(Ordering::Relaxed) {
            return Ok(false);
        }
        writer.savepoint(TRIAL)?;
        match writer.lock_relation(LOCK, Lock::AccessShare, Wait::No).await {
            Ok(()) => writer.release(TRIAL).map(|()| false),
            Err(Failure::Locked) => writer.rollback_to(TRIAL).and_then(|()| writer.release(TRIAL)).map(|()| true),
            Err(failure) => Err(failure),
        }
    }
}

impl Connection {
    /// A look that comes too early, where a test wants it.
    async fn early_look(&self) -> Result<Option<bool>> {
        let looks_first = self.memory.postgres.listeners().looks_first.load(Ordering::Relaxed);
        Ok(if looks_first { Some(self.peek().await?) } else { None })
    }

    async fn look_unless(&self, early: Option<bool>) -> Result<bool> {
        match early {
            Some(is_any) => Ok(is_any),
            None => self.peek().await,
        }
    }

    fn hush(&self) {
        while futures_util::FutureExt::now_or_never(self.rings.any.notified()).is_some() {}
    }

    /// Whether one who waits, once he does, waits for one other only; not until he does, for some tries.
    async fn is_behind_one(&self, waiter: i32) -> Result<bool> {
        let postgres = &self.memory.postgres;
        for _ in 0..100 {
            let ahead = self.run("ahead_of", async { Ok(postgres.engine().ahead_of(waiter as u64)) }).await?;
            if ahead > 0 {
                return Ok(ahead == 1 || postgres.listeners().counts_nobody.load(Ordering::Relaxed));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(false)
    }

    async fn hold(&self) -> Result<bool> {
        let holder = self.memory.postgres.engine().session();
        holder.begin(Isolation::ReadCommitted).map_err(said)?;
        match holder.lock_relation(LOCK, Lock::AccessExclusive, Wait::No).await {
            Ok(()) => {
                *self.holder() = Some(holder);
                Ok(true)
            }
            Err(Failure::Locked) => Ok(false),
            Err(failure) => Err(said(failure)),
        }
    }
}

#[async_trait]
impl Bell for Connection {
    async fn listen(&self) -> Result<bool> {
        let listeners = self.memory.postgres.listeners();
        let listen = async {
            listeners.all.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&self.rings));
            Ok(listeners.is_there.load(Ordering::Relaxed))
        };
        self.run("listen", listen).await
    }

    async fn ring(&self, word: &str) -> Result<()> {
        self.run("ring", async {
            self.memory.postgres.listeners().notify(word);
            Ok(())
        })
        .await
    }

    async fn doze(&self) -> Result<Doze> {
        self.hush();
        let early = self.early_look().await?;
        let is_alone = self.run("doze", self.hold()).await?;
        let is_any = self.look_unless(early).await?;
        if is_alone && is_any {
            self.rouse();
        }
        Ok(match (is_any, is_alone) {
            (true, _) => Doze::Found,
            (false, true) => Doze::Asleep,
            (false, false) => Doze::Refused,
        })
    }

    async fn rung(&self) -> String {
        self.rings.any.notified().await;
        self.rings.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn rouse(&self) {
        if let Some(holder) = self.holder().take() {
            holder.rollback();
        }
    }
    async fn wait_behind(&self) -> Result<bool> {
        let waiting = async {
            match self.session.lock_relation(LOCK, Lock::AccessExclusive, Wait::For(LONGEST_WAIT)).await {
                Err(Failure::Locked) => Ok(false),
                waited => waited.map(|()| true).map_err(said),
            }
        };
        self.run("wait_behind", waiting).await
    }

    async fn waiter(&self) -> Result<Option<i32>> {
        self.run("waiter", async { Ok(Some(self.session.id() as i32)) }).await
    }

    async fn doze_behind(&self, waiter: i32) -> Result<Doze> {
        self.hush();
        let early = self.early_look().await?;
        let is_behind_one = self.is_behind_one(waiter).await?;
        Ok(match (self.look_unless(early).await?, is_behind_one) {
            (true, _) => Doze::Found,
            (false, true) => Doze::Asleep,
            (false, false) => Doze::Refused,
        })
    }

    /// One that is dropped waits no longer.
    fn call_off(&self, _waiter: i32) {}
}
