//! `pgflume service`: `serve` in the foreground or in the background, and what tells it to end.

use super::outcome::CommandResult;
use super::output::{print, say};
use super::serve::{self, ServeArgs};
use crate::config::GlobalOptions;
use crate::core::config_error::{ConfigError, wrong};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Run the worker as a service: all enabled syncs at their intervals, and the HTTP endpoints
#[derive(Debug, clap::Args)]
pub(super) struct ServiceArgs {
    /// Where the process file and the logs are
    #[arg(long, env = "STATE_DIR", default_value = ".pgflume", value_name = "DIRECTORY", global = true)]
    state_dir: PathBuf,
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ServiceCommand {
    /// Start it; the same as `serve`
    Start {
        /// In the background, with logs in STATE_DIR
        #[arg(long)]
        daemon: bool,
        #[command(flatten)]
        serve: ServeArgs,
    },
    /// End one that runs in the background, after the batch in hand
    Stop,
    /// Both
    Restart {
        #[command(flatten)]
        serve: ServeArgs,
    },
    /// Say whether one runs in the background: exit 0 if so, 1 if not
    Status,
    /// Print a systemd unit for this folder
    Unit {
        /// For an installation under /etc/pgflume instead: deploy/systemd/pgflume.service of the repository
        #[arg(long)]
        packaged: bool,
    },
}

/// How long one that was told to end may take: a step in hand, and a little.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// How long one may take to start.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How long one that holds the process file may take to write its number.
const NUMBER_PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at the process file.
const LOOK: Duration = Duration::from_millis(50);

/// Bytes of a log that is put aside, and how many are kept.
const LOG_BYTES: u64 = 10 * 1024 * 1024;
const LOGS: u32 = 5;

/// The variable that says that this process is the background's.
const DAEMON: &str = "PGFLUME_DAEMON_PID_FILE";

pub(super) async fn run(args: ServiceArgs, options: &GlobalOptions) -> CommandResult {
    let state = State { directory: args.state_dir };
    match args.command {
        ServiceCommand::Start { daemon: true, serve } => {
            serve::check(&serve, options)?;
            state.start()
        }
        ServiceCommand::Start { daemon: false, serve } => {
            let _held = held_by_daemon()?;
            serve::run(serve, options).await
        }
        ServiceCommand::Stop => state.stop(),
        ServiceCommand::Restart { serve } => {
            serve::check(&serve, options)?;
            if state.running()?.is_some() {
                state.stop()?;
            }
            state.start()
        }
        ServiceCommand::Status => match state.running()? {
            Some(pid) => {
                say(format_args!("running, process {pid}; its log is {}", state.path("pgflume.log").display()))?;
                Ok(ExitCode::SUCCESS)
            }
            None => {
                say("not running in the background")?;
                Ok(ExitCode::FAILURE)
            }
        },
        ServiceCommand::Unit { packaged } => {
            print(unit(packaged)?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The folder of the process file and the logs.
struct State {
    directory: PathBuf,
}

impl State {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The process that holds the process file's lock; a file that nobody holds is a left-over.
    fn running(&self) -> Result<Option<i32>, ConfigError> {
        let path = self.path("pgflume.pid");
        let began = Instant::now();
        loop {
            match self.holder(&path)? {
                Holder::Nobody => return Ok(None),
                Holder::Process(pid) => return Ok(Some(pid)),
                // One that has just locked it writes its number next.
                Holder::Unknown if began.elapsed() < NUMBER_PATIENCE => std::thread::sleep(LOOK),
                Holder::Unknown => {
                    return wrong(format!(
                        "{} is locked and holds no process number: look who holds it",
                        path.display()
                    ));
                }
            }
        }
    }

    fn holder(&self, path: &Path) -> Result<Holder, ConfigError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Holder::Nobody),
            Err(e) => return wrong(format!("STATE_DIR: {} cannot be read ({e})", path.display())),
        };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return Ok(Holder::Nobody);
        }
        let mut text = String::new();
        let read = file.read_to_string(&mut text);
        match (read, text.trim().parse::<i32>()) {
            (Ok(_), Ok(pid)) if pid > 1 => Ok(Holder::Process(pid)),
            _ => Ok(Holder::Unknown),
        }
    }

    fn start(&self) -> CommandResult {
        if let Some(pid) = self.running()? {
            return Err(ConfigError(format!("it runs already, process {pid}: `pgflume service stop` ends it")).into());
        }
        std::fs::create_dir_all(&self.directory)
            .map_err(|e| ConfigError(format!("STATE_DIR {} cannot be made ({e})", self.directory.display())))?;
        let log = self.log("pgflume.log")?;
        let errors = self.log("error.log")?;
        let pid_file = std::path::absolute(self.path("pgflume.pid"))?;
        forget_left_over(&pid_file)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1).filter(|argument| argument != "--daemon").map(|argument| {
            // `restart` starts as `start` does.
            if argument == "restart" { "start".into() } else { argument }
        }));
        command.env(DAEMON, &pid_file).stdin(Stdio::null()).stdout(errors.try_clone()?).stderr(log).process_group(0);
        let mut child = command.spawn()?;
        let began = Instant::now();
        while self.running()? != Some(child.id() as i32) {
            if let Some(status) = child.try_wait()? {
                return Err(format!("it ended at once ({status}): see {}", self.path("pgflume.log").display()).into());
            }
            if began.elapsed() > START_PATIENCE {
                return Err("it does not come up: see its log".into());
            }
            std::thread::sleep(LOOK);
        }
        say(format_args!(
            "running in the background, process {}; its log is {}",
            child.id(),
            self.path("pgflume.log").display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }

    fn stop(&self) -> CommandResult {
        let Some(pid) = self.running()? else {
            say("not running in the background")?;
            return Ok(ExitCode::SUCCESS);
        };
        let process = Pid::from_raw(pid).ok_or("the process file holds no process number")?;
        rustix::process::kill_process(process, Signal::TERM)
            .map_err(|e| format!("process {pid} cannot be told to end ({e})"))?;
        let began = Instant::now();
        while self.running()?.is_some() {
            if began.elapsed() > STOP_PATIENCE {
                return Err(format!(
                    "process {pid} has not ended after {} s: it ends after its step",
                    STOP_PATIENCE.as_secs()
                )
                .into());
            }
            std::thread::sleep(LOOK);
        }
        say(format_args!("process {pid} has ended"))?;
        Ok(ExitCode::SUCCESS)
    }

    /// A log to append to; one that has grown is put aside.
    fn log(&self, name: &str) -> Result<File, ConfigError> {
        let path = self.path(name);
        let is_large = std::fs::metadata(&path).is_ok_and(|found| found.len() >= LOG_BYTES);
        let opened = || -> std::io::Result<File> {
            if is_large {
                for number in (1..LOGS).rev() {
                    let older = self.path(&format!("{name}.{number}"));
                    if older.exists() {
                        std::fs::rename(&older, self.path(&format!("{name}.{}", number + 1)))?;
                    }
                }
                std::fs::rename(&path, self.path(&format!("{name}.1")))?;
            }
            OpenOptions::new().create(true).append(true).open(&path)
        };
        opened().or_else(|e| wrong(format!("STATE_DIR: {} cannot be written ({e})", path.display())))
    }
}

/// Who holds the process file's lock.
enum Holder {
    Nobody,
    Process(i32),
    /// Somebody whose number is not there.
    Unknown,
}

/// Empties a process file that nobody holds: the number in it may be another process's by now.
fn forget_left_over(path: &Path) -> Result<(), ConfigError> {
    let forget = || -> std::io::Result<()> {
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(0)
    };
    forget().or_else(|e| wrong(format!("{} cannot be held ({e}): does another one run?", path.display())))
}

/// Writes and locks the process file, where this process was started in the background. Held until it ends, however
/// that is.
fn held_by_daemon() -> Result<Option<File>, ConfigError> {
    let Some(path) = std::env::var_os(DAEMON).map(PathBuf::from) else { return Ok(None) };
    let hold = |path: &Path| -> std::io::Result<File> {
        let mut file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(file)
    };
    hold(&path).map(Some).or_else(|e| wrong(format!("{} cannot be held ({e}): does another one run?", path.display())))
}

/// The text of both units: `deploy/systemd/pgflume.service` is what it says without a folder.
const UNIT: &str = include_str!("unit.service.jinja");

const PACKAGED_PROGRAM: &str = "/usr/local/bin/pgflume";

/// The unit of this program in this folder, or with `is_packaged` the one for an installation under `/etc`.
fn unit(is_packaged: bool) -> Result<String, ConfigError> {
    if is_packaged {
        return filled(minijinja::context! { program => PACKAGED_PROGRAM });
    }
    let here = || -> std::io::Result<(PathBuf, PathBuf, u32)> {
        let folder = std::env::current_dir()?;
        let owner = std::fs::metadata(&folder)?.uid();
        Ok((std::env::current_exe()?, folder, owner))
    };
    let (program, folder, user) = here().or_else(|e| wrong(format!("this folder cannot be read ({e})")))?;
    filled(minijinja::context! { program => in_unit(&program)?, folder => in_unit(&folder)?, user })
}

fn filled(values: minijinja::Value) -> Result<String, ConfigError> {
    let text = minijinja::Environment::new().render_str(UNIT, values);
    // A template loses its last line break.
    text.map(|text| text + "\n").or_else(|e| wrong(format!("the unit cannot be written ({e})")))
}

/// A path as a unit takes it without quotes, where `%` begins a specifier.
fn in_unit(path: &Path) -> Result<String, ConfigError> {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@%".contains(c);
    match path.to_str() {
        Some(text) if text.chars().all(is_plain) => Ok(text.replace('%', "%%")),
        _ => wrong(format!(
            "{} cannot stand in a unit: put it where the path has letters, digits and /._-+@% alone",
            path.display()
        )),
    }
}
