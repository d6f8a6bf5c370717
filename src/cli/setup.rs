//! `pgflume setup`: arguments → [`crate::operate::alter`] for both sides, or the script for Postgres → words on the
//! terminal.

use super::outcome::CommandResult;
use super::output::print;
use crate::config::{GlobalOptions, line, signature};
use crate::core::config_error::ConfigError;
use crate::core::queue_name::QueueName;
use crate::operate::alter;
use crate::operate::alter::Sides;
use crate::postgres::capture;
use crate::postgres::capture::SetupOptions;
use std::process::ExitCode;

/// Make Postgres ready: queue, capture triggers, cron job, roles; and after an edit of schema.json alter both
/// sides (the replica where LIBSQL_URL is set). Safe to run again
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SetupArgs {
    /// Write the SQL to standard output and change nothing
    #[arg(long)]
    pub print: bool,
    /// Say what would be changed in Postgres and in the replica, and change nothing
    #[arg(long, conflicts_with = "print")]
    pub plan: bool,
    /// Drop from the replica what schema.json no longer names, and end the capture of such tables
    #[arg(long)]
    pub allow_drop: bool,
    /// Also remove the row triggers and the cron job of the original migration, and the API roles' right to execute its
    /// functions that return the worker's address and secret
    #[arg(long)]
    pub take_over: bool,
    /// With --take-over: leave everybody the right to execute the original migration's functions, which return the
    /// worker's address and secret
    #[arg(long, requires = "take_over")]
    pub keep_grants: bool,
    /// Where cron posts, such as https://worker.example.org/sync
    #[arg(long, env = "SYNC_URL", hide_env_values = true, value_parser = line)]
    pub sync_url: Option<String>,
    /// Tables of schema.json that logical replication fills: they get row triggers
    #[arg(long, value_name = "TABLE", num_args = 1.., value_delimiter = ',')]
    pub row_triggers: Vec<String>,
    /// When cron posts if it has no job yet [default: */5 * * * *]
    #[arg(long, value_name = "CRON")]
    pub schedule: Option<String>,
    /// For this sync of pgflume.json, which a queue feeds
    #[arg(long, value_name = "NAME")]
    pub sync: Option<String>,
}

/// Runs the command.
pub async fn run(args: SetupArgs, options: &GlobalOptions) -> CommandResult {
    let (postgres, target, schema, queue) = match &args.sync {
        None => {
            (options.postgres()?, options.target_if_any()?, options.schema()?, QueueName::parse(&options.queue_name)?)
        }
        Some(_) => {
            let chosen = options.chosen(args.sync.as_deref())?;
            let config = chosen.queued("nothing is installed in its source, and nothing has to be")?;
            (config.postgres, Some(config.target), config.schema, config.queue)
        }
    };
    let wanted = SetupOptions {
        take_over: args.take_over,
        keep_grants: args.keep_grants,
        sync_url: args.sync_url.filter(|url| !url.is_empty()).map(|url| sync_url(&url)).transpose()?,
        webhook_signature: signature("WEBHOOK_SIGNATURE")?,
        row_triggers: args.row_triggers.into_iter().collect(),
        schedule: args.schedule,
        allow_drop: args.allow_drop,
    };
    if args.print {
        print(capture::print(&postgres, &schema, &queue, &wanted).await?)?;
    } else {
        let sides = Sides { postgres, target, schema, queue, wanted };
        let plan = alter::plan(&sides).await?;
        if args.plan {
            print(plan)?;
        } else {
            print(alter::apply(&sides, plan).await?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn sync_url(text: &str) -> Result<String, ConfigError> {
    match url::Url::parse(text) {
        // A URL's parser would drop line breaks, and pg_net would not.
        Ok(url) if matches!(url.scheme(), "http" | "https") && !text.contains(is_unfit) => Ok(text.to_owned()),
        _ => Err(ConfigError(
            "SYNC_URL must be the worker's address as Postgres reaches it, such as https://worker.example.org/sync"
                .into(),
        )),
    }
}

fn is_unfit(c: char) -> bool {
    c.is_control() || c.is_whitespace()
}
