//! `pgflume init`: arguments and the file that is there → [`crate::postgres::init`] → the file, and words.

use super::outcome::CommandResult;
use super::output::{note, print, say};
use crate::config::{GlobalOptions, Origin, replace};
use crate::core::config_error::ConfigError;
use crate::core::draft::Document;
use crate::postgres::init;
use crate::postgres::init::{InitOptions, Outcome};
use crate::provider::mysql;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write schema.json from the Postgres catalog: every table with a key, each column with a type that loses
/// nothing
///
/// Needs PGMQ_URL only and changes nothing in Postgres. Run again, it adds the tables that are not there
/// yet and leaves every definition as it is.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct InitArgs {
    /// Only these tables: names such as apps or public.apps, with * and ? as wildcards
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_delimiter = ',')]
    table: Vec<String>,
    /// Not these tables; for tables that should stay out of the file
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_delimiter = ',')]
    exclude: Vec<String>,
    /// Also add columns that tables in the file do not name
    #[arg(long)]
    add_columns: bool,
    /// The file to write, and to keep what is in it [default: SCHEMA_FILE]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the file to standard output and write nothing
    #[arg(long)]
    stdout: bool,
    /// The source and the file of this sync of pgflume.json, and its patterns where none are given
    #[arg(long, value_name = "NAME")]
    sync: Option<String>,
}

pub(super) async fn run(args: InitArgs, options: &GlobalOptions) -> CommandResult {
    let mut wanted =
        InitOptions { tables: args.table, exclude: args.exclude, add_columns: args.add_columns, numbers: true };
    let (source, file, next) = match &args.sync {
        None => (
            Origin::Postgres(Box::new(options.postgres()?)),
            Some(options.schema_file.clone()),
            "pgflume setup".to_owned(),
        ),
        Some(name) => {
            let (source, definition, file) = options.origin(name)?;
            if wanted.tables.is_empty() && wanted.exclude.is_empty() {
                (wanted.tables, wanted.exclude) = (definition.tables, definition.exclude);
            }
            let next = match definition.queue {
                Some(_) => format!("pgflume setup --sync {name}"),
                None => format!("pgflume sync {name}"),
            };
            (source, file, next)
        }
    };
    let path = args.output.or(file).ok_or_else(|| {
        let name = args.sync.as_deref().unwrap_or_default();
        ConfigError(format!("the sync {name:?} names no file under schema: say which one to write, with --output"))
    })?;
    let before = replace::read(&path).map_err(|e| {
        ConfigError(format!("{}: cannot be read ({e}); name another file with --output", path.display()))
    })?;
    let document = match &before {
        Some(text) => Document::parse(text).map_err(|e| broken(&path, &e.path, &e.problem))?,
        None => Document::empty(),
    };
    let (text, report) = match &source {
        Origin::Postgres(url) => {
            let Outcome { text, report } = init::init(url, &wanted, &document).await?;
            (text, report)
        }
        Origin::MySql(url) => {
            mysql::init(url, [&wanted.tables, &wanted.exclude], wanted.add_columns, &document).await?
        }
    };
    if args.stdout {
        note(report);
        print(text)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(report)?;
    if before.as_ref() == Some(&text) {
        say(format_args!("{} is as it was.", path.display()))?;
    } else {
        replace::replace(&path, before.as_deref(), &text).map_err(|e| {
            format!("{} was not written ({e}); look at it, or write elsewhere with --output", path.display())
        })?;
        say(format_args!("{} is written. Next: look through it, then {next}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn broken(path: &Path, place: &str, problem: &str) -> ConfigError {
    ConfigError(format!(
        "{}: {place} {problem}; the file was left alone: fix it, or write another with --output",
        path.display()
    ))
}
