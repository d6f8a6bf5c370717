//! A private, throw-away Postgres cluster: on a socket that only its owner can reach, for `pgflume demo`, or on a
//! free port of 127.0.0.1, for tests.
//!
//! Takes the settings the caller wants, gives a running server and its URL, and never touches a
//! cluster that it did not make. The server and its directory go away with the [`Cluster`], and
//! also when the process that owns it dies without running `Drop` (a guard process watches a
//! pipe). On a port anybody on this machine may log in: that is for tests only.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

/// How long a start or stop may take; recovery after a crash under load needs the most.
const PG_CTL_TIMEOUT_S: u32 = 120;
/// A port that was free a moment ago may be gone when the server binds it.
const PORT_ATTEMPTS: usize = 8;
/// Enough of the server's log to show why it did not start.
const LOG_TAIL_LINES: usize = 40;
/// A Unix socket's path may have 107 bytes; longer directories do without the socket.
const SOCKET_DIRECTORY_MAX_BYTES: usize = 80;
/// The number in the name of a socket that is alone in its directory.
const SOCKET_PORT: u16 = 5432;
/// What the server's programs see of our environment: secrets of the worker are none of their business.
const ENVIRONMENT: [&str; 5] = ["PATH", "LD_LIBRARY_PATH", "TMPDIR", "HOME", "USER"];
/// The OS user that runs the server when we are root, which Postgres refuses to run as.
const SERVER_USER: &str = "postgres";
/// Ends the cluster when the pipe on its standard input closes: $1 pg_ctl, $2 data, $3 directory.
const GUARD: &str = r#"read -r word; [ "$word" = keep ] && exit 0
"$1" stop -D "$2" -m immediate -w; rm -rf "$3""#;

/// What a cluster is made of.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// Where `initdb`, `pg_ctl` and `postgres` are; looked for when absent.
    pub bin_dir: Option<PathBuf>,
    /// Written to `postgresql.conf`, e.g. `("shared_preload_libraries", "pg_cron")`.
    pub settings: Vec<(String, String)>,
    /// No TCP: a socket in the cluster's own directory, which nobody but its owner (and root) can enter.
    pub socket_only: bool,
}

/// How to stop the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Roll open transactions back and write a checkpoint.
    Fast,
    /// As a crash: the next start recovers from the WAL.
    Immediate,
}

/// Why there is no cluster; each message ends with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No server binaries anywhere.
    #[error(
        "no PostgreSQL server binaries found (looked for initdb in {looked}); \
         install them (`apt-get install postgresql`) or set PG_BIN to their directory"
    )]
    NoBinaries {
        /// The places, for people.
        looked: String,
    },
    /// We are root and there is nobody to run the server as.
    #[error(
        "Postgres does not run as root and there is no OS user `postgres`; \
         create one (`useradd --system postgres`) or start pgflume as an ordinary user"
    )]
    NoServerUser,
    /// No directory could be made for it.
    #[error(
        "cannot make a directory for the cluster: {source}; set TMPDIR to a writable directory that all users may enter"
    )]
    Directory {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No port to listen on.
    #[error("no free port on 127.0.0.1: {source}; end programs that hold many ports")]
    NoPort {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program could not be run at all.
    #[error("cannot run {program}: {source}; check that user `postgres` may enter and execute it, or set PG_BIN")]
    Run {
        /// Its path.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `initdb` or `pg_ctl` ran and failed.
    #[error("{what} failed: {output}\n--- end of the server's log ---\n{log}\n---\n{remedy}")]
    Failed {
        /// Which step.
        what: &'static str,
        /// What the program printed.
        output: String,
        /// The end of the server's log.
        log: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// A running (or stopped, see [`Cluster::stop`]) private Postgres server.
#[derive(Debug)]
pub struct Cluster {
    bin_dir: PathBuf,
    directory: PathBuf,
    port: u16,
    socket_only: bool,
    user: Option<ServerUser>,
    guard: Option<Child>,
}

#[derive(Debug, Clone, Copy)]
struct ServerUser {
    uid: u32,
    gid: u32,
}

impl Cluster {
    /// Makes a new cluster and returns once it accepts connections.
    ///
    /// # Errors
    /// When binaries, user, directory or port are missing, or the server does not start.
    pub fn start(options: ClusterOptions) -> Result<Cluster, ClusterError> {
        let bin_dir = find_bin_dir(options.bin_dir.as_deref())?;
        let (directory, user) = make_directory(options.socket_only)?;
        let data = directory.path().join("data");
        let guard = spawn_guard(&bin_dir, &data, directory.path(), user)?;
        let socket_only = options.socket_only;
        let directory = directory.keep();
        let mut cluster = Cluster { bin_dir, directory, port: 0, socket_only, user, guard: Some(guard) };
        cluster.initdb()?;
        cluster.write_settings(&options.settings)?;
        match socket_only {
            true => cluster.start_on_its_socket()?,
            false => cluster.start_on_a_free_port()?,
        }
        Ok(cluster)
    }

    /// Where to connect to `database` as the superuser.
    pub fn url(&self, database: &str) -> String {
        if self.socket_only {
            let directory = self.directory.to_string_lossy().replace('\\', "\\\\").replace('\'', "\\'");
            return format!("host='{directory}' port={} user=postgres dbname={database}", self.port);
        }
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The TCP port on 127.0.0.1, or the number in the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The cluster's own directory: `data/` and `server.log` are in it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the server's programs are.
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// The last lines of the server's log.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Stops the server and waits until it is gone; the data stay.
    ///
    /// # Errors
    /// When it was not running or does not end in time.
    pub fn stop(&self, how: Stop) -> Result<(), ClusterError> {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        let output = self.pg_ctl(&["stop", "-m", mode])?;
        self.check("stopping Postgres", &output)
    }

    /// Starts a stopped server again, on the same port and data.
    ///
    /// # Errors
    /// When it is running already or does not start.
    pub fn start_again(&self) -> Result<(), ClusterError> {
        let output = self.start_server()?;
        self.check("starting Postgres", &output)
    }

    /// Leaves the server running after this process has ended; returns its directory.
    ///
    /// # Errors
    /// When the guard that would have ended it cannot be told.
    pub(crate) fn keep_running(mut self) -> Result<PathBuf, ClusterError> {
        let directory = self.directory.clone();
        if let Some(mut guard) = self.guard.take() {
            let told = match guard.stdin.take() {
                Some(mut stdin) => stdin.write_all(b"keep\n"),
                None => Ok(()),
            };
            told.and_then(|()| guard.wait())
                .map_err(|source| ClusterError::Run { program: "the cluster's guard".to_owned(), source })?;
        }
        Ok(directory)
    }

    fn initdb(&self) -> Result<(), ClusterError> {
        let mut command = self.program("initdb");
        // Trust on the socket means: whoever may enter its directory.
        let over_tcp = if self.socket_only { "--auth-host=reject" } else { "--auth-host=trust" };
        command.args(["--no-sync", "-E", "UTF8", "--locale=C", "--auth-local=trust", over_tcp, "-U", "postgres", "-D"]);
        command.arg(self.data());
        let output = run(&mut command)?;
        self.check("initdb", &output)
    }

    fn write_settings(&self, settings: &[(String, String)]) -> Result<(), ClusterError> {
        let mut text = String::from("\n# pgflume\nunix_socket_permissions = 0700\n");
        text.push_str(&setting("listen_addresses", if self.socket_only { "" } else { "127.0.0.1" }));
        let socket_directory = self.directory.to_string_lossy();
        let fits = socket_directory.len() <= SOCKET_DIRECTORY_MAX_BYTES;
        let socket_directory = if fits { &*socket_directory } else { "" };
        text.push_str(&setting("unix_socket_directories", socket_directory));
        for (name, value) in settings {
            text.push_str(&setting(name, value));
        }
        fs::OpenOptions::new()
            .append(true)
            .open(self.data().join("postgresql.conf"))
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| ClusterError::Directory { source })
    }

    fn start_on_its_socket(&mut self) -> Result<(), ClusterError> {
        self.port = SOCKET_PORT;
        let output = self.start_server()?;
        self.check("starting Postgres", &output)
    }

    fn start_on_a_free_port(&mut self) -> Result<(), ClusterError> {
        for attempt in 1.. {
            self.port = free_port().map_err(|source| ClusterError::NoPort { source })?;
            let output = self.start_server()?;
            let taken = !output.status.success() && self.log().contains("could not bind");
            if !taken || attempt == PORT_ATTEMPTS {
                return self.check("starting Postgres", &output);
            }
        }
        Ok(())
    }

    fn start_server(&self) -> Result<Output, ClusterError> {
        let log = self.log_file().to_string_lossy().into_owned();
        let port = format!("-p {}", self.port);
        self.pg_ctl(&["start", "-l", &log, "-o", &port])
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Result<Output, ClusterError> {
        let mut command = self.program("pg_ctl");
        command.args(arguments).arg("-w").arg("-t").arg(PG_CTL_TIMEOUT_S.to_string());
        run(command.arg("-D").arg(self.data()))
    }

    fn program(&self, name: &str) -> Command {
        server_command(&self.bin_dir.join(name), &self.directory, self.user)
    }

    fn check(&self, what: &'static str, output: &Output) -> Result<(), ClusterError> {
        if output.status.success() {
            return Ok(());
        }
        let mut text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        text.push('\n');
        text.push_str(String::from_utf8_lossy(&output.stderr).trim());
        Err(ClusterError::Failed {
            what,
            output: text.trim().to_owned(),
            log: self.log(),
            remedy: "fix what the last lines name (a missing library: install its package; \
                   no space or memory: free some), then start again",
        })
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where the server writes its log.
    pub fn log_file(&self) -> PathBuf {
        self.directory.join("server.log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(mut guard) = self.guard.take() else {
            return;
        };
        drop(guard.stdin.take());
        // Nobody is left to hear about a failure here: the server is gone or was never there.
        guard.wait().ok();
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// A port of 127.0.0.1 that nothing listens on, below the range that the system hands out to
/// outgoing connections: a client that keeps knocking while the server is down could otherwise
/// be given that very port, and connect to itself. One process is given each port once, so that
/// two of its parts that are about to listen never share one.
///
/// # Errors
/// When no such port was found.
pub fn free_port() -> io::Result<u16> {
    const LOWEST: u16 = 10_240;
    const TRIES: u16 = 64;
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(0_u8)));
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let highest = range.split_whitespace().next().and_then(|low| low.parse().ok());
    let highest = highest.filter(|low| *low > LOWEST + TRIES).unwrap_or(32_768);
    let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        let next = NEXT.fetch_add(1, Ordering::Relaxed) % u64::from(highest - LOWEST);
        let port = LOWEST + u16::try_from(next).unwrap_or(0);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// The directory of `initdb` and its siblings: the one given, `PG_BIN`, the newest that Debian
/// packages hold, `pg_config`'s, or one on `PATH`.
///
/// # Errors
/// When none has an `initdb`.
pub(crate) fn find_bin_dir(given: Option<&Path>) -> Result<PathBuf, ClusterError> {
    let chosen = given.map(Path::to_owned).or_else(|| std::env::var_os("PG_BIN").map(PathBuf::from));
    let candidates = match &chosen {
        Some(directory) => vec![directory.clone()],
        None => default_bin_dirs(),
    };
    // Resolved, because the server's user may not be allowed to walk through a link's directory.
    let found = candidates.iter().find(|directory| directory.join("initdb").is_file());
    match found.map(fs::canonicalize) {
        Some(Ok(directory)) => Ok(directory),
        _ => Err(ClusterError::NoBinaries {
            looked: match chosen {
                Some(directory) => directory.display().to_string(),
                None => "/usr/lib/postgresql/*/bin, pg_config --bindir, PATH".to_owned(),
            },
        }),
    }
}

fn default_bin_dirs() -> Vec<PathBuf> {
    let mut packaged: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    packaged.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut directories: Vec<PathBuf> = packaged.into_iter().map(|(_, path)| path).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        directories.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    directories.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    directories
}

/// A fresh directory that belongs to whoever will run the server, and that nobody else may enter. Its path is short
/// enough for a socket, where that is needed.
fn make_directory(for_socket: bool) -> Result<(TempDir, Option<ServerUser>), ClusterError> {
    let failed = |source| ClusterError::Directory { source };
    let mut directory = temp_dir_in(&std::env::temp_dir()).map_err(failed)?;
    if for_socket && directory.path().as_os_str().len() > SOCKET_DIRECTORY_MAX_BYTES {
        directory = temp_dir_in(Path::new("/tmp")).map_err(failed)?;
    }
    // A file just made belongs to the effective user: no system call of our own is needed.
    if fs::metadata(directory.path()).map_err(failed)?.uid() != 0 {
        return Ok((directory, None));
    }
    let user = server_user()?;
    let directory = match open_to_all(directory.path().parent()) {
        true => directory,
        false => temp_dir_in(Path::new("/tmp")).map_err(failed)?,
    };
    chown(directory.path(), Some(user.uid), Some(user.gid)).map_err(failed)?;
    Ok((directory, Some(user)))
}

fn temp_dir_in(parent: &Path) -> io::Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("pgflume-pg-").tempdir_in(fs::canonicalize(parent)?)?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700))?;
    Ok(directory)
}

/// Whether another user may reach `path` and remove its own directory there.
fn open_to_all(path: Option<&Path>) -> bool {
    let mode = |path: &Path| fs::metadata(path).map_or(0, |found| found.permissions().mode());
    path.is_some_and(|path| mode(path) & 0o002 != 0 && path.ancestors().all(|part| mode(part) & 0o001 != 0))
}

fn server_user() -> Result<ServerUser, ClusterError> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [SERVER_USER, _, uid, gid, ..] => Some(ServerUser { uid: uid.parse().ok()?, gid: gid.parse().ok()? }),
            _ => None,
        }
    });
    found.ok_or(ClusterError::NoServerUser)
}

/// A command as the server's user, in a directory that it may enter, with next to nothing of the caller's
/// environment. (`uid` also drops root's supplementary groups.)
fn server_command(program: &Path, directory: &Path, user: Option<ServerUser>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).env_clear().stdin(Stdio::null());
    command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.env("LC_ALL", "C");
    if let Some(ServerUser { uid, gid }) = user {
        command.uid(uid).gid(gid).env("HOME", directory).env("USER", SERVER_USER);
    }
    command
}

fn spawn_guard(bin_dir: &Path, data: &Path, directory: &Path, user: Option<ServerUser>) -> Result<Child, ClusterError> {
    let mut command = server_command(Path::new("/bin/sh"), Path::new("/"), user);
    command.args(["-c", GUARD, "pgflume-guard"]).arg(bin_dir.join("pg_ctl")).arg(data).arg(directory);
    // In a process group of its own: Ctrl-C on the terminal must not end it before its work.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|source| ClusterError::Run { program: "/bin/sh".to_owned(), source })
}

fn run(command: &mut Command) -> Result<Output, ClusterError> {
    command
        .output()
        .map_err(|source| ClusterError::Run { program: command.get_program().to_string_lossy().into_owned(), source })
}

fn setting(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
}
