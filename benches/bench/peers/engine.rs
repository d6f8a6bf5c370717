//! Who is measured, how each is started, and where its replica is.

use super::reader::Reader;
use super::source::Database;
use super::usage;
use crate::ground::Table;
use crate::parts::http;
use crate::parts::process::{Process, tail};
use pgflume::demo::postgres::free_port;
use rustix::process::{Pid, Signal, kill_process_group};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Triggers, a queue, a worker.
    Pgflume,
    /// A replication slot.
    ZeroCache,
    /// Runs.
    Dlt,
    /// Nobody: what the writes cost by themselves.
    Nobody,
}

/// Where what was installed is.
pub struct Installed {
    /// zero-cache, with the Node that it runs on.
    pub zero: PathBuf,
    /// A Python that has dlt.
    pub python: PathBuf,
}

impl Installed {
    pub fn find() -> Self {
        let place = |name: &str| {
            let place = std::env::var(name).map_err(|_| format!("{name} is not set: use `make bench-peers`"));
            PathBuf::from(place.unwrap())
        };
        Self { zero: place("ZERO_HOME"), python: place("DLT_PYTHON") }
    }

    /// The version of a package that zero-cache's directory has.
    pub fn version(&self, package: &str) -> String {
        let file = self.zero.join("node_modules").join(package).join("package.json");
        let text: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        text["version"].as_str().unwrap().to_owned()
    }
}

/// One at work, ended with its value.
pub struct Running {
    engine: Engine,
    /// None for dlt, which runs when it is asked to.
    process: Option<Process>,
    /// Processor seconds of its runs.
    pulled_s: f64,
    port: u16,
    directory: TempDir,
}

impl Engine {
    /// As tables and plots name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pgflume => "pgflume",
            Self::ZeroCache => "zero-cache",
            Self::Dlt => "dlt",
            Self::Nobody => "the writes alone",
        }
    }
}

impl Running {
    /// With an empty place for its replica.
    pub fn new(engine: Engine) -> Self {
        let (port, directory) = (free_port().unwrap(), tempfile::tempdir().unwrap());
        Self { engine, process: None, pulled_s: 0.0, port, directory }
    }

    /// Begins: whatever has to be made in Postgres, and the first copy.
    pub fn start(&mut self, installed: &Installed, database: &Database) {
        let (home, port) = (self.directory.path(), self.port);
        let mut command = match self.engine {
            Engine::Pgflume => pgflume(home, port, database),
            Engine::ZeroCache => zero_cache(home, port, installed, database),
            Engine::Dlt | Engine::Nobody => return,
        };
        self.process = Some(Process::spawn(&mut command, &self.log(), None));
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// The file.
    pub fn replica(&self) -> PathBuf {
        self.directory.path().join(match self.engine {
            Engine::Dlt => "dlt__copy.db",
            _ => "replica.db",
        })
    }

    /// Returns once it answers requests, and a change of `fresh` has come through.
    pub async fn is_following(&self, installed: &Installed, database: &Database) {
        let url = format!("http://127.0.0.1:{}/{}", self.port, self.health());
        while http::get_status(&url) != Some(200) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sql = "SELECT min(version) = 1 FROM fresh".to_owned();
        let reader = Reader::until(&installed.zero, &self.replica(), &[sql.clone(), sql]).await;
        database.client.batch_execute("update fresh set version = version + 1").await.unwrap();
        reader.found_ns().await;
    }

    fn health(&self) -> &'static str {
        if self.engine == Engine::Pgflume { "health" } else { "" }
    }

    /// One run of dlt, to its end; its process is told.
    pub async fn pull(&mut self, installed: &Installed, database: &Database, began: impl FnOnce(u32)) {
        let before = usage::ended_s();
        let mut command = dlt(&installed.python, &database.url, self.directory.path());
        let mut process = Process::spawn(&mut command, &self.log(), None);
        began(process.id());
        let ended = loop {
            if let Some(ended) = process.ended() {
                break ended;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(ended.success(), "dlt: {}", tail(&self.log()));
        self.pulled_s += usage::ended_s() - before;
    }

    /// What it and its children have taken of a processor.
    pub fn processor_s(&self) -> f64 {
        self.id().map_or(self.pulled_s, usage::processor_s)
    }

    /// Its first process.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Seconds that zero-cache's log gives to the first copy itself.
    pub fn logged_copy_s(&self) -> Option<f64> {
        let log = std::fs::read_to_string(self.log()).ok()?;
        let line = log.lines().find(|line| line.contains("Synced ") && line.contains("total: "))?;
        let (_, total) = line.split_once("total: ")?;
        Some(total.split(' ').next()?.parse::<f64>().ok()? / 1e3)
    }
}

impl Drop for Running {
    /// Its children have to go, too.
    fn drop(&mut self) {
        if let Some(group) = self.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

/// `pgflume setup`, then `serve --follow`, as one process: the first one's time stays with it.
fn pgflume(home: &Path, port: u16, database: &Database) -> Command {
    let fresh = r#""fresh":{"primaryKey":"id","columns":{"id":"INTEGER","version":"INTEGER"}}}"#;
    let schema = Table::Narrow.json().strip_suffix('}').unwrap().to_owned() + "," + fresh;
    std::fs::write(home.join("schema.json"), schema).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#""$0" setup && exec "$0" serve --follow"#, env!("CARGO_BIN_EXE_pgflume")]);
    command.current_dir(home).env("PGMQ_URL", &database.url).env("LIBSQL_URL", home.join("replica.db"));
    command.env("PORT", port.to_string()).env("WEBHOOK_SIGNATURE", "x".repeat(40)).env_remove("RUST_LOG");
    command
}

/// As it comes, with one process for clients in place of one a processor, and no word to its makers.
fn zero_cache(home: &Path, port: u16, installed: &Installed, database: &Database) -> Command {
    let programs = installed.zero.join("node_modules/.bin");
    let mut command = Command::new(programs.join("node"));
    command.arg(programs.join("zero-cache")).current_dir(home);
    command.env("ZERO_UPSTREAM_DB", &database.url).env("ZERO_REPLICA_FILE", home.join("replica.db"));
    command.env("ZERO_APP_PUBLICATIONS", "peers").env("ZERO_PORT", port.to_string());
    command.env("ZERO_NUM_SYNC_WORKERS", "1").env("ZERO_ADMIN_PASSWORD", "x".repeat(40));
    command.env("NODE_ENV", "production").env("ZERO_ENABLE_TELEMETRY", "false").env("DO_NOT_TRACK", "1");
    command
}

/// Its fastest way to read here, and keys in the replica, without which a merge reads it once for each row.
fn dlt(python: &Path, url: &str, home: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/dlt/pull.py"));
    command.arg(url).arg(home).args(["items", "at", "pyarrow"]);
    command.env("RUNTIME__DLTHUB_TELEMETRY", "false").env("RUNTIME__LOG_LEVEL", "ERROR");
    command
}
