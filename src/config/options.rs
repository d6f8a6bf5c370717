//! Flags and environment → [`Config`].

use super::feeding::{Feeding, feeding};
use super::file::ConfigFile;
use super::secrets::{from_file, secret};
use crate::core::config_error::{ConfigError, trimmed, wrong};
use crate::core::queue_name::{DEFAULT_QUEUE, QueueName};
use crate::core::schema::Schema;
use crate::core::secret::Secret;
use crate::postgres::PgUrl;
use crate::postgres::catalog::DEFAULT_ROW_BYTES;
use crate::replica::target::{Target, target};
use clap::builder::{PathBufValueParser, TypedValueParser as _};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Of a flag or variable: see [`trimmed`].
pub(crate) fn line(text: &str) -> Result<String, Infallible> {
    Ok(trimmed(text).to_owned())
}

pub(crate) fn secret_line(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(trimmed(text)))
}

fn path_line(path: PathBuf) -> PathBuf {
    path.to_str().map(trimmed).map_or(path.clone(), PathBuf::from)
}

/// What every command accepts. A flag wins over its environment variable.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct GlobalOptions {
    /// Postgres, as URL or key-value string (better in the environment: it may hold a password)
    #[arg(long, env = "PGMQ_URL", hide_env_values = true, global = true, value_parser = secret_line)]
    pub pgmq_url: Option<Secret>,
    /// The replica: file:PATH, a path, http://, https:// or libsql://
    #[arg(long, env = "LIBSQL_URL", hide_env_values = true, global = true, value_parser = secret_line)]
    pub libsql_url: Option<Secret>,
    /// What is replicated
    #[arg(long, env = "SCHEMA_FILE", default_value = "schema.json", global = true, value_parser = PathBufValueParser::new().map(path_line))]
    pub schema_file: PathBuf,
    /// Named connections, and the syncs between them [default: pgflume.json, if there is one]
    #[arg(long, env = "CONFIG_FILE", global = true, value_name = "FILE", value_parser = PathBufValueParser::new().map(path_line))]
    pub config_file: Option<PathBuf>,
    /// The PGMQ queue; its dead letters are in a queue of the same name with _dead behind it
    #[arg(long, env = "QUEUE_NAME", value_parser = line, default_value = DEFAULT_QUEUE, global = true)]
    pub queue_name: String,
    /// Allow http:// to another host together with a token
    #[arg(long, env = "LIBSQL_INSECURE", value_parser = line, global = true, num_args = 0..=1, default_missing_value = "1")]
    pub libsql_insecure: Option<String>,
    /// Take over a replica that has tables of these names with rows in them, and that pgflume has never written to:
    /// Postgres' rows replace those
    #[arg(long, global = true)]
    pub adopt: bool,
    /// Most rows a second that snapshot and resync read from Postgres [default: no limit]
    #[arg(long, env = "SNAPSHOT_ROWS_PER_SECOND", value_parser = line, global = true, value_name = "ROWS")]
    pub snapshot_rows_per_second: Option<String>,
    /// How long Postgres keeps acknowledged messages, so that a replica that lost its last batches is caught up
    /// from them: 30m, 2days, or 0 for not at all [default: 1h for a remote replica, 0 for a file]
    #[arg(long, env = "RETENTION", value_parser = line, global = true, value_name = "TIME")]
    pub retention: Option<String>,
    /// How often _pgflume_freshness.checked_at moves while nothing changes, so that readers can tell idle from dead: 10s,
    /// 1m, or 0 for not at all [default: 10s for a file, 0 for a remote replica, where writes may be billed]
    #[arg(long, env = "HEARTBEAT", value_parser = line, global = true, value_name = "TIME")]
    pub heartbeat: Option<String>,
    /// Where outgoing events go, signed as Standard Webhooks with EVENTS_SECRET, else WEBHOOK_SIGNATURE
    #[arg(long, env = "EVENTS_URL", hide_env_values = true, global = true, value_parser = secret_line, value_name = "URL")]
    pub events_url: Option<Secret>,
    /// A row or message that is larger becomes a dead letter before it is fetched. The worker needs about three times as
    /// much memory: bytes, or with KiB, MiB or GiB behind [default: 64MiB]
    #[arg(long, env = "MAX_ROW_BYTES", value_parser = line, global = true, value_name = "BYTES")]
    pub max_row_bytes: Option<String>,
    /// How long the log of changes is kept that clients are fed from; who was away for longer begins anew: 24h, 2days
    /// [default: 24h]
    #[arg(long, env = "FEED_RETENTION", value_parser = line, global = true, value_name = "TIME")]
    pub feed_retention: Option<String>,
    /// After how long behind a backlog clients are told the end of a step though the tables do not equal one moment of
    /// Postgres together: 30s, 5m, or 0 for never [default: never]
    #[arg(long, env = "FEED_PATIENCE", value_parser = line, global = true, value_name = "TIME")]
    pub feed_patience: Option<String>,
    /// text, or json for machines
    #[arg(long, env = "LOG_FORMAT", value_parser = line, default_value = "text", global = true)]
    pub log_format: String,
}

/// Everything that a drain needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The source.
    pub postgres: PgUrl,
    /// The replica.
    pub target: Target,
    /// What is replicated.
    pub schema: Arc<Schema>,
    /// The queue.
    pub queue: QueueName,
    /// Most rows a second that rebuilding a table reads; `None`: as fast as it goes.
    pub rows_per_second: Option<u32>,
    /// How long acknowledged messages are kept; zero: not at all.
    pub retention: Duration,
    /// How often the replica is told that nothing has changed; `None`: never.
    pub heartbeat: Option<Duration>,
    /// Whether others are told of events: by whoever delivers them.
    pub has_events: bool,
    /// Bytes beyond which a row or a message is not fetched.
    pub row_bytes: i64,
    /// Whether rows of a replica that was never written to may be replaced.
    pub adopt: bool,
    /// How clients are fed from the replica.
    pub feeding: Feeding,
}

/// The file of connections and syncs where none is named.
const CONFIG_FILE: &str = "pgflume.json";

/// The shortest heartbeat: each is a transaction on the replica.
const LEAST_HEARTBEAT: Duration = Duration::from_secs(1);

/// Where the container image looks for `schema.json`. It brings none of its own.
const IMAGE_SCHEMA: &str = "/pgflume/schema.json";
const MOUNT_SCHEMA: &str = "mount the file that says what is replicated there, with `-v ./schema.json:/pgflume/schema.json:ro` (Docker makes a directory of it where ./schema.json does not exist); `pgflume init --stdout` writes one";
const NAME_SCHEMA: &str = "name the file that says what is replicated, or write it with `pgflume init`";

/// What Postgres can make a text of.
const MOST_ROW_BYTES: i64 = 1024 * 1024 * 1024;

impl GlobalOptions {
    /// Checks everything that a drain needs.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let target = self.target()?;
        Ok(Config {
            postgres: self.postgres()?,
            retention: self.retention(&target)?,
            heartbeat: self.heartbeat(&target)?,
            has_events: false,
            target,
            schema: self.schema()?,
            queue: QueueName::parse(&self.queue_name)?,
            rows_per_second: self.rows_per_second()?,
            row_bytes: self.row_bytes()?,
            adopt: self.adopt,
            feeding: self.feeding()?,
        })
    }

    pub(crate) fn retention(&self, target: &Target) -> Result<Duration, ConfigError> {
        match non_empty(self.retention.as_deref()) {
            None => Ok(target.default_retention()),
            Some("0") => Ok(Duration::ZERO),
            Some(text) => humantime::parse_duration(text).map_err(|e| {
                ConfigError(format!("RETENTION is no time ({e}): write it like 90s, 30m, 1h or 2days, or 0"))
            }),
        }
    }

    pub(crate) fn feeding(&self) -> Result<Feeding, ConfigError> {
        feeding(non_empty(self.feed_retention.as_deref()), non_empty(self.feed_patience.as_deref()))
    }

    /// Where outgoing events go.
    pub(crate) fn events_url(&self) -> Result<Option<url::Url>, ConfigError> {
        let Some(text) = given(self.events_url.as_ref()) else { return Ok(None) };
        match url::Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
            _ => wrong("EVENTS_URL is no address: write it like https://example.org/hooks/pgflume"),
        }
    }

    /// How often a replica is told that nothing has changed; `None`: never.
    pub(crate) fn heartbeat(&self, target: &Target) -> Result<Option<Duration>, ConfigError> {
        match non_empty(self.heartbeat.as_deref()) {
            None => Ok(target.default_heartbeat()),
            Some("0") => Ok(None),
            Some(text) => match humantime::parse_duration(text) {
                Ok(time) if time >= LEAST_HEARTBEAT => Ok(Some(time)),
                Ok(_) => wrong("HEARTBEAT is too short: write 1s or more, or 0 for not at all"),
                Err(e) => wrong(format!("HEARTBEAT is no time ({e}): write it like 10s, 1m or 1h, or 0")),
            },
        }
    }

    /// Bytes beyond which a row is not fetched.
    pub(crate) fn row_bytes(&self) -> Result<i64, ConfigError> {
        let Some(text) = non_empty(self.max_row_bytes.as_deref()) else { return Ok(DEFAULT_ROW_BYTES) };
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];
        let read = |(unit, bytes): (&str, i64)| text.strip_suffix(unit)?.trim().parse::<i64>().ok()?.checked_mul(bytes);
        match units.into_iter().find_map(read).filter(|bytes| (1 << 10..=MOST_ROW_BYTES).contains(bytes)) {
            Some(bytes) => Ok(bytes),
            None => {
                wrong("MAX_ROW_BYTES must be 1KiB to 1GiB: a number of bytes, or one with KiB, MiB or GiB behind it")
            }
        }
    }

    pub(crate) fn rows_per_second(&self) -> Result<Option<u32>, ConfigError> {
        match non_empty(self.snapshot_rows_per_second.as_deref()).map(str::parse::<u32>) {
            None => Ok(None),
            Some(Ok(rows)) if rows > 0 => Ok(Some(rows)),
            Some(_) => {
                wrong("SNAPSHOT_ROWS_PER_SECOND must be a number of rows from 1 to 4294967295, or empty for no limit")
            }
        }
    }

    /// What the file of connections and syncs says; nothing where there is none.
    pub fn file(&self) -> Result<ConfigFile, ConfigError> {
        match &self.config_file {
            Some(path) => ConfigFile::load(path, true),
            None => ConfigFile::load(CONFIG_FILE.as_ref(), false),
        }
    }

    /// Whether a token may be sent unencrypted.
    pub(crate) fn is_insecure(&self) -> bool {
        self.libsql_insecure.as_deref().is_some_and(|v| v == "1" || v == "true")
    }

    /// Whether the source and the replica of a queue are named, beside the syncs of the file.
    pub(crate) fn names_a_pair(&self, file: &ConfigFile) -> Result<bool, ConfigError> {
        // A file's sync that has the same definitions does what the pair would.
        let own = std::path::absolute(&self.schema_file).ok();
        let is_same = |schema: &PathBuf| std::path::absolute(file.beside(schema)).ok() == own;
        if file.syncs.values().any(|sync| sync.schema.as_ref().is_some_and(is_same)) {
            return Ok(false);
        }
        let has_source = given(self.pgmq_url.as_ref()).is_some() || from_file("PGMQ_URL")?.is_some();
        Ok(has_source && self.target_if_any()?.is_some() && self.schema_file.exists())
    }

    /// The source.
    pub fn postgres(&self) -> Result<PgUrl, ConfigError> {
        match given(self.pgmq_url.as_ref()).map(str::to_owned).or(from_file("PGMQ_URL")?) {
            Some(text) => {
                let url = PgUrl::parse(trimmed(&text)).or_else(|problem| wrong(format!("PGMQ_URL {problem}")))?;
                url.check_files().map_err(ConfigError)?;
                Ok(url)
            }
            None => wrong(
                "PGMQ_URL is missing: set it to a Postgres URL such as postgres://user:password@host:5432/database",
            ),
        }
    }

    /// Another libSQL with the replica's token: a read replica of it.
    pub(crate) fn target_at(&self, url: &str) -> Result<Target, ConfigError> {
        let insecure = self.is_insecure();
        let token = if url.contains("://") { secret("LIBSQL_AUTH_TOKEN")? } else { None };
        target(url, token, insecure)
    }

    /// The replica.
    pub fn target(&self) -> Result<Target, ConfigError> {
        let insecure = self.is_insecure();
        match given(self.libsql_url.as_ref()).map(str::to_owned).or(from_file("LIBSQL_URL")?) {
            Some(text) => target(&text, secret("LIBSQL_AUTH_TOKEN")?, insecure),
            None => wrong("LIBSQL_URL is missing: set it to file:PATH, https://… or libsql://…"),
        }
    }

    /// The replica, where one is named.
    pub(crate) fn target_if_any(&self) -> Result<Option<Target>, ConfigError> {
        let is_named = given(self.libsql_url.as_ref()).is_some() || from_file("LIBSQL_URL")?.is_some();
        is_named.then(|| self.target()).transpose()
    }

    /// What is replicated.
    pub fn schema(&self) -> Result<Arc<Schema>, ConfigError> {
        let path = &self.schema_file;
        let text = std::fs::read_to_string(path).or_else(|e| {
            wrong(format!(
                "SCHEMA_FILE {}: cannot be read ({e}); {}",
                path.display(),
                if path == Path::new(IMAGE_SCHEMA) { MOUNT_SCHEMA } else { NAME_SCHEMA }
            ))
        })?;
        match Schema::parse(&text) {
            Ok(schema) => Ok(Arc::new(schema)),
            Err(e) => wrong(format!("SCHEMA_FILE {}: {} {}", path.display(), e.path, e.problem)),
        }
    }
}

/// Where clients' writes go, where they are taken.
pub(crate) fn push_url(flag: Option<&Secret>) -> Result<Option<PgUrl>, ConfigError> {
    let Some(text) = given(flag).map(str::to_owned).or(from_file("PUSH_URL")?) else { return Ok(None) };
    let url = PgUrl::parse(trimmed(&text)).or_else(|problem| wrong(format!("PUSH_URL {problem}")))?;
    url.check_files().map_err(ConfigError)?;
    Ok(Some(url))
}

fn non_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|t| !t.is_empty())
}

/// The URLs are kept as secrets: people put passwords into them, also where they do not belong.
fn given(url: Option<&Secret>) -> Option<&str> {
    non_empty(url.map(Secret::expose))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2hunter2")), "[secret]");
    }
}
