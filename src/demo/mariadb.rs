//! A private, throw-away MariaDB with a binlog of rows: on a socket that only its owner can reach, for `pgflume demo
//! --mysql`, or on a free port of 127.0.0.1, for tests.
//!
//! Takes further arguments of the server, gives a running one, and never touches a server that it did not start. It and
//! its directory go away with the [`MariaDb`], and also when the process that owns it dies without running `Drop` (a guard
//! process watches a pipe).

use super::postgres::free_port;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};
use tempfile::TempDir;

/// How long a start may take, on a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Enough of the server's log to show why it did not start.
const LOG_TAIL_LINES: usize = 40;
/// Ends server $1 and removes directory $2 when the pipe on its standard input closes.
const GUARD: &str = r#"read -r word; [ "$word" = done ] && exit 0
kill -9 "$1"; [ -z "$2" ] || rm -rf "$2""#;
/// What is always said to it.
const ARGUMENTS: [&str; 5] = [
    "--log-bin=b",
    "--binlog-format=ROW",
    "--server-id=7",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=64M",
];

/// Why there is no server; each message ends with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum MariaDbError {
    /// A program could not be run at all.
    #[error("cannot run {program}: {source}; install it (`apt-get install mariadb-server-core mariadb-client-core`)")]
    Run {
        /// Its name.
        program: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No directory, file or port could be had.
    #[error("cannot make room for a MariaDB: {0}; set TMPDIR to a writable directory")]
    Room(#[from] io::Error),
    /// It ran and failed.
    #[error("{what} failed: {output}; look at what it says")]
    Failed {
        /// Which step.
        what: &'static str,
        /// What was printed.
        output: String,
    },
}

/// A server.
#[derive(Debug)]
pub struct MariaDb {
    /// It, and who ends it when we die.
    running: Option<(Child, Child)>,
    directory: TempDir,
    /// None where it is on its socket alone.
    port: Option<u16>,
    arguments: Vec<String>,
}

impl MariaDb {
    /// Makes its files and starts it, with further arguments; `socket_only`: without TCP.
    ///
    /// # Errors
    /// When its programs are not there, or it does not start within a minute.
    pub fn start(arguments: &[&str], socket_only: bool) -> Result<Self, MariaDbError> {
        let private = fs::Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().prefix("pgflume-mariadb-").permissions(private).tempdir()?;
        let (data, scratch) = (directory.path().join("data"), directory.path().join("tmp"));
        // One that starts clears its folder of what others have put there.
        fs::create_dir(&scratch)?;
        let mut install = command("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", data.display())).arg(format!("--tmpdir={}", scratch.display()));
        install.args(user());
        let made = install.output().map_err(|source| MariaDbError::Run { program: "mariadb-install-db", source })?;
        if !made.status.success() {
            let output = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(MariaDbError::Failed { what: "mariadb-install-db", output });
        }
        let port = if socket_only { None } else { Some(free_port()?) };
        let arguments = arguments.iter().map(|&text| text.to_owned()).collect();
        let mut server = Self { running: None, directory, port, arguments };
        server.spawn()?;
        Ok(server)
    }

    /// Its port on 127.0.0.1; 0 where it has none.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(0)
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        let text = fs::read(self.log_file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some((mut server, mut guard)) = self.running.take() {
            // The guard first: once the server is reaped, its id may be another's.
            if let Some(mut stdin) = guard.stdin.take() {
                stdin.write_all(b"done\n").ok();
            }
            guard.wait().ok();
            server.kill().ok();
            server.wait().ok();
        }
    }

    /// Starts it again, on the same port and data.
    ///
    /// # Errors
    /// When it does not start within a minute.
    pub fn start_again(&mut self) -> Result<(), MariaDbError> {
        self.kill();
        self.spawn()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn spawn(&mut self) -> Result<(), MariaDbError> {
        let mut server = command("mariadbd");
        server.arg("--no-defaults").args(user());
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        for (option, name) in [("datadir", "data"), ("tmpdir", "tmp"), ("socket", "s"), ("pid-file", "pid")] {
            server.arg(format!("--{option}={}", path(name)));
        }
        match self.port {
            Some(port) => server.args(["--bind-address=127.0.0.1", &format!("--port={port}")]),
            None => server.arg("--skip-networking"),
        };
        server.args(ARGUMENTS).args(&self.arguments);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
        server.stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut child = server.spawn().map_err(|source| MariaDbError::Run { program: "mariadbd", source })?;
        let guard = spawn_guard(child.id(), self.directory.path());
        let guard = guard.inspect_err(|_| drop(child.kill()))?;
        self.running = Some((child, guard));
        let began = Instant::now();
        while !self.answers()? {
            let ended = self.running.as_mut().and_then(|(server, _)| server.try_wait().ok().flatten());
            if ended.is_some() || began.elapsed() > START_TIMEOUT {
                return Err(MariaDbError::Failed { what: "starting MariaDB", output: self.log() });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn answers(&self) -> Result<bool, MariaDbError> {
        let mut ask = command("mariadb");
        ask.args(["--no-defaults", "-u", "root", "-e", "select 1", "-S"]).arg(self.socket());
        let asked = ask.stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.map(|status| status.success()).map_err(|source| MariaDbError::Run { program: "mariadb", source })
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill(); // before its directory goes
    }
}

/// A program of MariaDB, which knows no secret of ours. Debian puts the server where only root's path leads.
fn command(program: &str) -> Command {
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let kept = ["TMPDIR", "HOME", "USER", "LD_LIBRARY_PATH"].into_iter();
    let mut command = Command::new(program);
    command.env_clear().envs(kept.filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.env("PATH", path).stdin(Stdio::null());
    command
}

fn spawn_guard(server: u32, directory: &Path) -> io::Result<Child> {
    let mut guard = Command::new("/bin/sh");
    guard.args(["-c", GUARD, "pgflume-guard", &server.to_string()]).arg(directory).process_group(0);
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Root has to say that root is meant.
fn user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("--user=root")
}
