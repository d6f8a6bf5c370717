//! What is large, deep, long, wide or slow: it arrives, or becomes a dead letter that says why, in bounded
//! memory. `LIMITS_FULL=1` makes the long queue as long as it is documented.

mod json;
mod keys;
mod names;
mod pace;
mod queue;
mod rows;
mod wide;

use crate::support::{Home, Rig};
use pgflume::replica::target::Target;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a run of the real binary gave.
pub struct Run {
    pub output: Output,
    /// The most memory that it had.
    pub peak_mb: u64,
    pub took: Duration,
}

impl Run {
    /// Panics with its log unless it ended well.
    pub fn succeeded(self) -> Self {
        assert!(self.output.status.success(), "{}", self.log());
        self
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }
}

/// A directory with a `schema.json`.
pub fn directory_with(schema_json: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("schema.json"), schema_json).unwrap();
    directory
}

/// Runs the binary on a rig in `directory`, and watches its memory.
pub async fn run(rig: &Rig, directory: &Path, arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.args(arguments).env_clear().current_dir(directory).env("PGMQ_URL", rig.db.url());
    match rig.home.target() {
        Target::File(path) => command.env("LIBSQL_URL", path),
        Target::Remote { url, token } => {
            let token = token.map(|t| t.expose().to_owned()).unwrap_or_default();
            command.env("LIBSQL_URL", url).env("LIBSQL_AUTH_TOKEN", token)
        }
        Target::Given(_) => unreachable!(),
    };
    tokio::task::spawn_blocking(move || watched(command)).await.unwrap()
}

fn watched(mut command: Command) -> Run {
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status_file = format!("/proc/{}/status", child.id());
    let output = std::thread::spawn(move || child.wait_with_output().unwrap());
    let mut peak_mb = 0;
    while !output.is_finished() {
        peak_mb = peak_mb.max(high_water_mb(&status_file));
        std::thread::sleep(Duration::from_millis(2));
    }
    Run { output: output.join().unwrap(), peak_mb, took: started.elapsed() }
}

fn high_water_mb(status_file: &str) -> u64 {
    let status = std::fs::read_to_string(status_file).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Drains until the queue is empty and nothing is to be rebuilt; dead letters of all drains.
pub async fn drained(rig: &Rig) -> u64 {
    let mut dead = 0;
    loop {
        let done = rig.drain().await;
        dead += done.dead;
        if done.queued == 0 && done.rebuilding == 0 {
            return dead;
        }
    }
}

pub async fn assert_equal(rig: &Rig) {
    crate::snapshot::assert_equal(rig).await;
}

/// Whether large values have no bound of the server's.
pub fn is_file(rig: &Rig) -> bool {
    matches!(rig.home, Home::File(_))
}
