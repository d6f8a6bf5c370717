//! The real binary: two `serve` on the same queue and replica, started again whenever they die, and its commands.

use crate::parts::process::Process;
use crate::plan::{pick, rng};
use pgflume::core::failpoint;
use pgflume::demo::postgres::free_port;
use rand::RngExt;
use rand::rngs::StdRng;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The secret of all workers.
const SECRET: &str = "the-secret-of-the-chaos-run";
const POLL: Duration = Duration::from_millis(20);
/// An answer takes 55 s at most.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How the binary is called.
#[derive(Clone)]
pub struct Binary {
    pub postgres: String,
    pub libsql: String,
    pub token: Option<String>,
    pub directory: PathBuf,
    /// Whether processes that are started keep acknowledged messages.
    pub keeps: Arc<AtomicBool>,
    /// While set, commands that run are killed.
    pub ends: Arc<AtomicBool>,
}

impl Binary {
    fn command(&self, arguments: &[&str], failpoints: Option<&str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
        command.args(arguments).env_clear().current_dir(&self.directory);
        command.env("PGMQ_URL", &self.postgres).env("LIBSQL_URL", &self.libsql).env("SCHEMA_FILE", "schema.json");
        command.env("WEBHOOK_SIGNATURE", SECRET).env("RUST_LOG", "info");
        command.env("RETENTION", if self.keeps.load(Ordering::Relaxed) { "1h" } else { "0" });
        if let Some(token) = &self.token {
            command.env("LIBSQL_AUTH_TOKEN", token);
        }
        if let Some(failpoints) = failpoints {
            command.env("FAILPOINTS", failpoints);
        }
        command
    }

    /// Runs a command to its end; its exit code (`None`: aborted or killed) and its standard output.
    pub async fn run(&self, arguments: &[&str], failpoints: Option<&str>, limit: Duration) -> (Option<i32>, String) {
        let mut command = self.command(arguments, failpoints);
        let log = self.directory.join(format!("{}.log", arguments.join("")));
        let ends = self.ends.clone();
        let before = std::fs::metadata(&log).map_or(0, |found| found.len());
        let ended = tokio::task::spawn_blocking(move || {
            let (mut process, began) = (Process::spawn(&mut command, &log, None), Instant::now());
            let status = loop {
                match process.ended() {
                    None if began.elapsed() < limit && !ends.load(Ordering::Relaxed) => std::thread::sleep(POLL),
                    other => break other,
                }
            };
            drop(process);
            let text = std::fs::read(&log).unwrap_or_default();
            let new = text.get(usize::try_from(before).unwrap_or(0)..).unwrap_or_default();
            (status.and_then(|status| status.code()), String::from_utf8_lossy(new).into_owned())
        });
        ended.await.unwrap_or((None, String::new()))
    }
}

impl Binary {
    /// What all processes have logged.
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|file| file.path());
        let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        let texts = logs.map(|log| std::fs::read(log).unwrap_or_default());
        texts.map(|text| String::from_utf8_lossy(&text).into_owned()).collect()
    }
}

/// Two workers.
pub struct Workers {
    binary: Binary,
    slots: [Mutex<Slot>; 2],
    rng: Mutex<StdRng>,
    http: reqwest::Client,
}

struct Slot {
    port: u16,
    /// Where it feeds clients.
    feed: u16,
    process: Option<Process>,
    log: PathBuf,
}

impl Workers {
    pub fn new(binary: Binary, seed: u64) -> std::io::Result<Arc<Self>> {
        let slot = |number: usize| {
            let log = binary.directory.join(format!("worker{number}.log"));
            let (port, feed) = (free_port()?, free_port()?);
            Ok::<_, std::io::Error>(Mutex::new(Slot { port, feed, process: None, log }))
        };
        let slots = [slot(0)?, slot(1)?];
        let http =
            reqwest::Client::builder().no_proxy().timeout(CALL_TIMEOUT).build().map_err(std::io::Error::other)?;
        Ok(Arc::new(Self { binary, slots, rng: Mutex::new(rng(seed, "workers")), http }))
    }

    pub fn binary(&self) -> &Binary {
        &self.binary
    }

    /// Where each feeds clients.
    pub fn feeds(&self) -> [String; 2] {
        [0, 1].map(|number| format!("http://127.0.0.1:{}", self.slot(number).feed))
    }

    fn slot(&self, number: usize) -> MutexGuard<'_, Slot> {
        self.slots[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts those that are gone, each with another stop or stall in it.
    pub fn tend(&self) {
        for number in 0..self.slots.len() {
            let mut slot = self.slot(number);
            let is_running = slot.process.as_mut().is_some_and(|process| process.ended().is_none());
            if is_running {
                continue;
            }
            let armed = self.armed(false);
            self.start(&mut slot, armed.as_deref());
        }
    }

    fn start(&self, slot: &mut Slot, failpoints: Option<&str>) {
        let port = slot.port.to_string();
        let follow =
            if self.rng.lock().unwrap_or_else(PoisonError::into_inner).random_bool(0.5) { "true" } else { "false" };
        let mut command = self.binary.command(&["serve", "--port", &port], failpoints);
        command.env("FOLLOW", follow).env("FEED_BIND", format!("127.0.0.1:{}", slot.feed));
        slot.process = None;
        slot.process = Some(Process::spawn(&mut command, &slot.log, None));
    }

    /// Where the next process stops or stalls.
    pub fn armed(&self, compares: bool) -> Option<String> {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let logs = self.binary.logs();
        failpoints(&mut rng, compares, |name| !logs.contains(&format!("failpoint {name}{ENDS}")))
    }

    /// Whether processes that are started from now on keep acknowledged messages.
    pub fn keep_messages(&self, keeps: bool) {
        self.binary.keeps.store(keeps, Ordering::Relaxed);
    }

    /// SIGKILL.
    pub fn kill(&self, number: usize) {
        self.slot(number).process = None;
    }

    /// Stops the process for a while, as a machine that is paused.
    pub async fn freeze(&self, number: usize, time: Duration) {
        let id = self.slot(number).process.as_ref().map(Process::id);
        let Some(id) = id else { return };
        signal("-STOP", id);
        tokio::time::sleep(time).await;
        // Not if it was killed meanwhile: its id may be another's.
        if self.slot(number).process.as_ref().map(Process::id) == Some(id) {
            signal("-CONT", id);
        }
    }

    /// Both anew, without faults.
    pub fn restart_sound(&self) {
        for number in 0..self.slots.len() {
            self.start(&mut self.slot(number), None);
        }
    }

    /// The first, alone, with a stall behind each batch.
    pub fn start_stalling(&self) {
        self.start(&mut self.slot(0), Some("applied=return(300)"));
    }

    /// A call to a worker that is starting.
    pub async fn post_when_up(&self, number: usize, path: &str) {
        let url = format!("http://127.0.0.1:{}/health", self.slot(number).port);
        let began = Instant::now();
        while self.http.get(&url).send().await.is_err() && began.elapsed() < CALL_TIMEOUT {
            tokio::time::sleep(POLL).await;
        }
        self.post(number, path, String::new()).await;
    }

    pub fn end(&self) {
        (0..self.slots.len()).for_each(|number| self.kill(number));
    }

    /// One signed POST to a worker, its answer read to the end, whatever it is.
    pub async fn post(&self, number: usize, path: &str, body: String) {
        let url = format!("http://127.0.0.1:{}{path}", self.slot(number).port);
        if let Ok(answer) = self.http.post(url).header("x-webhook-signature", SECRET).body(body).send().await {
            answer.bytes().await.ok();
        }
    }
}

/// Sends a signal to a process of ours.
pub fn signal(name: &str, id: u32) {
    // A process that has just ended is none to send a signal to.
    Command::new("kill").args([name, &id.to_string()]).stderr(std::process::Stdio::null()).status().ok();
}

/// Every step comes there.
const HOT: [&str; 8] = [
    failpoint::LOCKED,
    failpoint::TAKEN,
    failpoint::DURABLE,
    failpoint::READ,
    failpoint::SENT,
    failpoint::APPLIED,
    failpoint::ADVANCED,
    failpoint::COMMITTED,
];

/// Only a lost acknowledgement, a dead letter or a pairing comes there, so several may be armed at once.
const COLD: [&str; 5] = [failpoint::LATE, failpoint::BURIED, failpoint::ANNOUNCED, failpoint::RESET, failpoint::PAIRED];

/// What a process says that stops itself.
pub const ENDS: &str = ": the process ends";

/// Where a process stops or stalls; rather there where none has stopped yet.
fn failpoints(rng: &mut StdRng, compares: bool, is_fresh: impl Fn(&&str) -> bool) -> Option<String> {
    if rng.random_bool(0.1) {
        return None;
    }
    let fresh: Vec<&str> = HOT.into_iter().filter(&is_fresh).collect();
    let hot = if fresh.is_empty() || rng.random_bool(0.3) { *pick(rng, &HOT) } else { *pick(rng, &fresh) };
    let name = if compares && rng.random_bool(0.6) { failpoint::COMPARED } else { hot };
    let what = match (rng.random_bool(0.3), rng.random_range(0..4)) {
        (true, _) => format!("{}%return({})", rng.random_range(2..40), rng.random_range(20..1_500)),
        (false, before) if before > 0 && !is_fresh(&name) => format!("{before}*off->return"),
        _ => "return".to_owned(),
    };
    let mut points = vec![format!("{name}={what}")];
    for cold in COLD {
        match (rng.random_range(0..10), is_fresh(&cold)) {
            (0..5, true) | (0..2, false) => points.push(format!("{cold}=return")),
            (9, _) => points.push(format!("{cold}=return({})", rng.random_range(20..1_500))),
            _ => {}
        }
    }
    Some(points.join(";"))
}

/// Where the files of a run are.
pub fn replica_file(directory: &Path) -> PathBuf {
    directory.join("replica.db")
}
