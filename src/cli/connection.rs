//! `pgflume connection`: the named connections of `pgflume.json`.

use super::outcome::CommandResult;
use super::output::say;
use super::{edit, pulls};
use crate::config::file::{ConfigFile, Resolved};
use crate::config::{GlobalOptions, Pair};
use crate::core::config_error::ConfigError;
use crate::mysql::MySqlUrl;
use crate::postgres::PgUrl;
use crate::provider::mysql::{self, MySqlProvider};
use crate::provider::postgres::{PostgresProvider, Wanted, about};
use crate::provider::{Provider, StampOptions};
use crate::replica::Replica;
use crate::replica::target::Target;
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;

/// Named connections of pgflume.json
#[derive(Debug, clap::Args)]
pub(super) struct ConnectionArgs {
    #[command(subcommand)]
    command: ConnectionCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ConnectionCommand {
    /// Add a connection. No secret is an argument, or stands in the file: name the variable that holds it
    Add {
        /// Its name
        name: String,
        /// Where it leads: postgres://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE, or file:PATH, https:// or
        /// libsql:// for a replica; asked for on a terminal
        #[arg(long)]
        url: Option<String>,
        /// The variable that holds the password
        #[arg(long, value_name = "VAR")]
        password_env: Option<String>,
        /// The variable that holds a replica's token
        #[arg(long, value_name = "VAR")]
        token_env: Option<String>,
    },
    /// List the connections
    List,
    /// Connect, and say what is there, what may be done, and what can be promised of each table
    Test {
        /// Its name
        name: String,
    },
    /// Take a connection out of pgflume.json
    Remove {
        /// Its name
        name: String,
    },
}

pub(super) async fn run(args: ConnectionArgs, options: &GlobalOptions) -> CommandResult {
    let file = options.file()?;
    match args.command {
        ConnectionCommand::Add { name, url, password_env, token_env } => {
            add(&file, &name, url, password_env, token_env)
        }
        ConnectionCommand::List => list(&file),
        ConnectionCommand::Test { name } => test(&file, &name, options).await,
        ConnectionCommand::Remove { name } => remove(&file, &name),
    }
}

fn add(
    file: &ConfigFile,
    name: &str,
    url: Option<String>,
    password_env: Option<String>,
    token_env: Option<String>,
) -> CommandResult {
    if file.connections.contains_key(name) {
        return Err(ConfigError(format!("{}: the connection {name:?} is there already", file.path.display())).into());
    }
    let url = edit::given_or_asked(url, "--url", "URL")?;
    if holds_secret(&url) {
        return Err(ConfigError(
            "--url holds a password or a token, which would stand in the file: leave it out, and name the variable that holds it with --password-env or --token-env".into(),
        )
        .into());
    }
    let mut connection = json!({"url": url});
    for (member, variable) in [("password", password_env), ("token", token_env)] {
        if let Some(variable) = variable {
            connection[member] = format!("${{{variable}}}").into();
        }
    }
    edit::add(file, "connections", name, &connection)?;
    say(format_args!("The connection {name:?} is in {}. Next: pgflume connection test {name}", file.path.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// A password in the account, or a token among the parameters. Variables are none.
fn holds_secret(url: &str) -> bool {
    let (before, query) = url.split_once('?').unwrap_or((url, ""));
    let account = before.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(account, _)| account);
    let password = account.and_then(|account| account.split_once(':')).map(|(_, password)| password);
    let is_plain = |text: &str| !text.is_empty() && !text.contains("${");
    let named = |pair: &str| ["password=", "authToken=", "sslpassword="].iter().any(|name| pair.starts_with(name));
    password.is_some_and(is_plain) || query.split('&').any(named)
}

fn list(file: &ConfigFile) -> CommandResult {
    if file.connections.is_empty() {
        say(
            "There is no connection yet but those of the variables, postgres and replica: add one with `pgflume connection add`.",
        )?;
    }
    for (name, connection) in &file.connections {
        let users = file.users_of(name);
        let used = if users.is_empty() { "used by no sync".into() } else { format!("used by {}", users.join(", ")) };
        say(format_args!("{name}: {}, {used}", connection.shown()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(file: &ConfigFile, name: &str) -> CommandResult {
    let users = file.users_of(name);
    if !file.connections.contains_key(name) {
        return Err(ConfigError(format!("{}: there is no connection {name:?}", file.path.display())).into());
    }
    if !users.is_empty() {
        return Err(ConfigError(format!(
            "the connection {name:?} is used by {}: remove or change that first (`pgflume sync remove`)",
            users.join(", ")
        ))
        .into());
    }
    edit::remove(file, &["connections", name])?;
    say(format_args!("The connection {name:?} is gone."))?;
    Ok(ExitCode::SUCCESS)
}

async fn test(file: &ConfigFile, name: &str, options: &GlobalOptions) -> CommandResult {
    match options.connection(file, name)? {
        Resolved::Target(target) => test_target(&target).await,
        Resolved::Postgres(url) => {
            let server = about(&url).await?;
            say(format_args!("server     {}", server.version))?;
            say(format_args!("login      {}, {}", server.user, server.rights))?;
            let all = PostgresProvider {
                url: PgUrl::clone(&url),
                wanted: Wanted::Named(Default::default()),
                row_bytes: options.row_bytes()?,
                stamps: StampOptions::default(),
            };
            test_source(readers(file, name, options, all)?).await
        }
        Resolved::MySql(url) => {
            let server = mysql::about(&url).await?;
            say(format_args!("server     {}", server.version))?;
            say(format_args!("login      {}", server.user))?;
            let all = MySqlProvider {
                url: MySqlUrl::clone(&url),
                wanted: mysql::Wanted::Named { tables: Vec::new(), exclude: Vec::new() },
                row_bytes: options.row_bytes()?,
                stamps: StampOptions::default(),
                quiet: mysql::Quiet::default(),
            };
            let done = test_source(readers(file, name, options, all)?).await?;
            for what in server.not_carried {
                say(format_args!("not carried: {what}"))?;
            }
            Ok(done)
        }
    }
}

/// What reads the source for each sync that names it; where none does, `all`.
fn readers(
    file: &ConfigFile,
    name: &str,
    options: &GlobalOptions,
    all: impl Provider + 'static,
) -> Result<Vec<Arc<dyn Provider>>, ConfigError> {
    let users = file.syncs.values().filter(|sync| sync.from == name);
    let pairs: Vec<Pair> = users.map(|sync| options.pair(file, sync)).collect::<Result<_, _>>()?;
    Ok(match pairs.is_empty() {
        true => vec![Arc::new(all)],
        false => pairs.iter().map(pulls::provider).collect(),
    })
}

async fn test_source(providers: Vec<Arc<dyn Provider>>) -> CommandResult {
    let mut is_whole = true;
    for provider in providers {
        let mut source = provider.open().await?;
        let description = source.describe().await?;
        if let Some(found_by) = &description.found_by {
            say(format_args!("changes    found by {found_by}"))?;
        }
        for (name, table) in &description.tables {
            is_whole &= table.problem.is_none();
            let promise = table.problem.clone().unwrap_or_else(|| table.promise.to_string());
            let untold = table.untold.as_ref().map(|why| format!(" (the binlog does not tell its changes: {why})"));
            say(format_args!("table      {name}: {promise}{}", untold.unwrap_or_default()))?;
        }
        for (name, why) in &description.undefined {
            say(format_args!("left out   {name}: {why}"))?;
        }
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn test_target(target: &Target) -> CommandResult {
    match Replica::existing(target).await? {
        None => say("replica    the file is not there yet, and is made by the first sync")?,
        Some(replica) => {
            let there = replica.inventory().await?;
            let tables =
                there.tables.keys().filter(|name| !name.starts_with("_pgflume_") && !name.starts_with("sqlite_"));
            say(format_args!("replica    answers, {} tables", tables.count()))?
        }
    };
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_or_token_in_a_url_is_seen_and_a_variable_is_none() {
        for (url, expected) in [
            ("postgres://reader@db/shop", false),
            ("postgres://reader:secret@db/shop", true),
            ("postgres://reader:@db/shop", false),
            ("postgres://reader:${PW}@db/shop", false),
            ("postgres://db/shop?password=x", true),
            ("libsql://x.turso.io?authToken=x", true),
            ("libsql://x.turso.io", false),
            ("file:a.db", false),
        ] {
            assert_eq!(holds_secret(url), expected, "{url}");
        }
    }
}
