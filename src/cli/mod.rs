//! The command line: arguments → wiring → exit code. One file a command.

mod completions;
mod connection;
mod dead;
mod demo;
mod doctor;
mod edit;
mod init;
mod man;
mod nuke;
mod outcome;
mod output;
mod progress;
mod pulls;
#[cfg(test)]
mod reference;
mod resync;
mod serve;
mod service;
mod setup;
mod status;
mod sync;
mod teardown;
mod verify;

use crate::config::GlobalOptions;
use crate::core::config_error::{ConfigError, trimmed};
use clap::{CommandFactory as _, Parser, Subcommand};
use std::io::IsTerminal;
use std::process::ExitCode;

/// Exit code of a mistake in arguments or configuration.
const USAGE: u8 = 2;

/// Keeps a libSQL/SQLite copy of chosen Postgres tables fresh, through PGMQ
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: GlobalOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the main job end to end on throw-away parts, and prove both sides equal
    Demo(demo::DemoArgs),
    Init(init::InitArgs),
    /// Make Postgres ready from schema.json, and apply an edit of it to both sides. Idempotent
    Setup(setup::SetupArgs),
    /// Remove all that `setup` made
    Teardown(teardown::TeardownArgs),
    /// Run the HTTP worker
    Serve(serve::ServeArgs),
    Service(service::ServiceArgs),
    Connection(connection::ConnectionArgs),
    Sync(sync::SyncArgs),
    Status(status::StatusArgs),
    Doctor(doctor::DoctorArgs),
    /// Rebuild tables from Postgres while the replica stays readable
    Resync(resync::ResyncArgs),
    /// Empty the replica's tables and pair the queue with it, as POST /nuke does; the next drains fill them
    Nuke(nuke::NukeArgs),
    /// Compare Postgres with the replica, row by row, while writes go on: exit 0 equal, 3 different
    Verify(verify::VerifyArgs),
    /// List, show, retry or drop dead letters: changes that could not be understood, read or applied
    Dead(dead::DeadArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Adds what `.env` in the working folder says to the environment; what is set already wins. Before any thread is
/// started.
pub fn read_environment() -> Result<(), ExitCode> {
    match dotenvy::from_path(".env") {
        Err(e) if !e.not_found() => {
            // Its message may quote the line.
            let problem = match e {
                dotenvy::Error::LineParse(_, at) => format!("has a line that cannot be read, at its character {at}"),
                other => format!("cannot be read ({other})"),
            };
            Err(report(&ConfigError(format!(
                ".env {problem}: write NAME=value, a line each, with quotes around blanks"
            ))))
        }
        _ => Ok(()),
    }
}

/// Runs the command line of this process.
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    // The demo speaks for itself.
    let level = if matches!(cli.command, Command::Demo(_)) { "warn" } else { "info" };
    if let Err(e) = log(&cli.options.log_format, level) {
        return report(&e);
    }
    let done = match cli.command {
        Command::Demo(args) => demo::run(args).await,
        Command::Init(args) => init::run(args, &cli.options).await,
        Command::Setup(args) => setup::run(args, &cli.options).await,
        Command::Teardown(args) => teardown::run(args, &cli.options).await,
        Command::Serve(args) => serve::run(args, &cli.options).await,
        Command::Service(args) => service::run(args, &cli.options).await,
        Command::Connection(args) => connection::run(args, &cli.options).await,
        Command::Sync(args) => sync::run(args, &cli.options).await,
        Command::Status(args) => status::run(args, &cli.options).await,
        Command::Doctor(args) => doctor::run(args, &cli.options).await,
        Command::Resync(args) => resync::run(args, &cli.options).await,
        Command::Nuke(args) => nuke::run(args, &cli.options).await,
        Command::Verify(args) => verify::run(args, &cli.options).await,
        Command::Dead(args) => dead::run(args, &cli.options).await,
        Command::Completions(args) => completions::run(args, Cli::command()),
        Command::Man(args) => man::run(args, Cli::command()),
    };
    done.unwrap_or_else(|e| report(e.as_ref()))
}

fn report(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    output::note(format_args!("pgflume: {error}\n"));
    ExitCode::from(if error.is::<ConfigError>() { USAGE } else { 1 })
}

/// Logs go to standard error, so that standard output is a command's answer.
fn log(format: &str, level: &str) -> Result<(), ConfigError> {
    use tracing_subscriber::EnvFilter;
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !trimmed(&text).is_empty() => EnvFilter::try_new(trimmed(&text)).map_err(|_| {
            ConfigError(format!("RUST_LOG {text:?} is no filter: use a level such as info, or pgflume=debug"))
        })?,
        _ => EnvFilter::new(level),
    };
    // At debug it shows parameters, which are keys of rows, and at info the words of notices.
    let quiet = "tokio_postgres=warn".parse().map_err(|e| ConfigError(format!("the log cannot be set up: {e}")))?;
    let filter = filter.add_directive(quiet);
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false) // nobody reads it any more: where should that be said?
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        "json" => logger.json().init(),
        "text" => logger.init(),
        _ => return Err(ConfigError("LOG_FORMAT must be text or json".into())),
    }
    Ok(())
}
