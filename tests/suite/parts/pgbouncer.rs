//! Debian's pgbouncer in transaction pooling mode, with few server connections, so that a worker
//! that leans on session state is caught at it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgflume::demo::postgres::free_port;
use tempfile::TempDir;

use super::process::Process;

const POOL_SIZE: u8 = 4;

/// A pooler in front of one Postgres.
pub struct Pgbouncer {
    _process: Process,
    _directory: TempDir,
    port: u16,
}

impl Pgbouncer {
    /// Starts it in front of the server at `postgres_port`; every role and database may come in.
    pub fn start(postgres_port: u16) -> Pgbouncer {
        Self::pooling(postgres_port, "transaction")
    }

    /// The same in another mode.
    pub fn pooling(postgres_port: u16, mode: &str) -> Pgbouncer {
        // Not below TMPDIR: pgbouncer runs as another user, who may not be allowed there.
        let directory = tempfile::Builder::new().prefix("pgflume-pgbouncer-").tempdir_in("/tmp").expect("a directory");
        let port = free_port().expect("a free port");
        let (ini, users) = (directory.path().join("pgbouncer.ini"), directory.path().join("users.txt"));
        fs::write(&users, "\"postgres\" \"\"\n").expect("the list of users is written");
        fs::write(&ini, configuration(postgres_port, port, &users, mode)).expect("the configuration is written");
        let mut command = Command::new(binary());
        command.arg(&ini).current_dir(directory.path());
        run_as_somebody(&mut command, directory.path());
        let log = directory.path().join("pgbouncer.log");
        let mut process = Process::spawn(&mut command, &log, Some(directory.path()));
        process.wait_until("pgbouncer listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Pgbouncer { _process: process, _directory: directory, port }
    }

    /// Where to connect to `database` as the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1, for other roles.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn configuration(postgres_port: u16, port: u16, users: &Path, mode: &str) -> String {
    format!(
        "[databases]\n* = host=127.0.0.1 port={postgres_port}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         pool_mode = {mode}\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = 200\n\
         auth_type = trust\nauth_file = {}\nauth_user = postgres\n\
         ignore_startup_parameters = extra_float_digits\n\
         server_login_retry = 1\n",
        users.display()
    )
}

/// pgbouncer refuses to run as root.
fn run_as_somebody(command: &mut Command, directory: &Path) {
    if fs::metadata(directory).expect("our own directory").uid() != 0 {
        return;
    }
    let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("an OS user postgres");
    let ids: Vec<u32> = line.split(':').skip(2).take(2).filter_map(|id| id.parse().ok()).collect();
    chown(directory, Some(ids[0]), Some(ids[1])).expect("the directory changes hands");
    command.uid(ids[0]).gid(ids[1]);
}

fn binary() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = places.map(|place: PathBuf| place.join("pgbouncer")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no pgbouncer on PATH: run `make parts`"))
}
