//! `pgflume demo`: see [`crate::demo`].

use super::outcome::CommandResult;
use crate::demo;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Leave Postgres running and the replica in place
    #[arg(long)]
    keep: bool,
    /// A pull in place of triggers and a queue: nothing is installed, and the login may only read
    #[arg(long, conflicts_with = "keep")]
    pull: bool,
    /// A pull from a MariaDB, or a MySQL, that follows its binlog (needs `mariadbd`, Debian's mariadb-server-core, or `mysqld`)
    #[arg(long, conflicts_with_all = ["keep", "pull"])]
    mysql: bool,
}

pub(super) async fn run(args: DemoArgs) -> CommandResult {
    let equal = match (args.pull, args.mysql) {
        (_, true) => demo::mysql::run().await?,
        (true, _) => demo::pull::run().await?,
        _ => demo::run(args.keep).await?,
    };
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
