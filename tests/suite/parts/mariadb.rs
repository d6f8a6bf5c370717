//! A real MariaDB with a binlog, started by whoever runs the tests.

use super::process::{Process, tail};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use pgflume::demo::postgres::free_port;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// One server.
pub struct MariaDb {
    process: Option<Process>,
    directory: TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl MariaDb {
    /// Makes its files and starts it, with further arguments.
    pub fn start(arguments: &[&str]) -> MariaDb {
        let directory = tempfile::Builder::new().prefix("pgflume-mariadb-").tempdir().expect("a directory for MariaDB");
        let (data, scratch) = (directory.path().join("data"), directory.path().join("tmp"));
        // One that starts clears its folder of what others have put there.
        std::fs::create_dir(&scratch).expect("a folder for what is temporary");
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", data.display())).arg(format!("--tmpdir={}", scratch.display()));
        install.args(user()).stdin(Stdio::null());
        let made = install.output().expect("mariadb-install-db runs; `make parts` installs it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = free_port().expect("a free port");
        let arguments = arguments.iter().map(|&text| text.to_owned()).collect();
        let mut server = MariaDb { process: None, directory, port, arguments };
        server.spawn();
        server
    }

    /// Its port, for a proxy in between.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again, on the same port and data.
    pub fn start_again(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// A connection as root.
    pub async fn connect(&self, database: Option<&str>) -> Conn {
        let options = OptsBuilder::default().socket(self.socket().to_str()).user(Some("root")).db_name(database);
        Conn::new(options).await.expect("MariaDB takes a connection")
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        tail(&self.log_file())
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn spawn(&mut self) {
        let mut command = Command::new("mariadbd");
        command.arg("--no-defaults").args(user());
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        command.args([
            format!("--datadir={}", path("data")),
            format!("--tmpdir={}", path("tmp")),
            format!("--socket={}", path("s")),
            format!("--pid-file={}", path("pid")),
            format!("--port={}", self.port),
        ]);
        command.args(["--bind-address=127.0.0.1", "--log-bin=b", "--binlog-format=ROW", "--server-id=7"]);
        command.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"]);
        command.args(&self.arguments);
        // Debian puts the server where only root's path leads.
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        let mut process = Process::spawn(&mut command, &self.log_file(), Some(self.directory.path()));
        let socket = self.socket();
        let is_ready = || {
            let mut ask = Command::new("mariadb");
            ask.args(["--no-defaults", "-u", "root", "-e", "select 1", "-S"]).arg(&socket);
            ask.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        process.wait_until("MariaDB is ready", is_ready);
        self.process = Some(process);
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill(); // before its directory goes
    }
}

/// Root has to say that root is meant.
fn user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("--user=root")
}
