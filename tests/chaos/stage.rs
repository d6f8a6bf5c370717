//! The parts of one run: Postgres with fsync on, the replica (a file, or sqld behind the proxy), the workers.

use crate::parts::{Sqld, SqldOptions};
use crate::plan::Path;
use crate::proxy::Proxy;
use crate::report::Tally;
use crate::workers::{Binary, Workers, replica_file};
use pgflume::core::queue_name::DEFAULT_QUEUE;
use pgflume::core::secret::Secret;
use pgflume::demo::postgres::{Cluster, ClusterOptions};
use pgflume::postgres::PgUrl;
use pgflume::replica::Store;
use pgflume::replica::local::Local;
use pgflume::replica::remote::Remote;
use pgflume::replica::target::Target;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio_postgres::Client;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The definition of the replicated tables.
pub const SCHEMA: &str = include_str!("application.json");
const TABLES: &str = include_str!("application.sql");
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// What is on stage.
pub struct Stage {
    pub workers: Arc<Workers>,
    pub cluster: Arc<Cluster>,
    pub sqld: Option<Mutex<Sqld>>,
    pub proxy: Option<Proxy>,
    pub target: Target,
    pub tally: Tally,
    /// While set, no transaction of the application waits for the disk, and cron is quiet (a note that a caller
    /// leaves would flush the log): a crash then loses what others could already see.
    pub hasty: AtomicBool,
    /// Comparisons under way: they need a gap between the drains of others.
    pub comparing: AtomicUsize,
    pub era: Era,
    directory: Option<TempDir>,
}

/// How often an older copy of the replica was put back. Nobody looks while it is copied or put back.
#[derive(Default)]
pub struct Era {
    number: AtomicU64,
    is_closed: AtomicBool,
    /// Readers that have let go of the replica.
    parked: AtomicUsize,
}

impl Era {
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    pub fn parked(&self) -> usize {
        self.parked.load(Ordering::SeqCst)
    }

    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    pub fn reopen(&self) {
        self.is_closed.store(false, Ordering::SeqCst);
    }

    /// Another begins: versions may go back, this once.
    pub fn begin(&self) {
        self.number.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until it is open again.
    pub async fn park(&self) {
        self.parked.fetch_add(1, Ordering::SeqCst);
        while self.is_closed() {
            tokio::time::sleep(POLL).await;
        }
        self.parked.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Stage {
    pub async fn set(path: Path, seed: u64) -> Result<Arc<Self>, Failure> {
        let tally = Tally::default();
        let directory = tempfile::Builder::new().prefix("pgflume-chaos-").tempdir()?;
        std::fs::write(directory.path().join("schema.json"), SCHEMA)?;
        let (sqld, proxy, target) = match path {
            Path::File => (None, None, Target::File(replica_file(directory.path()))),
            Path::Sqld => {
                let sqld = tokio::task::spawn_blocking(|| Sqld::start(SqldOptions::default())).await?;
                let proxy = Proxy::start(&sqld.url(), seed, tally.clone()).await?;
                let target = Target::Remote { url: sqld.url(), token: Some(Secret::new(sqld.token_rw())) };
                (Some(Mutex::new(sqld)), Some(proxy), target)
            }
        };
        let cluster = Arc::new(tokio::task::spawn_blocking(|| Cluster::start(options())).await??);
        let (libsql, token) = match (&target, &proxy) {
            (Target::Remote { token, .. }, Some(proxy)) => (proxy.url(), token.as_ref().map(|t| t.expose().to_owned())),
            _ => (format!("file:{}", replica_file(directory.path()).display()), None),
        };
        let binary = Binary {
            postgres: cluster.url("postgres"),
            libsql,
            token,
            directory: directory.path().to_owned(),
            keeps: Arc::default(),
            ends: Arc::default(),
        };
        let workers = Workers::new(binary, seed)?;
        let stage = Self {
            workers,
            cluster,
            sqld,
            proxy,
            target,
            tally,
            hasty: AtomicBool::new(false),
            comparing: AtomicUsize::new(0),
            era: Era::default(),
            directory: Some(directory),
        };
        stage.prepare().await?;
        Ok(Arc::new(stage))
    }

    async fn prepare(&self) -> Result<(), Failure> {
        self.connect().await?.batch_execute(TABLES).await?;
        let (code, said) = self.workers.binary().run(&["setup"], None, SETUP_TIMEOUT).await;
        if code == Some(0) { Ok(()) } else { Err(format!("pgflume setup failed: {said}").into()) }
    }

    /// A connection to Postgres.
    pub async fn connect(&self) -> Result<Client, Failure> {
        let url = self.cluster.url("postgres?application_name=application");
        Ok(PgUrl::parse(&url)?.connect().await?)
    }

    /// A plain connection to the replica, past the proxy.
    pub async fn replica(&self) -> Result<Box<dyn Store>, Failure> {
        Ok(match &self.target {
            Target::File(path) => Box::new(Local::open(path).await?),
            Target::Remote { url, token } => Box::new(Remote::new(url, token.clone())?),
            Target::Given(given) => given.open().await?,
        })
    }

    /// Stops all programs; where the logs and the replica are, if they are to be `kept`.
    pub fn strike(mut self, kept: bool) -> Option<PathBuf> {
        self.workers.end();
        let directory = self.directory.take()?;
        if !kept {
            return None;
        }
        let directory = directory.keep();
        std::fs::copy(self.cluster.directory().join("server.log"), directory.join("postgres.log")).ok();
        if let Some(sqld) = &self.sqld {
            let sqld = sqld.lock().unwrap_or_else(PoisonError::into_inner);
            let log = sqld.directory().with_file_name("sqld.log");
            std::fs::copy(log, directory.join("sqld.log")).ok();
        }
        Some(directory)
    }
}

/// The queue's table.
pub fn queue_table() -> String {
    format!("pgmq.q_{DEFAULT_QUEUE}")
}

/// fsync is on, as it is by default. What is committed asynchronously stays long enough in memory to be lost.
fn options() -> ClusterOptions {
    let settings = [
        ("wal_writer_delay", "10s"),
        ("wal_writer_flush_after", "1GB"),
        ("wal_buffers", "16MB"),
        ("max_connections", "100"),
        ("max_locks_per_transaction", "1000"),
        ("deadlock_timeout", "200ms"),
        ("recovery_init_sync_method", "syncfs"),
    ];
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    ClusterOptions { settings, ..ClusterOptions::default() }
}
