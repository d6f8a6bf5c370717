//! A child process with a log file, a guard that outlives us, and waiting by condition.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// The longest that a part may take to start, on a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const LOG_TAIL_LINES: usize = 40;
/// Ends process $1 and removes directory $2 when our end of the pipe closes, however we ended.
const GUARD: &str = r#"read -r word; [ "$word" = done ] && exit 0
kill -9 "$1"; [ -z "$2" ] || rm -rf "$2""#;

/// A running program; killed when dropped.
pub struct Process {
    child: Child,
    guard: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its output appended to `log`. Should we die without dropping, the
    /// guard kills it and removes `directory`.
    pub fn spawn(command: &mut Command, log: &Path, directory: Option<&Path>) -> Process {
        let open = || fs::OpenOptions::new().create(true).append(true).open(log);
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(open().expect("the part's log file opens"))
            .stderr(open().expect("the part's log file opens"))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {name}: {error}; `make parts` installs it"));
        let guard = Command::new("/bin/sh")
            .args(["-c", GUARD, "pgflume-guard", &child.id().to_string()])
            .arg(directory.unwrap_or(Path::new("")))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("/bin/sh runs");
        Process { child, guard, log: log.to_owned() }
    }

    /// Waits until `ready`; panics with the log when the program ends or time is up.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !ready() {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("ended ({status}) before {what}:\n{}", tail(&self.log));
            }
            assert!(begin.elapsed() < START_TIMEOUT, "not {what} in time:\n{}", tail(&self.log));
            thread::sleep(POLL);
        }
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard first: once the child is reaped, its id may be another's.
        if let Some(mut stdin) = self.guard.stdin.take() {
            stdin.write_all(b"done\n").ok();
        }
        self.guard.wait().ok();
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The last lines of a log file.
pub fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
