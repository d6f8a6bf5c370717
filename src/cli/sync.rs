//! `pgflume sync`: one drain of the queue, or one pass of each sync, for system cron or a Kubernetes CronJob; and the
//! syncs of `pgflume.json`.

use super::outcome::CommandResult;
use super::output::say;
use super::{edit, pulls};
use crate::config::file::ConfigFile;
use crate::config::{GlobalOptions, Pair};
use crate::core::config_error::{ConfigError, wrong};
use crate::core::error::Result;
use crate::sync::Worker;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// The command has no caller that waits: it drains until nothing is left at a step's snapshot.
const BUDGET: Duration = Duration::from_secs(24 * 60 * 60);

/// Run syncs once, then exit: 0 all is there, 1 error, 2 usage
///
/// Without a name: drains the queue of the four variables, and runs all enabled syncs of pgflume.json.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct SyncArgs {
    #[command(subcommand)]
    command: Option<SyncCommand>,
    /// Only these syncs of pgflume.json
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Drop tables of the replica that the source no longer has, or that are no longer asked for
    #[arg(long)]
    allow_drop: bool,
}

/// What is done to a sync of the file.
#[derive(Debug, clap::Subcommand)]
enum SyncCommand {
    /// Add a sync to pgflume.json
    Add(AddArgs),
    /// List the syncs of pgflume.json
    List,
    /// Let a sync run
    Enable { name: String },
    /// Let it rest
    Disable { name: String },
    /// Take a sync out of pgflume.json; its tables stay in the replica
    Remove { name: String },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// Its name
    name: String,
    /// The connection that it reads; asked for on a terminal
    #[arg(long)]
    from: Option<String>,
    /// The connection that it writes [default: replica]
    #[arg(long)]
    to: Option<String>,
    /// Only these tables: names such as apps or public.apps, with * and ? as wildcards [default: all that may be read]
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_delimiter = ',')]
    tables: Vec<String>,
    /// Not these tables
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_delimiter = ',')]
    exclude: Vec<String>,
    /// How often the source is looked at [default: 300s]
    #[arg(long, value_name = "TIME")]
    every: Option<String>,
    /// How often all rows are compared, or never [default: 1d]
    #[arg(long, value_name = "TIME")]
    compare: Option<String>,
    /// The file that defines the tables, beside pgflume.json
    #[arg(long, value_name = "FILE")]
    schema: Option<String>,
    /// The queue that feeds it, in place of looks at the source
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
}

pub(super) async fn run(args: SyncArgs, options: &GlobalOptions) -> CommandResult {
    let file = options.file()?;
    match args.command {
        None => run_once(&file, &args.names, args.allow_drop, options).await,
        Some(SyncCommand::Add(add)) => add_sync(&file, add),
        Some(SyncCommand::List) => list(&file),
        Some(SyncCommand::Enable { name }) => enable(&file, &name, true),
        Some(SyncCommand::Disable { name }) => enable(&file, &name, false),
        Some(SyncCommand::Remove { name }) => {
            known(&file, &name)?;
            edit::remove(&file, &["syncs", &name])?;
            say(format_args!("The sync {name:?} is gone; its tables stay in the replica."))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn run_once(file: &ConfigFile, names: &[String], allow_drop: bool, options: &GlobalOptions) -> CommandResult {
    let pairs = options.pairs(file, names)?;
    let is_alone = file.syncs.is_empty();
    let mut is_whole = true;
    if names.is_empty() && (is_alone || options.names_a_pair(file)?) {
        let drained = drain(options.config()?).await;
        if is_alone {
            let (line, is_drained) = drained?;
            say(line)?;
            return Ok(if is_drained { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        is_whole &= told(&options.queue_name, drained)?;
    }
    for pair in &pairs {
        let done = match &pair.config {
            Some(config) => drain(config.clone()).await,
            None => pass(pair, allow_drop).await,
        };
        is_whole &= told(&pair.definition.name, done)?;
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says how a sync went; whether all of it is there. One that fails keeps no other back.
fn told(name: &str, done: Result<(Value, bool)>) -> std::io::Result<bool> {
    let (mut line, is_whole) = done.unwrap_or_else(|e| {
        tracing::error!(sync = name, error = %e, "the sync failed");
        (json!({"error": e.to_string()}), false)
    });
    line["sync"] = name.into();
    say(line)?;
    Ok(is_whole)
}

async fn drain(config: crate::config::Config) -> Result<(Value, bool)> {
    let drained = Worker::new(config).ending_caught_up().drain(BUDGET).await?;
    // Tables that wait for somebody are an error that the log has named.
    let waits = !drained.paused.is_empty() || !drained.stuck.is_empty();
    Ok((json!(drained), !waits))
}

async fn pass(pair: &Pair, allow_drop: bool) -> Result<(Value, bool)> {
    let pull = pulls::pull(pair);
    let pull = if allow_drop { pull.dropping() } else { pull };
    let passed = pull.pass().await?;
    let is_whole = passed.problems.is_empty();
    Ok((json!(passed), is_whole))
}

fn known(file: &ConfigFile, name: &str) -> Result<(), ConfigError> {
    match file.syncs.contains_key(name) {
        true => Ok(()),
        false => wrong(format!(
            "{}: there is no sync {name:?}: `pgflume sync list` shows what there is",
            file.path.display()
        )),
    }
}

fn enable(file: &ConfigFile, name: &str, is_enabled: bool) -> CommandResult {
    known(file, name)?;
    edit::set(file, &["syncs", name], "enabled", &json!(is_enabled))?;
    let how = if is_enabled {
        "runs from the next start of the service on"
    } else {
        "rests from the next start of the service on"
    };
    say(format_args!("The sync {name:?} {how}."))?;
    Ok(ExitCode::SUCCESS)
}

fn list(file: &ConfigFile) -> CommandResult {
    if file.syncs.is_empty() {
        say("There is no sync yet: add one with `pgflume sync add`.")?;
    }
    for (name, sync) in &file.syncs {
        let how = match &sync.queue {
            Some(queue) => format!("by the queue {}", queue.as_str()),
            None => format!("every {}", sync.every.text),
        };
        let rests = if sync.enabled { "" } else { ", disabled" };
        let what = match &sync.schema {
            Some(schema) => schema.display().to_string(),
            None if sync.tables.is_empty() => "all tables".into(),
            None => sync.tables.join(", "),
        };
        say(format_args!("{name}: {} -> {}, {what}, {how}{rests}", sync.from, sync.to))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn add_sync(file: &ConfigFile, args: AddArgs) -> CommandResult {
    if file.syncs.contains_key(&args.name) {
        return Err(ConfigError(format!("{}: the sync {:?} is there already", file.path.display(), args.name)).into());
    }
    let from = edit::given_or_asked(args.from, "--from", "Connection to read")?;
    let mut sync = json!({"from": from});
    let texts = [
        ("to", args.to),
        ("every", args.every),
        ("compare", args.compare),
        ("schema", args.schema),
        ("queue", args.queue),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            sync[name] = value.into();
        }
    }
    for (name, list) in [("tables", args.tables), ("exclude", args.exclude)] {
        if !list.is_empty() {
            sync[name] = json!(list);
        }
    }
    edit::add(file, "syncs", &args.name, &sync)?;
    say(format_args!("The sync {:?} is in {}. Next: pgflume sync {}", args.name, file.path.display(), args.name))?;
    Ok(ExitCode::SUCCESS)
}
