//! The real libSQL server, with JWT authentication, its admin API, and read replicas.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgflume::demo::postgres::free_port;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use tempfile::TempDir;

use super::http::{self, Answer};
use super::process::{Process, tail};

const ADMIN_KEY: &str = "the-suite-s-admin-key";
const HOUR_S: i64 = 3_600;

/// How the server is started.
#[derive(Debug, Clone)]
pub struct SqldOptions {
    /// Ask for a token on everything but `/health` and `/version`.
    pub auth: bool,
    /// Further command line arguments.
    pub arguments: Vec<String>,
}

impl Default for SqldOptions {
    fn default() -> SqldOptions {
        SqldOptions { auth: true, arguments: Vec::new() }
    }
}

/// Whoever has the key makes tokens; servers have the half of it that checks them.
#[derive(Clone)]
pub struct Tokens {
    key: Vec<u8>,
}

impl Tokens {
    /// Of a key of their own.
    pub fn new() -> Tokens {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("an Ed25519 key");
        Tokens { key: key.as_ref().to_vec() }
    }

    /// Writes what a server checks them by.
    pub fn write_key(&self, file: &Path) {
        let public = URL_SAFE_NO_PAD.encode(self.key_pair().public_key());
        std::fs::write(file, public).expect("the key file is written");
    }

    /// A token that may read and write.
    pub fn rw(&self) -> String {
        self.token("rw", HOUR_S)
    }

    /// A token that may only read.
    pub fn ro(&self) -> String {
        self.token("ro", HOUR_S)
    }

    /// A token whose time was over an hour ago.
    pub fn expired(&self) -> String {
        self.token("rw", -HOUR_S)
    }

    fn token(&self, access: &str, expires_in_s: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let expires = i64::try_from(now).unwrap_or(i64::MAX) + expires_in_s;
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"JWT"}"#);
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"a":"{access}","exp":{expires}}}"#));
        let signed = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(self.key_pair().sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn key_pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_pkcs8(&self.key).expect("our own key")
    }
}

/// One sqld, a primary or a read replica.
pub struct Sqld {
    process: Option<Process>,
    directory: TempDir,
    options: SqldOptions,
    tokens: Tokens,
    ports: Ports,
    primary_grpc_port: Option<u16>,
}

struct Ports {
    http: u16,
    grpc: u16,
    admin: u16,
}

impl Sqld {
    /// Starts a primary and returns once it is healthy.
    pub fn start(options: SqldOptions) -> Sqld {
        Sqld::start_with(options, Tokens::new(), None)
    }

    /// Starts a read replica of `self`; it takes the same tokens.
    pub fn start_replica(&self) -> Sqld {
        Sqld::start_with(self.options.clone(), self.tokens.clone(), Some(self.ports.grpc))
    }

    /// Where to send requests.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    /// The port of [`Sqld::url`], for a proxy in between.
    pub fn port(&self) -> u16 {
        self.ports.http
    }

    /// Its process id, e.g. to stop and continue it.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// The data directory.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A token that may read and write.
    pub fn token_rw(&self) -> String {
        self.tokens.rw()
    }

    /// A token that may only read.
    pub fn token_ro(&self) -> String {
        self.tokens.ro()
    }

    /// A token whose time was over an hour ago.
    pub fn token_expired(&self) -> String {
        self.tokens.expired()
    }

    /// SIGKILL: as when the machine dies.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again after [`Sqld::kill`], on the same ports and data.
    pub fn start_again(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Makes the server refuse writes (error code `BLOCKED`), or take them again.
    pub fn block_writes(&self, block: bool) {
        self.configure(&format!(r#"{{"block_reads":false,"block_writes":{block}}}"#));
    }

    /// Replaces the whole configuration of the database through the admin API, e.g.
    /// `{"block_reads":false,"block_writes":false,"max_db_size":"1 MB"}`.
    pub fn configure(&self, json: &str) {
        let answer = self.admin("POST", "/v1/namespaces/default/config", json);
        assert_eq!(answer.status, 200, "sqld's admin API refused {json}: {}", answer.body);
    }

    /// One request to the admin API.
    pub fn admin(&self, method: &str, path: &str, json: &str) -> Answer {
        let url = format!("http://127.0.0.1:{}{path}", self.ports.admin);
        let headers =
            [("Authorization", format!("basic {ADMIN_KEY}")), ("Content-Type", "application/json".to_owned())];
        let headers = headers.map(|(name, value)| (name.to_owned(), value));
        http::request(method, &url, &headers, json.as_bytes(), Duration::from_secs(10))
            .expect("sqld's admin API answers")
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        tail(&self.log_file())
    }

    fn start_with(options: SqldOptions, tokens: Tokens, primary_grpc_port: Option<u16>) -> Sqld {
        let port = || free_port().expect("a free port");
        let directory = tempfile::Builder::new().prefix("pgflume-sqld-").tempdir().expect("a directory for sqld");
        let ports = Ports { http: port(), grpc: port(), admin: port() };
        let mut sqld = Sqld { process: None, directory, options, tokens, ports, primary_grpc_port };
        sqld.tokens.write_key(&sqld.key_file());
        sqld.spawn();
        sqld
    }

    fn spawn(&mut self) {
        let health = format!("{}/health", self.url());
        let mut process = Process::spawn(&mut self.command(), &self.log_file(), Some(self.directory.path()));
        process.wait_until("sqld is healthy", || http::get_status(&health) == Some(200));
        self.process = Some(process);
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.arg("--no-welcome").arg("-d").arg(self.directory());
        let address = |port: u16| format!("127.0.0.1:{port}");
        command.args(["--http-listen-addr", &address(self.ports.http)]);
        match self.primary_grpc_port {
            Some(port) => command.args(["--primary-grpc-url", &format!("http://{}", address(port))]),
            None => command.args(["--grpc-listen-addr", &address(self.ports.grpc)]),
        };
        command.args(["--admin-listen-addr", &address(self.ports.admin), "--admin-auth-key", ADMIN_KEY]);
        if self.options.auth {
            command.arg("--auth-jwt-key-file").arg(self.key_file());
        }
        command.args(&self.options.arguments).current_dir(self.directory.path());
        command
    }

    fn key_file(&self) -> PathBuf {
        self.directory.path().join("jwt.key")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("sqld.log")
    }
}

impl Drop for Sqld {
    fn drop(&mut self) {
        // Before its directory goes.
        self.kill();
    }
}

/// Where the program is.
pub fn binary() -> PathBuf {
    let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".parts/sqld");
    let path = std::env::var_os("SQLD_BIN").map_or_else(ours, PathBuf::from);
    assert!(path.is_file(), "no sqld at {}: run `make parts`, or set SQLD_BIN", path.display());
    path
}
