//! A program of a client, on Node.

use crate::parts::process::{Process, tail};
use crate::support::until;
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// It prints its rows. Killed when dropped.
pub struct Client {
    process: Process,
    folder: TempDir,
}

impl Client {
    /// A program of this folder, with the packages of the feed's tests.
    pub async fn start(program: &str, arguments: &[&str]) -> Self {
        Self::of("feed", &here().join(program), arguments, &[]).await
    }

    /// A program with these packages.
    pub async fn of(packages: &'static str, program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = beside(packages, program.parent().unwrap()).await;
        Self::run(folder, program.file_name().unwrap().as_ref(), arguments, variables)
    }

    /// The first of these programs, with what is installed by this name.
    pub async fn start_of(packages: &'static str, programs: &[(&str, String)], arguments: &[&str]) -> Self {
        let folder = with(packages).await;
        for (name, text) in programs {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self::run(folder, programs[0].0.as_ref(), arguments, &[])
    }

    fn run(folder: TempDir, program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new("node");
        command.arg(folder.path().join(program)).args(arguments).envs(variables.iter().copied());
        let process = Process::spawn(&mut command, &folder.path().join("log"), None);
        Self { process, folder }
    }

    /// Has a program that reads its commands do this.
    pub fn command(&self, command: &Value) {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(self.folder.path().join("commands"));
        writeln!(file.unwrap(), "{command}").unwrap();
    }

    fn log(&self) -> String {
        tail(&self.folder.path().join("log"))
    }

    /// What it printed last.
    pub fn said(&self) -> Option<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).next_back()
    }

    /// Waits until it prints something, and gives it.
    pub async fn says(&mut self) -> Value {
        let said = until("it says something", async || {
            assert!(self.process.ended().is_none(), "it ended: {}", self.log());
            self.said().is_some()
        });
        let said = tokio::time::timeout(PATIENCE, said).await;
        assert!(said.is_ok(), "{}", self.log());
        self.said().unwrap()
    }

    /// Waits until it prints these rows.
    pub async fn shows(&mut self, rows: Value) {
        let what = format!("a client shows {rows}");
        let shown = until(&what, async || {
            assert!(self.process.ended().is_none(), "{what}: it ended: {}", self.log());
            self.said().as_ref() == Some(&rows)
        });
        let shown = tokio::time::timeout(PATIENCE, shown).await;
        assert!(shown.is_ok(), "{what}: {}", self.log());
    }

    /// Waits until it has ended well, and gives what it printed last.
    pub async fn ends(mut self) -> Value {
        let ended = until("it ends", async || self.process.ended().is_some());
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        assert!(ended.is_ok() && self.process.ended().is_some_and(|status| status.success()), "{}", self.log());
        self.said().unwrap_or_else(|| panic!("{}", self.log()))
    }
}

/// Where the programs of these tests are.
pub fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/suite/feed")
}

/// A folder with the programs of this one, and with packages: modules are looked for where a program lies.
pub async fn beside(packages: &'static str, programs: &Path) -> TempDir {
    let folder = with(packages).await;
    for file in std::fs::read_dir(programs).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|e| e == "mjs" || e == "js" || e == "html" || e == "json") {
            std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    folder
}

/// A folder with packages.
async fn with(packages: &'static str) -> TempDir {
    let parts = crate::examples::installed(packages).await;
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(parts.join("node_modules"), folder.path().join("node_modules")).unwrap();
    folder
}
