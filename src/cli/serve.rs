//! `pgflume serve`: the HTTP worker until SIGTERM or SIGINT.

use super::outcome::CommandResult;
use super::pulls;
use crate::config::{Config, GlobalOptions, Pair, Signatures, TokenOptions, line, push_url, secret_line, signature};
use crate::core::config_error::ConfigError;
use crate::core::error;
use crate::core::secret::Secret;
use crate::http;
use crate::http::auth::Auth;
use crate::http::feed::Feed;
use crate::http::{App, Lane};
use crate::postgres::{PgUrl, Purpose};
use crate::pull::{Limiter, Scheduled, Service};
use crate::push::Pushes;
use crate::sync::Worker;
use futures_util::FutureExt as _;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};

/// Clients whose connections may wait to be taken, as far as the system allows (`net.core.somaxconn`); whom it turns away
/// tries again after a second.
const CLIENTS_AT_ONCE: u32 = 16_384;

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
    /// From when on /ready says that a queue or sync is behind: 30s, 15m [default: three intervals; 30s when following]
    #[arg(long, env = "LAG_LIMIT", value_parser = line, value_name = "TIME")]
    lag_limit: Option<String>,
    /// Address and port at which clients are fed, as 127.0.0.1:3001 [default: they are not]
    #[arg(long, env = "FEED_BIND", value_parser = line, value_name = "ADDRESS")]
    feed_bind: Option<String>,
    #[command(flatten)]
    tokens: TokenOptions,
    /// Postgres as clients' writes log in, which are taken where clients are fed (better in the environment: it may hold a
    /// password) [default: they are not]
    #[arg(long, env = "PUSH_URL", hide_env_values = true, value_parser = secret_line, value_name = "URL")]
    push_url: Option<Secret>,
}

/// Whatever is missing or malformed, before a process of its own is started.
pub(super) fn check(args: &ServeArgs, options: &GlobalOptions) -> Result<(), ConfigError> {
    lag_limit(args.lag_limit.as_deref())?;
    push_url(args.push_url.as_ref())?;
    let file = options.file()?;
    options.pairs(&file, &[])?;
    if file.syncs.is_empty() || options.names_a_pair(&file)? {
        options.config()?;
    }
    args.tokens.sources()?;
    Signatures::from_env().map(drop)
}

pub(super) async fn run(args: ServeArgs, options: &GlobalOptions) -> CommandResult {
    let file = options.file()?;
    let pairs = options.pairs(&file, &[])?;
    // With a file, the pair of the variables runs where it is named.
    let config = if file.syncs.is_empty() || options.names_a_pair(&file)? { Some(options.config()?) } else { None };
    config.as_ref().map_or(Ok(()), |config| config.check_beside(&pairs))?;
    let auth = Auth::new(Signatures::from_env()?);
    let port: u16 = args.port.parse().map_err(|_| ConfigError("PORT must be a number from 0 to 65535".into()))?;
    let is_following = match args.follow.as_str() {
        "true" | "1" | "yes" | "on" => true,
        "false" | "0" | "no" | "off" | "" => false,
        _ => return Err(ConfigError("FOLLOW must be true or false".into()).into()),
    };
    let lag_limit = lag_limit(args.lag_limit.as_deref())?;
    let listener = TcpListener::bind((args.host.as_str(), port))
        .await
        .map_err(|e| ConfigError(format!("HOST and PORT cannot be listened on ({e}): choose others")))?;
    let queue = config.as_ref().map_or("", |config| config.queue.as_str());
    tracing::info!(address = %listener.local_addr()?, queue, syncs = pairs.len(), "listening");
    if let Some(config) = &config {
        tokio::spawn(warn_of_superuser(config.postgres.clone()));
    }
    let fed = match args.feed_bind.as_deref().filter(|address| !address.is_empty()) {
        Some(address) => Some(listen_for_clients(address).await.map_err(|e| {
            ConfigError(format!("FEED_BIND cannot be listened on ({e}): write it like 127.0.0.1:3001"))
        })?),
        None => None,
    };
    let events = events(options)?;
    let app =
        Arc::new(app(config, pairs, auth, is_following, events.is_some()).behind_after(lag_limit).telling(events));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
        tracing::info!("stopping after the step in hand");
    };
    let shutdown = shutdown.shared();
    let pushes = pushes(&args, &app).await?;
    let feeding = feed(fed, &app, &args.tokens, pushes, shutdown.clone())?;
    let (served, ()) = futures_util::join!(http::serve(listener, app, shutdown), feeding);
    served?;
    Ok(ExitCode::SUCCESS)
}

/// Listens as `TcpListener::bind` does, with room for a crowd that connects at once.
async fn listen_for_clients(address: &str) -> std::io::Result<TcpListener> {
    let mut refused = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in tokio::net::lookup_host(address).await? {
        let socket = || if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let listener = socket().and_then(|socket| {
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(CLIENTS_AT_ONCE)
        });
        match listener {
            Ok(listener) => return Ok(listener),
            Err(e) => refused = e,
        }
    }
    Err(refused)
}

/// Feeds clients where that is asked for.
fn feed<S: Future<Output = ()>>(
    listener: Option<TcpListener>,
    app: &App,
    tokens: &TokenOptions,
    pushes: Option<Arc<Pushes>>,
    stop: S,
) -> Result<impl Future<Output = ()> + use<S>, ConfigError> {
    let feed = Feed::of(app, tokens.sources()?, pushes.is_some())?;
    if let (Some(_), Some(feed)) = (&listener, &feed) {
        app.feeds(feed.figures());
    }
    match (&listener, &feed) {
        (Some(_), None) => {
            return Err(ConfigError(
                "FEED_BIND is set, and no table is fed: give one \"feed\": {\"public\": true} in schema.json, or leave FEED_BIND out".into(),
            ));
        }
        (None, Some(_)) => {
            tracing::warn!("tables are fed, and nobody can ask for them: set FEED_BIND to an address and a port")
        }
        _ => {}
    }
    Ok(async {
        if let (Some(listener), Some(feed)) = (listener, feed) {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "feeding clients");
            }
            http::feed::serve(listener, feed, pushes, stop).await;
        }
    })
}

/// Takes writes of clients where that is asked for. A login that could do more than its users is refused.
async fn pushes(args: &ServeArgs, app: &App) -> Result<Option<Arc<Pushes>>, ConfigError> {
    let writables = http::push::writables(app);
    let Some(url) = push_url(args.push_url.as_ref())? else {
        if !writables.is_empty() {
            tracing::warn!("tables are writable, and nobody can write them: set PUSH_URL to a login (docs/push.md)");
        }
        return Ok(None);
    };
    if writables.is_empty() {
        return Err(ConfigError(
            "PUSH_URL is set, and no table is writable: give one \"writable\" in schema.json, or leave PUSH_URL out"
                .into(),
        ));
    }
    if args.feed_bind.as_deref().is_none_or(str::is_empty) {
        return Err(ConfigError(
            "PUSH_URL is set, and FEED_BIND is not: writes are taken where clients are fed; set it to an address and a port".into(),
        ));
    }
    let pushes = Arc::new(Pushes::new(url, writables));
    app.takes(pushes.clone());
    match pushes.check().await {
        Ok(()) => {}
        Err(e) if e.needs_operator() => return Err(ConfigError(e.to_string())),
        Err(error) => tracing::warn!(%error, "writes of clients wait until PUSH_URL can be reached"),
    }
    Ok(Some(pushes))
}

/// Where outgoing events go, if anywhere.
fn events(options: &GlobalOptions) -> Result<Option<http::Events>, Box<dyn std::error::Error + Send + Sync>> {
    let Some(url) = options.events_url()? else { return Ok(None) };
    let secret = match signature("EVENTS_SECRET")? {
        Some(secret) => secret,
        None => Signatures::from_env()?.webhook.swap_remove(0),
    };
    Ok(Some(http::Events::new(url, &secret)?))
}

fn lag_limit(text: Option<&str>) -> Result<Option<Duration>, ConfigError> {
    match text.filter(|text| !text.is_empty()).map(humantime::parse_duration).transpose() {
        Ok(limit) if limit.is_none_or(|limit| !limit.is_zero()) => Ok(limit),
        _ => Err(ConfigError("LAG_LIMIT is no time: write it like 30s, 5m or 1h".into())),
    }
}

/// Queues and syncs that pull, behind `auth`.
fn app(config: Option<Config>, pairs: Vec<Pair>, auth: Auth, is_following: bool, has_events: bool) -> App {
    let lane = |config: Config| Lane::new(Worker::new(Config { has_events, ..config }), is_following);
    let (mut named, mut pulled) = (Vec::new(), Vec::new());
    let mut limiters: BTreeMap<String, Arc<Limiter>> = BTreeMap::new();
    for mut pair in pairs {
        match pair.config.take() {
            Some(config) => named.push((pair.definition.name, lane(config))),
            None => {
                let (every, retry_delay) = (pair.definition.every.time, pair.definition.retry_delay);
                let limiter = pair.limit.map(|limit| {
                    let made = || Arc::new(Limiter::new(limit.requests, limit.per));
                    limiters.entry(pair.definition.from.clone()).or_insert_with(made).clone()
                });
                let pull = pulls::pull(&pair);
                let pull = if has_events { pull.telling() } else { pull };
                pulled.push(Scheduled { pull, every, retry_delay, limiter });
            }
        }
    }
    App::of(config.map(lane), named, Service::new(pulled), auth)
}

/// Between two tries to ask Postgres who the worker is.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Says once that the worker has rights that it does not need.
async fn warn_of_superuser(postgres: PgUrl) {
    let sql = "select r.rolsuper from pg_catalog.pg_roles r where r.rolname operator(pg_catalog.=) current_user";
    let is_superuser = loop {
        let asked = async {
            let row = postgres.pinned(Purpose::Status).await?.query_typed_one(sql, &[]).await?;
            error::Result::<bool>::Ok(row.try_get(0)?)
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
