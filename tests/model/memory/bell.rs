//! The bell of the queue: the lock by which a writer sees whether the follower sleeps, and who is notified.

use super::engine::{Failure, Isolation, Lock, Session, Wait};
use super::link::{Connection, said};
use super::tables::Value;
use async_trait::async_trait;
use pgflume::core::error::Result;
use pgflume::postgres::link::{Bell, Doze, Queue as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Notify;

/// What the lock is on, in place of a number.
const LOCK: &str = "bell";

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
        while futures_util::FutureExt::now_or_never(self.rings.any.notified()).is_some() {}
        let looks_first = self.memory.postgres.listeners().looks_first.load(Ordering::Relaxed);
        let early = if looks_first { Some(self.peek().await?) } else { None };
        let is_alone = self.run("doze", self.hold()).await?;
        let is_any = match early {
            Some(is_any) => is_any,
            None => self.peek().await?,
        };
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
}
