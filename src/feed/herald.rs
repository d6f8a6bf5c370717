//! Looks where a sync's replica is while somebody waits, whoever brought it there, and reads once for all what they wait for.
//! Others ask the replica here, a few at a time.

use super::answer::{Answer, Asked};
use super::board::Board;
use super::body::Body;
use super::limits::Means;
use super::looking::look_at;
use super::memory::Memory;
use super::offset::Offset;
use super::shape::Shape;
use super::snapshot::Snapshot;
use super::walks::Walks;
use super::written::Written;
use crate::core::error::Result;
use crate::core::schema::Table;
use crate::core::token::Seen;
use crate::replica::Replica;
pub use crate::replica::freshness::Feeds;
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

/// Longest time that one question takes.
const MOST_TIME: Duration = Duration::from_secs(30);

/// One sync's.
pub struct Herald {
    target: Target,
    /// Its name in the replica.
    sync: String,
    /// What of the source the replica sees that this process has brought somewhere.
    brought: watch::Receiver<Option<Seen>>,
    /// Who wrote which transactions there.
    written: std::sync::Mutex<Written>,
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
    /// Of these tables of a sync's replica. `brought` tells when this process has brought the
    /// replica somewhere.
    pub fn new(
        target: Target,
        sync: Feeds<'_>,
        tables: &[Arc<Table>],
        means: Means,
        brought: watch::Receiver<Option<Seen>>,
    ) -> Self {
        let is_pulled = matches!(sync, Feeds::Pull(_));
        Self {
            target,
            sync: sync.name().to_owned(),
            brought,
            written: std::sync::Mutex::default(),
            boards: tables.iter().map(|table| Arc::new(Board::new(table.clone(), is_pulled))).collect(),
            news: Notify::new(),
            looking: Mutex::default(),
            reading: Default::default(),
            readers: Semaphore::new(READERS),
            next: AtomicUsize::default(),
            walks: Walks::default(),
            means,
        }
    }

    /// What is known of its tables.
    pub fn boards(&self) -> &[Arc<Board>] {
        &self.boards
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.means.memory
    }

    /// For the values by which those who wait are found.
    pub(super) fn room(&self) -> &Memory {
        &self.means.found
    }

    /// Somebody waits from now on.
    pub(super) fn wake(&self) {
        self.news.notify_one();
    }

    /// Answers one request from the replica; what many ask for at once is read once.
    pub async fn ask(&self, asked: &Asked<'_>) -> Result<Answer> {
        let Ok(Ok(_reader)) = tokio::time::timeout(PATIENCE, self.readers.acquire()).await else {
            return Ok(Answer::Busy);
        };
        // On the heap: whoever waits for news does not keep room for it.
        tokio::time::timeout(MOST_TIME, Box::pin(self.ask_now(asked))).await.unwrap_or(Ok(Answer::Busy))
    }

    async fn ask_now(&self, asked: &Asked<'_>) -> Result<Answer> {
        let connection = &self.reading[self.next.fetch_add(1, Ordering::Relaxed) % READERS];
        let Some(replica) = self.replica(connection).await? else { return Ok(Answer::Unready) };
        // Before the replica is read: that sees as much.
        let seen = self.seen().filter(|_| asked.shape.table.writable.is_some());
        let state = match asked.offset {
            Offset::Start => replica.fed(&asked.shape.table).await?,
            _ => None,
        };
        let answer = self.walks.share(asked, state.as_ref(), asked.answer(&replica, &self.means)).await?;
        Ok(answer.seeing(seen))
    }

    fn seen(&self) -> Snapshot {
        self.brought.borrow().clone().map(Arc::new)
    }

    /// Somebody's transaction at the source is committed: whoever waits with such a token hears when it is there.
    pub fn wrote(&self, subject: &str, xid: i64) {
        self.written().add(subject, xid);
    }

    /// Whether that is news to who has a token of this subject and a shape of this name, and is told of this snapshot.
    pub(super) fn is_news(&self, subject: &str, shape: &str, snapshot: &Seen) -> bool {
        self.written().is_news(subject, shape, snapshot)
    }

    /// Who has such a token, and such a shape, was answered that.
    pub fn answered(&self, subject: &str, shape: &Shape, body: &Body) {
        if let Some(snapshot) = &body.snapshot {
            self.is_news(subject, &shape.name(), snapshot);
        }
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
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
        let mut looked_at = Instant::now();
        loop {
            if self.is_alone() {
                // What was kept for the late is let go when nobody has been there for a while.
                let news = self.news.notified();
                if tokio::time::timeout(STALE, news).await.is_err() {
                    self.tidy();
                    if self.is_alone() {
                        self.news.notified().await;
                    }
                }
            }
            if looked_at.elapsed() > STALE {
                self.boards.iter().for_each(|board| board.begin(None));
            }
            if self.look().await {
                looked_at = Instant::now();
            }
            self.tidy();
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

    fn is_alone(&self) -> bool {
        !self.boards.iter().any(|board| board.is_waited_for())
    }

    fn tidy(&self) {
        self.boards.iter().for_each(|board| board.tidy());
        self.walks.tidy();
    }

    /// Whether all that somebody waits for was looked at.
    async fn look(&self) -> bool {
        let seen = self.seen();
        let replica = match self.replica(&self.looking).await {
            Ok(replica) => replica,
            Err(e) => {
                tracing::debug!(error = %e, "the replica does not tell where it is");
                return false;
            }
        };
        let mut is_done = true;
        for board in self.boards.iter().filter(|board| board.is_waited_for()) {
            let Some(replica) = &replica else {
                board.begin(None);
                continue;
            };
            // One that cannot be read holds up no other.
            if let Err(e) = look_at(board, replica, seen.clone(), &self.means).await {
                tracing::debug!(error = %e, table = board.table().name, "the replica does not tell where a table is");
                is_done = false;
            }
        }
        for subject in self.written().arrived(seen.as_deref()) {
            self.boards.iter().for_each(|board| board.tell_writer(&subject));
        }
        is_done
    }
}
