//! `pgflume dead`: what waits for somebody to look at it.

use super::outcome::CommandResult;
use super::output::{Reader, say};
use super::pulls;
use crate::config::{Chosen, GlobalOptions};
use crate::core::config_error::ConfigError;
use crate::core::words;
use crate::operate::dead;
use crate::postgres::books::dead_letters::{Choice, Waiting};
use crate::pull::Pull;
use crate::replica::pulls::LetterChoice;
use crate::sync::Worker;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

/// Dead letters that `list` prints unless it is told otherwise.
const LISTED: i64 = 100;

#[derive(Debug, clap::Args)]
pub(super) struct DeadArgs {
    /// Those of this sync of pgflume.json
    #[arg(long, value_name = "NAME", global = true)]
    sync: Option<String>,
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DeadCommand {
    /// One line a letter, oldest first
    List {
        /// Of this table only
        #[arg(long)]
        table: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = LISTED)]
        limit: i64,
        /// Print JSON, one letter a line
        #[arg(long)]
        json: bool,
    },
    /// Everything about one letter, its message with all row values too
    Show {
        /// Its number in the list
        id: i64,
    },
    /// Put letters on the queue again: the next sync reads their rows as they are then
    Retry(ChoiceArgs),
    /// Drop letters: their changes are given up
    Drop {
        #[command(flatten)]
        choice: ChoiceArgs,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct ChoiceArgs {
    /// Their numbers in the list
    ids: Vec<i64>,
    /// All of this table
    #[arg(long)]
    table: Option<String>,
    /// All
    #[arg(long, conflicts_with_all = ["ids", "table"])]
    all: bool,
}

impl ChoiceArgs {
    fn choice(self) -> Result<Choice, ConfigError> {
        if self.ids.is_empty() && self.table.is_none() && !self.all {
            return Err(ConfigError("name the letters by their numbers, or use --table TABLE or --all".into()));
        }
        Ok(Choice { ids: self.ids, table: self.table })
    }
}

pub(super) async fn run(args: DeadArgs, options: &GlobalOptions) -> CommandResult {
    let config = match options.chosen(args.sync.as_deref())? {
        Chosen::Queued(config) => *config,
        Chosen::Pulled(pair) => return run_pulled(args.command, &pulls::pull(&pair)).await,
    };
    let worker = Worker::new(config);
    match args.command {
        DeadCommand::List { table, limit, json } => {
            let dead_letters = dead::list(&worker, &Choice { ids: Vec::new(), table }, limit).await?;
            for letter in &dead_letters {
                if say(if json { serde_json::to_string(letter)? } else { line(letter) })? == Reader::Gone {
                    break;
                }
            }
            if dead_letters.is_empty() && !json {
                say("no dead letters")?;
            }
        }
        DeadCommand::Show { id } => {
            let choice = Choice { ids: vec![id], table: None };
            let dead_letters = dead::list(&worker, &choice, 1).await?;
            let letter = dead_letters.first().ok_or_else(|| none(id))?;
            say(serde_json::to_string_pretty(letter)?)?;
            if let Some(message) = &letter.message {
                say(format_args!("message: {message}"))?;
            }
        }
        DeadCommand::Retry(args) => {
            let done = dead::retry(&worker, &args.choice()?).await?;
            say(format_args!("{} on the queue again; the next sync takes them", done.sent))?;
            if done.stay > 0 {
                say(format_args!(
                    "{} cannot be tried again and stay (no table of schema.json, superseded in part, or not pgflume's): pgflume dead show, then drop",
                    done.stay
                ))?;
            }
        }
        DeadCommand::Drop { choice, yes } => {
            let choice = choice.choice()?;
            if !yes && !confirmed()? {
                say("Nothing was changed.")?;
                return Ok(ExitCode::FAILURE);
            }
            say(format_args!("{} dropped", dead::drop_letters(&worker, &choice).await?))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_pulled(command: DeadCommand, pull: &Pull) -> CommandResult {
    match command {
        DeadCommand::List { table, limit, json } => {
            let letters = pull.letters(&LetterChoice { ids: Vec::new(), table }, limit).await?;
            for letter in &letters {
                let key = letter.key.join(", ");
                let reason = words::clean(&letter.reason, words::ERROR_CHARS);
                let line = format!("{}  {}  {:?}, key ({key}): {reason}", letter.id, letter.at, letter.table);
                if say(if json { serde_json::to_string(letter)? } else { line })? == Reader::Gone {
                    break;
                }
            }
            if letters.is_empty() && !json {
                say("no dead letters")?;
            }
        }
        DeadCommand::Show { id } => {
            let letters = pull.letters(&LetterChoice { ids: vec![id], table: None }, 1).await?;
            say(serde_json::to_string_pretty(letters.first().ok_or_else(|| none(id))?)?)?;
        }
        DeadCommand::Retry(args) => {
            let Choice { ids, table } = args.choice()?;
            let marked = pull.retry_letters(&LetterChoice { ids, table }).await?;
            say(format_args!("{marked} are tried again by the next pass"))?;
        }
        DeadCommand::Drop { .. } => return Err(pull.undroppable().into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn none(id: i64) -> ConfigError {
    ConfigError(format!("there is no dead letter {id}: see pgflume dead list"))
}

fn line(letter: &Waiting) -> String {
    let reason = letter.reason.as_deref().unwrap_or("not one of pgflume's letters");
    format!("{}  {}  {}", letter.id, letter.at, words::clean(reason, words::ERROR_CHARS))
}

fn confirmed() -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    if !std::io::stdin().is_terminal() {
        return Err(Box::new(ConfigError(
            "drop asks before it gives changes up, and there is no terminal: add --yes".into(),
        )));
    }
    let mut out = std::io::stdout().lock();
    write!(out, "Drop these dead letters? Their changes do not reach the replica. [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
