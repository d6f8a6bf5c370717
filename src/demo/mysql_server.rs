//! A private, throw-away MariaDB or MySQL with a binlog of rows: on a socket that only its owner can reach, for `pgflume
//! demo --mysql`, or on a free port of 127.0.0.1, for tests.
//!
//! Takes further arguments of the server, gives a running one, and never touches a server that it did not start. It and
//! its directory go away with the [`MySqlServer`], and also when the process that owns it dies without running `Drop` (a
//! guard process watches a pipe).

use super::postgres::free_port;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
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
/// The same, to a MySQL alone: no second protocol, files from everywhere, as a MariaDB takes them, and no more of the
/// system's few asynchronous reads than it needs.
const MYSQL_ARGUMENTS: [&str; 3] = ["--mysqlx=OFF", "--secure-file-priv=", "--innodb-use-native-aio=OFF"];

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MariaDB's.
    MariaDb,
    /// Oracle's MySQL.
    MySql,
}

impl Kind {
    /// The one that is installed; MariaDB where both are, or none.
    pub fn installed() -> Self {
        match !is_installed(Self::MariaDb.server()) && is_installed(Self::MySql.server()) {
            true => Self::MySql,
            false => Self::MariaDb,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "MariaDB",
            Self::MySql => "MySQL",
        }
    }

    fn server(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadbd",
            Self::MySql => "mysqld",
        }
    }

    /// What makes its files in `data`.
    fn installing(self, data: &Path, scratch: &Path) -> (&'static str, Command) {
        let (program, arguments): (_, &[&str]) = match self {
            Self::MariaDb => {
                ("mariadb-install-db", &["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            }
            Self::MySql => (self.server(), &["--no-defaults", "--initialize-insecure", "--innodb-use-native-aio=OFF"]),
        };
        let mut command = command(program);
        command.args(arguments).args(user());
        command.arg(format!("--datadir={}", data.display())).arg(format!("--tmpdir={}", scratch.display()));
        (program, command)
    }
}

/// Why there is no server; each message ends with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum MySqlServerError {
    /// A program could not be run at all.
    #[error("cannot run {program}: {source}; install it (`apt-get install mariadb-server-core`)")]
    Run {
        /// Its name.
        program: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No directory, file or port could be had.
    #[error("cannot make room for a server: {0}; set TMPDIR to a writable directory")]
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
pub struct MySqlServer {
    kind: Kind,
    /// It, and who ends it when we die.
    running: Option<(Child, Child)>,
    directory: TempDir,
    /// None where it is on its socket alone.
    port: Option<u16>,
    arguments: Vec<String>,
}

impl MySqlServer {
    /// Makes its files and starts it, with further arguments; `socket_only`: without TCP.
    ///
    /// # Errors
    /// When its programs are not there, or it does not start within a minute.
    pub fn start(kind: Kind, arguments: &[&str], socket_only: bool) -> Result<Self, MySqlServerError> {
        let private = fs::Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().prefix("pgflume-mysql-").permissions(private).tempdir()?;
        let (data, scratch) = (directory.path().join("data"), directory.path().join("tmp"));
        // One that starts clears its folder of what others have put there.
        fs::create_dir(&scratch)?;
        let (program, mut install) = kind.installing(&data, &scratch);
        let made = install.output().map_err(|source| MySqlServerError::Run { program, source })?;
        if !made.status.success() {
            let output = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(MySqlServerError::Failed { what: program, output });
        }
        let port = if socket_only { None } else { Some(free_port()?) };
        let arguments = arguments.iter().map(|&text| text.to_owned()).collect();
        let mut server = Self { kind, running: None, directory, port, arguments };
        server.spawn()?;
        Ok(server)
    }

    /// Whose it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its port on 127.0.0.1; 0 where it has none.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(0)
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// Where its files are.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A further argument, from its next start on.
    pub fn add_argument(&mut self, argument: &str) {
        self.arguments.push(argument.to_owned());
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
    pub fn start_again(&mut self) -> Result<(), MySqlServerError> {
        self.kill();
        self.spawn()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn spawn(&mut self) -> Result<(), MySqlServerError> {
        let program = self.kind.server();
        let mut server = command(program);
        server.arg("--no-defaults").args(user());
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        for (option, name) in [("datadir", "data"), ("tmpdir", "tmp"), ("socket", "s"), ("pid-file", "pid")] {
            server.arg(format!("--{option}={}", path(name)));
        }
        match self.port {
            Some(port) => server.args(["--bind-address=127.0.0.1", &format!("--port={port}")]),
            None => server.arg("--skip-networking"),
        };
        server.args(ARGUMENTS);
        if self.kind == Kind::MySql {
            server.args(MYSQL_ARGUMENTS);
        }
        server.args(&self.arguments);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
        server.stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut child = server.spawn().map_err(|source| MySqlServerError::Run { program, source })?;
        let guard = spawn_guard(child.id(), self.directory.path());
        let guard = guard.inspect_err(|_| drop(child.kill()))?;
        self.running = Some((child, guard));
        let began = Instant::now();
        while !self.answers() {
            let ended = self.running.as_mut().and_then(|(server, _)| server.try_wait().ok().flatten());
            if ended.is_some() || began.elapsed() > START_TIMEOUT {
                return Err(MySqlServerError::Failed { what: "starting the server", output: self.log() });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether it greets whoever connects: the first packet is the tenth version of its protocol.
    fn answers(&self) -> bool {
        let greet = || -> io::Result<u8> {
            let mut stream = UnixStream::connect(self.socket())?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut packet = [0; 5];
            stream.read_exact(&mut packet)?;
            Ok(packet[4])
        };
        greet().is_ok_and(|first| first == 10)
    }
}

impl Drop for MySqlServer {
    fn drop(&mut self) {
        self.kill(); // before its directory goes
    }
}

/// Where programs are looked for: Debian puts servers where only root's path leads.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin");
    path
}

fn is_installed(program: &str) -> bool {
    std::env::split_paths(&path()).any(|directory| directory.join(program).is_file())
}

/// A program of the server's, which knows no secret of ours.
fn command(program: &str) -> Command {
    let kept = ["TMPDIR", "HOME", "USER", "LD_LIBRARY_PATH"].into_iter();
    let mut command = Command::new(program);
    command.env_clear().envs(kept.filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.env("PATH", path()).stdin(Stdio::null());
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
