//! A local libSQL file: prepared statements in one transaction, on a blocking thread.
//! `synchronous=FULL`, because NORMAL may lose what was acknowledged when the machine stops.

use super::engine::{self, classify};
use super::sqlite::{self, Connection, Failure};
use super::store::{Rows, Statement, Store, Work};
use crate::core::error::{Error, Result};
use async_trait::async_trait;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Mutex;

/// How long to wait for another process that holds the file's write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a question, which may have to go through a table.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for a batch: less than a step has in all.
const WRITE_TIMEOUT: Duration = Duration::from_secs(240);

/// The same for tables and indexes that are made, copied or dropped.
const LONG_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// To what size the log is cut after a checkpoint: one large transaction leaves nothing behind.
const LOG_BYTES: usize = 64 * 1024 * 1024;

/// A new replica is its owner's alone, and so are its log and its index: SQLite gives them the file's mode.
const NEW_FILE_MODE: u32 = 0o600;

/// A libSQL file. SQLite waits for the disk and for others, so it is opened, used and closed on blocking threads.
pub struct Local {
    /// There until it is dropped.
    connection: Option<Arc<Mutex<Connection>>>,
    file: Arc<File>,
}

/// Where the file was removed and its log was not, SQLite would read the old log into the new file.
fn forget_log_without_file(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    for ending in ["-wal", "-shm"] {
        let mut log = path.as_os_str().to_owned();
        log.push(ending);
        match std::fs::remove_file(log) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// One opens at a time, so that no new file is locked before its maker has closed it.
static OPENING: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// The file that was opened.
struct File {
    path: PathBuf,
    /// Device and number.
    identity: (u64, u64),
}

impl File {
    fn opened(path: &Path) -> Result<Self> {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let identity = identity(&absolute).ok_or_else(replaced)?;
        Ok(Self { path: absolute, identity })
    }

    /// What is written into a file that has no name any more is lost.
    fn check(&self) -> Result<()> {
        if identity(&self.path) == Some(self.identity) { Ok(()) } else { Err(replaced()) }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

fn replaced() -> Error {
    Error::unknown(
        "the replica's file was removed or replaced: nothing more is written to the old one, and what is there now is looked at",
    )
}

impl Local {
    /// Opens the file, or creates it.
    pub async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        blocking(move || Self::opened(&path, sqlite::CREATE)).await
    }

    /// Opens the file as it is, for whoever wants to look at it; `None` if it is not there and could be made.
    ///
    /// Nothing but SQLite may open and close the file: closing any descriptor of it drops all locks that this process
    /// has on it (POSIX), and the next process to close it would take the log away from under a worker that writes.
    pub(crate) async fn open_existing(path: &Path) -> Result<Option<Self>> {
        let path = path.to_owned();
        blocking(move || match rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).map_err(std::io::Error::from) {
            Ok(()) => Self::opened(&path, sqlite::EXISTING).map(Some),
            Err(e) if e.kind() == ErrorKind::NotFound && directory(&path).is_dir() => Ok(None),
            Err(e) => Err(unopened(&path, e)),
        })
        .await
    }

    fn opened(path: &Path, flags: i32) -> Result<Self> {
        let _alone = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let remedy = |e: Failure| match e.code & 0xff {
            5 | 6 => classify(e), // somebody else opens or writes it at this moment
            _ => unopened(path, e),
        };
        let mut pragmas = vec!["synchronous = FULL".to_owned(), "foreign_keys = OFF".to_owned()];
        if flags == sqlite::CREATE {
            forget_log_without_file(path).and_then(|()| create(path)).map_err(|e| unopened(path, e))?;
            pragmas.insert(0, "journal_mode = WAL".to_owned());
            pragmas.push(format!("journal_size_limit = {LOG_BYTES}"));
        }
        let connection = Connection::open(path, flags).map_err(remedy)?;
        connection.wait_for_locks(BUSY_TIMEOUT);
        for pragma in pragmas {
            connection.run(&format!("PRAGMA {pragma}"), &[]).map_err(remedy)?;
        }
        Ok(Self { connection: Some(Arc::new(Mutex::new(connection))), file: Arc::new(File::opened(path)?) })
    }

    /// Runs `work` with the connection on a blocking thread, which goes on where a disk that hangs is given up.
    async fn run<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(connection) = self.connection.clone() else {
            return Err(Error::unknown("the replica is closed"));
        };
        let file = self.file.clone();
        let done = async {
            let connection = connection.lock_owned().await;
            blocking(move || file.check().and_then(|()| work(&connection))).await
        };
        tokio::time::timeout(patience, done).await.unwrap_or_else(|_| Err(hanging(patience)))
    }
}

fn hanging(patience: Duration) -> Error {
    let seconds = patience.as_secs();
    Error::unknown(format!("the replica's file does not answer within {seconds} s: does its disk hang?"))
}

impl Drop for Local {
    /// Closing writes a checkpoint: other tasks of this thread go on elsewhere, and whoever comes after finds the
    /// file whole.
    fn drop(&mut self) {
        let connection = self.connection.take();
        if self.file.check().is_err() {
            // SQLite would remove the log by its name, which is that of another file's by now.
            return std::mem::forget(connection);
        }
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        match flavor {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(move || drop(connection)),
            _ => drop(connection),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::unknown(format!("the replica's thread ended: {e}")))?
}

/// Makes the file where it is missing, before SQLite does with rights of its own. A stricter umask holds. It is closed
/// before anybody of this process can have a lock on it.
fn create(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(NEW_FILE_MODE).open(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unopened(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::side(format!(
        "the replica {} cannot be opened ({why}): check the path and its rights in LIBSQL_URL",
        path.display()
    ))
}

#[async_trait]
impl Store for Local {
    async fn query(&self, statement: Statement) -> Result<Rows> {
        self.run(QUERY_TIMEOUT, move |connection| engine::query(connection, &statement)).await
    }

    async fn read(&self, statement: Statement) -> Result<Rows> {
        self.query(statement).await
    }

    async fn read_together(&self, statements: Vec<Statement>) -> Result<Vec<Rows>> {
        self.run(QUERY_TIMEOUT, move |connection| engine::read_together(connection, &statements)).await
    }

    async fn look(&self) -> Result<()> {
        self.run(QUERY_TIMEOUT, |_| Ok(())).await
    }

    async fn write(&self, work: Work) -> Result<()> {
        let patience = if work.is_long { LONG_TIMEOUT } else { WRITE_TIMEOUT };
        self.run(patience, move |connection| engine::write(connection, &work)).await
    }
}
