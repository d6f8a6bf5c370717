//! Looks where a sync's replica is while somebody waits, whoever brought it there, and reads once for all what they wait for.
//! Others ask the replica here, a few at a time.

use super::answer::{Answer, Asked};
use super::board::{Board, Snapshot};
use super::limits::{LIMITS, Means};
use super::looking::look_at;
use super::memory::Memory;
use super::offset::Offset;
use super::walks::Walks;
use crate::core::error::Result;
use crate::core::schema::Table;
use crate::core::token::Seen;
use crate::replica::Replica;
pub use crate::replica::target::Target;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, Semaphore, watch};
use tokio::time::Instant;

/// How often the replica is looked at while somebody waits: another process may have brought it to a cut.
const LOOK: Duration = Duration::from_millis(200);

/// From then on what was last seen is too old to go on from: it is looked at anew.
const STALE: Duration = Duration::from_secs(2);

/// Questions that read the replica at once.
const READERS: usize = 4;

/// How long a question waits for others.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most transactions of clients that are waited for.
const MOST_WRITTEN: usize = 1_000;

/// One sync's.
pub struct Herald {
    target: Target,
    /// Its name in the replica.
    sync: String,
    /// What of the source the replica sees that this process has brought somewhere.
    brought: watch::Receiver<Option<Seen>>,
    /// Who wrote which transactions there that are not known to be in the replica.
    written: std::sync::Mutex<Vec<(String, i64)>>,
    boards: Vec<Arc<Board>>,
    /// Somebody began to wait.
    news: Notify,
    /// Looks only, so that no question holds it up.
    looking: Connection,
    reading: [Connection; READERS],
    readers: Semaphore,
    next: AtomicUsize,
    walks: Walks,
    means: Means,
}

/// A connection to the replica, which is opened when it is needed.
type Connection = Mutex<Option<Arc<Replica>>>;

impl Herald {
    /// Of these tables of a sync's replica; answers take of this memory. `brought` tells when this process has brought the
    /// replica somewhere.
    pub fn new(
        target: Target,
        sync: String,
        tables: &[Arc<Table>],
        memory: Memory,
        brought: watch::Receiver<Option<Seen>>,
    ) -> Self {
        Self {
            target,
            sync,
            brought,
            written: std::sync::Mutex::default(),
            boards: tables.iter().map(|table| Arc::new(Board::new(table.clone()))).collect(),
            news: Notify::new(),
            looking: Mutex::default(),
            reading: Default::default(),
            readers: Semaphore::new(READERS),
            next: AtomicUsize::default(),
            walks: Walks::default(),
            means: Means { limits: LIMITS, memory },
        }
    }

    /// What is known of its tables.
    pub fn boards(&self) -> &[Arc<Board>] {
        &self.boards
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.means.memory
    }

    /// Somebody waits from now on.
    pub(super) fn wake(&self) {
        self.news.notify_one();
    }

    /// Answers one request from the replica; what many ask for at once is read once.
    pub async fn ask(&self, asked: &Asked<'_>) -> Result<Answer> {
        let connection = &self.reading[self.next.fetch_add(1, Ordering::Relaxed) % READERS];
        let Some(replica) = self.replica(connection).await? else { return Ok(Answer::Unready) };
        // Before the replica is read: that sees as much.
        let seen = self.seen().filter(|_| asked.shape.table.writable.is_some());
        let state = match asked.offset {
            Offset::Start => replica.fed(&asked.shape.table).await?,
            _ => None,
        };
        let answering = async {
            let permit = tokio::time::timeout(PATIENCE, self.readers.acquire()).await;
            let Ok(Ok(_reader)) = permit else { return Ok(Answer::Busy) };
            asked.answer(&replica, &self.means).await
        };
        let answer = self.walks.share(asked, state.as_ref(), answering).await?;
        Ok(answer.seeing(seen.as_ref()))
    }

    fn seen(&self) -> Snapshot {
        self.brought.borrow().clone().map(Arc::new)
    }

    /// Somebody's transaction at the source is committed: whoever waits with such a token hears when it is there.
    pub fn wrote(&self, subject: &str, xid: i64) {
        let mut written = self.written();
        if written.len() >= MOST_WRITTEN {
            written.remove(0);
        }
        written.push((subject.to_owned(), xid));
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Vec<(String, i64)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replica's last cut, once this process has brought it to where it sees a transaction; `None` after so long.
    pub async fn arrival(&self, xid: i64, patience: Duration) -> Option<i64> {
        let mut brought = self.brought.clone();
        let sees = brought.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.sees(xid)));
        tokio::time::timeout(patience, sees).await.ok()?.ok()?;
        let replica = self.replica(&self.reading[0]).await.ok()??;
        replica.fed_cut(&self.sync).await.ok()?
    }

    /// A connection to the replica; `None` while it is not there.
    async fn replica(&self, connection: &Connection) -> Result<Option<Arc<Replica>>> {
        let mut known = connection.lock().await;
        if let Some(replica) = &*known {
            match replica.look().await {
                Ok(()) => return Ok(Some(replica.clone())),
                Err(e) => tracing::debug!(error = %e, "the replica is opened again"),
            }
        }
        *known = Replica::existing(&self.target).await?.map(Arc::new);
        Ok(known.clone())
    }

    /// Looks after the cuts for ever.
    pub async fn run(&self) {
        let mut brought = self.brought.clone();
        let mut looked_at = None;
        loop {
            if self.boards.iter().all(|board| board.counts().0 == 0) {
                self.news.notified().await;
            }
            if looked_at.is_none_or(|at: Instant| at.elapsed() > STALE) {
                self.boards.iter().for_each(|board| board.begin(None));
            }
            let looked = self.look().await;
            looked_at = looked.is_ok().then(Instant::now);
            if let Err(e) = looked {
                tracing::debug!(error = %e, "the replica does not tell where it is");
            }
            let brought = async {
                if brought.changed().await.is_err() {
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = brought => {}
                () = self.news.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&self) -> Result<()> {
        let seen = self.seen();
        let replica = self.replica(&self.looking).await?;
        for board in self.boards.iter().filter(|board| board.counts().0 > 0) {
            match &replica {
                Some(replica) => look_at(board, replica, seen.clone(), &self.means).await?,
                None => board.begin(None),
            }
        }
        self.tell_writers(seen.as_deref());
        Ok(())
    }

    fn tell_writers(&self, seen: Option<&Seen>) {
        let Some(seen) = seen else { return };
        let mut arrived = Vec::new();
        self.written().retain(|(subject, xid)| {
            let is_there = seen.sees(*xid);
            arrived.extend(is_there.then(|| subject.clone()));
            !is_there
        });
        for subject in arrived {
            self.boards.iter().for_each(|board| board.tell_writer(&subject));
        }
    }
}
