//! Tells those who wait that a sync's replica has come to a cut, whoever brought it there.

use crate::core::error::Result;
use crate::replica::Replica;
use crate::replica::target::Target;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, watch};

/// How often the replica is asked while somebody waits: another process may have brought it to a cut.
const LOOK: Duration = Duration::from_millis(200);

/// One sync's.
pub struct Herald {
    target: Target,
    /// Its name in the replica.
    sync: String,
    cut: watch::Sender<Option<i64>>,
    waiting: AtomicUsize,
    /// Somebody began to wait.
    news: Notify,
    replica: Mutex<Option<Arc<Replica>>>,
}

/// One who waits.
pub struct Waiting<'a> {
    herald: &'a Herald,
    cut: watch::Receiver<Option<i64>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.herald.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiting<'_> {
    /// Comes back when there is a cut that was not there when this was last called, or when waiting began.
    pub async fn news(&mut self) {
        if self.cut.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Herald {
    /// Of the sync of this name, whose replica is there.
    pub fn new(target: Target, sync: String) -> Self {
        let (cut, waiting) = (watch::Sender::default(), AtomicUsize::default());
        Self { target, sync, cut, waiting, news: Notify::new(), replica: Mutex::default() }
    }

    /// Begins to wait.
    pub fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting { herald: self, cut: self.cut.subscribe() };
        self.news.notify_one();
        waiting
    }

    /// A connection to the replica; `None` while it is not there.
    pub async fn replica(&self) -> Result<Option<Arc<Replica>>> {
        let known = self.replica.lock().await.clone();
        if let Some(replica) = known {
            match replica.look().await {
                Ok(()) => return Ok(Some(replica)),
                Err(e) => tracing::debug!(error = %e, "the replica is opened again"),
            }
        }
        let opened = Replica::existing(&self.target).await?.map(Arc::new);
        self.replica.lock().await.clone_from(&opened);
        Ok(opened)
    }

    /// Looks after the cuts for ever; `brought`: this process has brought the replica somewhere.
    pub async fn run<T>(&self, mut brought: watch::Receiver<T>) {
        loop {
            if self.waiting.load(Ordering::Relaxed) == 0 {
                self.news.notified().await;
            }
            match self.look().await {
                Ok(cut) => drop(self.cut.send_if_modified(|last| std::mem::replace(last, cut) != cut)),
                Err(e) => tracing::debug!(error = %e, "the replica does not tell where it is"),
            }
            let brought = async {
                if brought.changed().await.is_err() {
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = brought => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&self) -> Result<Option<i64>> {
        match self.replica().await? {
            Some(replica) => replica.fed_cut(&self.sync).await,
            None => Ok(None),
        }
    }
}
