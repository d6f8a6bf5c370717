//! `pgflume serve`: the HTTP worker until SIGTERM or SIGINT.

use super::outcome::CommandResult;
use crate::config::{GlobalOptions, Signatures, line};
use crate::core::config_error::ConfigError;
use crate::core::error::Result;
use crate::http;
use crate::http::App;
use crate::http::auth::Auth;
use crate::postgres::{PgUrl, Purpose};
use crate::sync::Worker;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Port to listen on
    #[arg(long, env = "PORT", default_value = "3000", value_parser = line)]
    port: String,
    /// Address to listen on
    #[arg(long, env = "HOST", default_value = "127.0.0.1", value_parser = line)]
    host: String,
    /// Apply changes as they come, without waiting for calls of /sync
    #[arg(long, env = "FOLLOW", value_parser = line, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true)]
    follow: String,
}

pub(super) async fn run(args: ServeArgs, options: &GlobalOptions) -> CommandResult {
    let config = options.config()?;
    let auth = Auth::new(Signatures::from_env()?);
    let port: u16 = args.port.parse().map_err(|_| ConfigError("PORT must be a number from 0 to 65535".into()))?;
    let is_following = match args.follow.as_str() {
        "true" | "1" | "yes" | "on" => true,
        "false" | "0" | "no" | "off" | "" => false,
        _ => return Err(ConfigError("FOLLOW must be true or false".into()).into()),
    };
    let listener = TcpListener::bind((args.host.as_str(), port))
        .await
        .map_err(|e| ConfigError(format!("HOST and PORT cannot be listened on ({e}): choose others")))?;
    tracing::info!(address = %listener.local_addr()?, queue = config.queue.as_str(), "listening");
    tokio::spawn(warn_of_superuser(config.postgres.clone()));
    let app = App::new(Worker::new(config), auth);
    let app = Arc::new(if is_following { app.following() } else { app });
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
        tracing::info!("stopping after the step in hand");
    };
    http::serve(listener, app, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

/// Between two tries to ask Postgres who the worker is.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Says once that the worker has rights that it does not need.
async fn warn_of_superuser(postgres: PgUrl) {
    let sql = "select r.rolsuper from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) current_user";
    let is_superuser = loop {
        let asked = async {
            let row = postgres.pinned(Purpose::Status).await?.query_typed_one(sql, &[]).await?;
            Result::<bool>::Ok(row.try_get(0)?)
        };
        match asked.await {
            Ok(is_superuser) => break is_superuser,
            Err(e) => tracing::debug!(error = %e, "whether the worker is a superuser is asked again"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    };
    if is_superuser {
        tracing::warn!(
            "the worker logs in as a superuser: make it a role of its own and grant it pgflume_worker (docs/security.md)"
        );
    }
}
