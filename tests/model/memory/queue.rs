//! The queue's messages, as the seam asks for them.

use super::engine::{Failure, Key, Lock, Wait};
use super::link::{Connection, said};
use super::tables::{DEAD, KEPT, Kept, Letter, Message, QUEUE, number, numbered};
use async_trait::async_trait;
use pgflume::core::error::{Cause, Result};
use pgflume::core::message::{MarkedKey, mark_of};
use pgflume::core::position::Lsn;
use pgflume::postgres::link::{Queue, ReadsMessage};
use pgflume::postgres::queue::{Paused, TAKE_BYTES, Take, Taken, TakenMessages};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Keys of one message.
const MARKED_KEYS: usize = 500;

/// How long a look outside of a transaction waits for a lock.
const WAIT_OF_LOOK: Duration = Duration::from_secs(1);

/// An order that is none, and always the same one.
pub(super) fn shuffled(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

type Queued = (Key, Arc<Message>);

/// Whether a message may be taken.
fn is_free(message: &Message, paused: &Paused<'_>) -> bool {
    let Some(table) = message.table.as_deref() else { return true };
    !(message.has_version && paused.marks.contains(&table) || paused.images.contains(&table))
}

/// How many of the first messages are few enough bytes.
fn fitting(first: &[Queued]) -> usize {
    let mut before = 0;
    let fits = |(_, message): &&Queued| {
        let is_in = before < TAKE_BYTES;
        before += message.bytes();
        is_in
    };
    first.iter().take_while(fits).count()
}

impl Connection {
    /// Messages after an id that may be taken.
    fn free(&self, after: i64, paused: &Paused<'_>) -> Result<Vec<Queued>> {
        let mut messages = self.access().scan::<Message>(QUEUE).map_err(said)?;
        messages.retain(|(key, message)| number(key) > after && is_free(message, paused));
        Ok(messages)
    }

    async fn try_take(&self, take: &Take<'_>) -> Result<TakenMessages> {
        self.share(QUEUE).await?;
        let free = self.free(take.after, take.paused)?;
        let first = &free[..free.len().min(usize::try_from(take.limit).unwrap_or(0))];
        let is_large = |message: &Message| message.bytes() > take.most_bytes;
        let large = first.iter().filter(|(_, message)| is_large(message)).map(|(key, _)| number(key)).collect();
        let first = &first[..fitting(first)];
        let mut messages = Vec::with_capacity(first.len());
        for (key, message) in first {
            if self.access().delete(QUEUE, key).await.map_err(said)? {
                let text = message.text.clone().filter(|_| !is_large(message));
                messages.push(Taken { msg_id: number(key), text, is_damaged: false, age_seconds: 0.0 });
            }
        }
        if take.keeps {
            self.keep(&messages).await?;
        }
        if messages.is_empty() {
            return Ok(TakenMessages::default());
        }
        messages.sort_unstable_by_key(|message| shuffled(message.msg_id as u64));
        let flushed_to = Lsn(self.memory.postgres.engine().flushed());
        Ok(TakenMessages { has_more: first.len() < free.len(), flushed_to, messages, large })
    }

    /// Keeps messages with the position of the replica at which they are taken.
    async fn keep(&self, taken: &[Taken]) -> Result<()> {
        let Some(progress) = self.progress()?.filter(|_| !taken.is_empty()) else { return Ok(()) };
        let epoch = progress.epoch.clone().ok_or_else(|| self.raise("23502", Cause::Row))?;
        let messages = taken.iter().map(|message| (message.msg_id, message.text.clone())).collect();
        let (after_seq, after_token) = (progress.seq, progress.token.clone());
        self.insert_kept(Kept {
            epoch,
            after_seq,
            after_token,
            tokens: vec![],
            copied: vec![],
            messages,
            at: self.at(),
        })
        .await
    }

    pub(super) async fn insert_kept(&self, kept: Kept) -> Result<()> {
        let id = self.session.next("kept").map_err(said)?;
        self.access().put(KEPT, numbered(id), kept).await.map_err(said)
    }

    pub(super) async fn insert_letter(&self, letter: serde_json::Value) -> Result<()> {
        let id = self.session.next("dead").map_err(said)?;
        self.access().put(DEAD, numbered(id), Letter(letter)).await.map_err(said)
    }

    /// Puts a message behind all others.
    async fn enqueue(&self, text: String) -> Result<()> {
        let id = self.session.next(&self.memory.postgres.ids()).map_err(said)?;
        self.access().put(QUEUE, numbered(id), Message::new(Some(text))).await.map_err(said)
    }

    /// Puts a message in its place, if that is free; whether it was.
    pub(super) async fn put_in_place(&self, id: i64, text: Option<String>) -> Result<bool> {
        let key = numbered(id);
        if self.access().get::<Message>(QUEUE, &key).map_err(said)?.is_some() {
            return Ok(false);
        }
        self.access().put(QUEUE, key, Message::new(text)).await.map_err(said)?;
        Ok(true)
    }

    /// The last id that the queue gave out.
    pub(super) fn last_id(&self) -> i64 {
        self.memory.postgres.engine().last(&self.memory.postgres.ids()).max(1)
    }

    async fn bury(&self, ids: &[i64], reason: &str) -> Result<u64> {
        let mut buried = 0;
        for &id in ids {
            let Some(message) = self.access().locked::<Message>(QUEUE, &numbered(id)).await.map_err(said)? else {
                continue;
            };
            self.access().delete(QUEUE, &numbered(id)).await.map_err(said)?;
            let text = message.text.as_deref().unwrap_or("null");
            let text: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            let mut letter = json!({"reason": reason, "class": "message", "msg_id": id, "message": text});
            if let (Some(table), Some(letter)) = (&message.table, letter.as_object_mut()) {
                letter.insert("table".to_owned(), json!(table));
            }
            self.insert_letter(letter).await?;
            buried += 1;
        }
        Ok(buried)
    }

    /// The number of messages, where the queue can be looked at outside of a transaction.
    async fn count(&self) -> std::result::Result<usize, Failure> {
        self.session.lock_relation(QUEUE, Lock::AccessShare, Wait::For(WAIT_OF_LOOK)).await?;
        Ok(self.session.scan(QUEUE)?.len())
    }

    async fn try_count(&self) -> Result<Option<i64>> {
        match self.count().await {
            Err(Failure::Locked) => Ok(None),
            counted => counted.map(|messages| Some(messages as i64)).map_err(said),
        }
    }
}

#[async_trait]
impl Queue for Connection {
    async fn take(&self, take: Take<'_>, read: &mut ReadsMessage<'_>) -> Result<TakenMessages> {
        let taking = self.run("take", self.try_take(&take)).await?;
        taking.messages.iter().for_each(read);
        Ok(taking)
    }

    async fn acknowledge(&self, ids: &[i64], keeps: bool) -> Result<Vec<Taken>> {
        let acknowledge = async {
            let mut taken = Vec::new();
            for &msg_id in ids {
                let found = self.access().locked::<Message>(QUEUE, &numbered(msg_id)).await.map_err(said)?;
                let Some(message) = found else { continue };
                self.access().delete(QUEUE, &numbered(msg_id)).await.map_err(said)?;
                taken.push(Taken { msg_id, text: message.text.clone(), is_damaged: false, age_seconds: 0.0 });
            }
            if keeps {
                self.keep(&taken).await?;
            }
            taken.sort_unstable_by_key(|message| message.msg_id);
            Ok(taken)
        };
        self.run("acknowledge", acknowledge).await
    }

    async fn mark(&self, table: &str, keys: &[MarkedKey]) -> Result<i64> {
        let mark = async {
            for part in keys.chunks(MARKED_KEYS) {
                self.enqueue(mark_of(table, part)).await?;
            }
            Ok(keys.len().div_ceil(MARKED_KEYS) as i64)
        };
        self.run("mark", mark).await
    }

    async fn send_again(&self, messages: &[(Option<i64>, String)]) -> Result<()> {
        let last = self.last_id();
        for (id, text) in messages {
            let send = async {
                let is_put = match id.filter(|id| *id <= last) {
                    Some(id) => self.put_in_place(id, Some(text.clone())).await?,
                    None => false,
                };
                if is_put { Ok(()) } else { self.enqueue(text.clone()).await }
            };
            self.run("send_again", send).await?;
        }
        Ok(())
    }

    async fn dead_letter_large(&self, ids: &[i64], reason: &str) -> Result<u64> {
        self.run("dead_letter_large", self.bury(ids, reason)).await
    }

    async fn has_any(&self) -> Result<bool> {
        let look = async {
            self.share(QUEUE).await?;
            self.any(QUEUE)
        };
        self.run("has_any", look).await
    }

    async fn peek(&self) -> Result<bool> {
        let count = async { Ok(self.count().await) };
        self.run("peek", count).await?.map(|messages| messages > 0).map_err(said)
    }

    async fn depth(&self) -> Result<i64> {
        // An estimate of what cannot be looked at.
        Ok(self.run("depth", self.try_count()).await?.unwrap_or(1))
    }

    async fn counted(&self) -> Result<Option<i64>> {
        self.run("counted", self.try_count()).await
    }
}
