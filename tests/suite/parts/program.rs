//! The binary as an operator runs it: a folder of its own with a `schema.json`, variables, commands, and a process
//! that serves.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use pgflume::demo::postgres::free_port;
use tempfile::TempDir;

use super::http::{self, Answer};
use super::process::{Process, tail};

/// The secret of its requests.
const SECRET: &str = "a-secret-of-the-suite";

/// One installation of pgflume. What it serves is killed when it is dropped.
pub struct Program {
    directory: TempDir,
    variables: Vec<(String, String)>,
    port: u16,
    process: Option<Process>,
}

impl Program {
    /// With these definitions and variables.
    pub fn new(schema: &str, variables: &[(&str, &str)]) -> Program {
        let directory = tempfile::tempdir().expect("a directory for pgflume");
        std::fs::write(directory.path().join("schema.json"), schema).expect("its schema.json is written");
        let port = free_port().expect("a free port");
        let mut program = Program { directory, variables: Vec::new(), port, process: None };
        program.set("WEBHOOK_SIGNATURE", SECRET);
        program.set("PORT", &port.to_string());
        for (name, value) in variables {
            program.set(name, value);
        }
        program
    }

    /// Sets a variable, for what is run from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// What a variable is set to.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// Writes a file beside `schema.json`.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).expect("a file is written");
    }

    /// What stands in a file there.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).expect("a file is read")
    }

    /// A command, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.args(arguments).env_clear().current_dir(self.directory.path()).stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let done = tokio::task::spawn_blocking(move || command.output());
        done.await.expect("it is waited for").expect("the binary runs")
    }

    /// What a command prints that ends well.
    pub async fn said(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments).await;
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// What one says that ends with this code.
    pub async fn refused(&self, arguments: &[&str], code: i32) -> String {
        let done = self.run(arguments).await;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {done:?}");
        said
    }

    /// Starts `serve` with these arguments, and returns once it listens.
    pub fn serve(&mut self, arguments: &[&str]) {
        let mut command = self.command(&[&["serve"], arguments].concat());
        let mut process = Process::spawn(&mut command, &self.log_file(), None);
        let live = format!("{}/live", self.url());
        process.wait_until("pgflume listens", || http::get_status(&live) == Some(200));
        self.process = Some(process);
    }

    /// SIGKILL to what it serves.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// What it has of memory.
    pub fn memory_mib(&self) -> usize {
        let process = self.process.as_ref().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    }

    /// A signal by its name to what it serves.
    pub fn signal(&self, name: &str) {
        let id = self.process.as_ref().expect("it serves").id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.expect("kill runs").success(), "-{name} {id}");
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// One request to it, signed.
    pub async fn call(&self, method: &str, path: &str) -> Answer {
        let (method, url) = (method.to_owned(), format!("{}{path}", self.url()));
        let headers = [("x-webhook-signature".to_owned(), SECRET.to_owned())];
        let answer =
            tokio::task::spawn_blocking(move || http::request(&method, &url, &headers, b"", Duration::from_secs(60)));
        answer.await.expect("it is waited for").unwrap_or_else(|e| panic!("{path}: {e}:\n{}", self.log()))
    }

    /// The last lines of what it logged.
    pub fn log(&self) -> String {
        tail(&self.log_file())
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("serve.log")
    }
}
