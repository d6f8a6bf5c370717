//! Flags and environment → [`Config`]. Whatever is missing or malformed is one line that names the
//! variable and the mend; secrets come from the environment or from `…_FILE`, never from flags.

use crate::postgres::PgUrl;
use crate::schema::Schema;
use crate::secret::Secret;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The queue that Capgo's migration creates.
pub const DEFAULT_QUEUE: &str = "replicate_data_libsql";

/// PGMQ builds index names of up to 63 bytes from a queue's name; `_dead` has to fit too.
const QUEUE_NAME_BYTES: usize = 42;

/// A secret shorter than this is warned about: it can be guessed.
const SECRET_BYTES: usize = 16;

/// A configuration mistake: one line with the variable and the mend. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

fn wrong<T>(message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(message.into()))
}

/// What every command accepts. A flag wins over its environment variable.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Postgres, as URL or key-value string (better in the environment: it may hold a password)
    #[arg(long, env = "PGMQ_URL", hide_env_values = true, global = true)]
    pub pgmq_url: Option<Secret>,
    /// The replica: file:PATH, a path, http://, https:// or libsql://
    #[arg(long, env = "LIBSQL_URL", hide_env_values = true, global = true)]
    pub libsql_url: Option<Secret>,
    /// What is replicated
    #[arg(long, env = "SCHEMA_FILE", default_value = "schema.json", global = true)]
    pub schema_file: PathBuf,
    /// The PGMQ queue; its dead letters are in a queue of the same name with _dead behind it
    #[arg(long, env = "QUEUE_NAME", default_value = DEFAULT_QUEUE, global = true)]
    pub queue_name: String,
    /// Allow http:// to another host together with a token
    #[arg(long, env = "LIBSQL_INSECURE", global = true, num_args = 0..=1, default_missing_value = "1")]
    pub libsql_insecure: Option<String>,
    /// Most rows a second that snapshot and resync read from Postgres [default: no limit]
    #[arg(long, env = "SNAPSHOT_ROWS_PER_SECOND", global = true, value_name = "ROWS")]
    pub snapshot_rows_per_second: Option<String>,
    /// How long Postgres keeps acknowledged messages, so that a replica that lost its last batches is caught up
    /// from them: 30m, 2days, or 0 for not at all [default: 1h for a remote replica, 0 for a file]
    #[arg(long, env = "RETENTION", global = true, value_name = "TIME")]
    pub retention: Option<String>,
    /// A row or message that is larger becomes a dead letter before it is fetched. The worker needs some times as much
    /// memory: bytes, or with KiB, MiB or GiB behind [default: 64MiB]
    #[arg(long, env = "MAX_ROW_BYTES", global = true, value_name = "BYTES")]
    pub max_row_bytes: Option<String>,
    /// text, or json for machines
    #[arg(long, env = "LOG_FORMAT", default_value = "text", global = true)]
    pub log_format: String,
}

/// Where the replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A local libSQL file.
    File(PathBuf),
    /// A remote libSQL: base URL without a trailing slash, and its bearer token.
    Remote {
        /// `http://…` or `https://…`.
        url: String,
        /// `LIBSQL_AUTH_TOKEN`.
        token: Option<Secret>,
    },
}

impl Target {
    /// How long messages are kept for it where nothing else is asked for.
    pub fn default_retention(&self) -> Duration {
        match self {
            Self::File(_) => Duration::ZERO,
            Self::Remote { .. } => REMOTE_RETENTION,
        }
    }
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
    /// Bytes beyond which a row or a message is not fetched.
    pub row_bytes: i64,
}

/// What a row or a message may have where nothing else is asked for: more than sqld and Turso take of a value.
pub const DEFAULT_ROW_BYTES: i64 = 64 * 1024 * 1024;

/// What Postgres can make a text of.
const MOST_ROW_BYTES: i64 = 1024 * 1024 * 1024;

/// Marks are small, and a server that fails over loses seconds (Bunny Database: up to 10 s or 4,096 frames).
const REMOTE_RETENTION: Duration = Duration::from_secs(3600);

/// A checked queue name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueName(String);

impl QueueName {
    /// Lower case letters, digits and `_`, at most 42 bytes: what PGMQ takes and what leaves room for `_dead`.
    pub fn parse(name: &str) -> Result<Self, ConfigError> {
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if name.is_empty() || !plain || name.len() > QUEUE_NAME_BYTES {
            return wrong(format!(
                "QUEUE_NAME must be 1 to {QUEUE_NAME_BYTES} lower case letters, digits and underscores, such as {DEFAULT_QUEUE}"
            ));
        }
        Ok(Self(name.to_owned()))
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The queue's table, quoted.
    pub fn table(&self) -> String {
        format!("pgmq.\"q_{}\"", self.0)
    }
    /// The name of the dead-letter queue.
    pub fn dead(&self) -> String {
        format!("{}_dead", self.0)
    }
    /// The dead-letter queue's table, quoted.
    pub fn dead_table(&self) -> String {
        format!("pgmq.\"q_{}_dead\"", self.0)
    }
}

impl Options {
    /// Checks everything that a drain needs.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let target = self.target()?;
        Ok(Config {
            postgres: self.postgres()?,
            retention: self.retention(&target)?,
            target,
            schema: self.schema()?,
            queue: QueueName::parse(&self.queue_name)?,
            rows_per_second: self.rows_per_second()?,
            row_bytes: self.row_bytes()?,
        })
    }

    fn retention(&self, target: &Target) -> Result<Duration, ConfigError> {
        match non_empty(self.retention.as_deref()) {
            None => Ok(target.default_retention()),
            Some("0") => Ok(Duration::ZERO),
            Some(text) => humantime::parse_duration(text).map_err(|e| {
                ConfigError(format!("RETENTION is no time ({e}): write it like 90s, 30m, 1h or 2days, or 0"))
            }),
        }
    }

    fn row_bytes(&self) -> Result<i64, ConfigError> {
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

    fn rows_per_second(&self) -> Result<Option<u32>, ConfigError> {
        match non_empty(self.snapshot_rows_per_second.as_deref()).map(str::parse::<u32>) {
            None => Ok(None),
            Some(Ok(rows)) if rows > 0 => Ok(Some(rows)),
            Some(_) => {
                wrong("SNAPSHOT_ROWS_PER_SECOND must be a number of rows from 1 to 4294967295, or empty for no limit")
            }
        }
    }

    /// The source.
    pub fn postgres(&self) -> Result<PgUrl, ConfigError> {
        match given(self.pgmq_url.as_ref()).map(str::to_owned).or(from_file("PGMQ_URL")?) {
            Some(text) => PgUrl::parse(&text).or_else(|problem| wrong(format!("PGMQ_URL {problem}"))),
            None => wrong(
                "PGMQ_URL is missing: set it to a Postgres URL such as postgres://user:password@host:5432/database",
            ),
        }
    }

    /// Another libSQL with the replica's token: a read replica of it.
    pub fn target_at(&self, url: &str) -> Result<Target, ConfigError> {
        let insecure = self.libsql_insecure.as_deref().is_some_and(|v| v == "1" || v == "true");
        let token = if url.contains("://") { secret("LIBSQL_AUTH_TOKEN")? } else { None };
        target(url, token, insecure)
    }

    /// The replica.
    pub fn target(&self) -> Result<Target, ConfigError> {
        let insecure = self.libsql_insecure.as_deref().is_some_and(|v| v == "1" || v == "true");
        match given(self.libsql_url.as_ref()).map(str::to_owned).or(from_file("LIBSQL_URL")?) {
            Some(text) => target(&text, secret("LIBSQL_AUTH_TOKEN")?, insecure),
            None => wrong("LIBSQL_URL is missing: set it to file:PATH, https://… or libsql://…"),
        }
    }

    /// The replica, where one is named.
    pub fn target_if_any(&self) -> Result<Option<Target>, ConfigError> {
        let is_named = given(self.libsql_url.as_ref()).is_some() || from_file("LIBSQL_URL")?.is_some();
        is_named.then(|| self.target()).transpose()
    }

    /// What is replicated.
    pub fn schema(&self) -> Result<Arc<Schema>, ConfigError> {
        let path = &self.schema_file;
        let text = std::fs::read_to_string(path).or_else(|e| {
            wrong(format!(
                "SCHEMA_FILE {}: cannot be read ({e}); name the file that says what is replicated, or write it with `pgflume init`",
                path.display()
            ))
        })?;
        match Schema::parse(&text) {
            Ok(schema) => Ok(Arc::new(schema)),
            Err(e) => wrong(format!("SCHEMA_FILE {}: {} {}", path.display(), e.path, e.problem)),
        }
    }
}

/// Reads `LIBSQL_URL`.
pub fn target(text: &str, token: Option<Secret>, insecure: bool) -> Result<Target, ConfigError> {
    let forms = "use file:PATH, a path, http://, https:// or libsql://";
    if let Some(path) = text.strip_prefix("file:") {
        let path = match path.strip_prefix("//") {
            Some(absolute) if absolute.starts_with('/') => absolute,
            Some(_) => return wrong("LIBSQL_URL file:// needs an absolute path: use file:PATH or file:///PATH"),
            None => path,
        };
        return file(path);
    }
    let Some((scheme, _)) = text.split_once("://") else {
        return file(text);
    };
    let https = match scheme {
        "libsql" | "https" => true,
        "http" => false,
        other => {
            return wrong(format!("LIBSQL_URL begins with {other}://, which is not supported: {forms}"));
        }
    };
    let address = text.replacen("libsql://", "https://", 1);
    if address.contains('#') {
        return wrong("LIBSQL_URL must hold no fragment (#…)");
    }
    let Ok(url) = url::Url::parse(&address) else {
        return wrong(format!("LIBSQL_URL is not a valid URL: {forms}"));
    };
    if url.password().is_some() || !url.username().is_empty() || url.query().is_some() {
        return wrong("LIBSQL_URL must hold no user, password or query: put the token in LIBSQL_AUTH_TOKEN");
    }
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => return wrong(format!("LIBSQL_URL names no host: {forms}")),
    };
    if !https && !loopback && token.is_some() && !insecure {
        return wrong(
            "LIBSQL_URL would send LIBSQL_AUTH_TOKEN unencrypted: use https://, or set LIBSQL_INSECURE=1 on a network that you trust",
        );
    }
    Ok(Target::Remote { url: url.as_str().trim_end_matches('/').to_owned(), token })
}

fn file(path: &str) -> Result<Target, ConfigError> {
    if path.is_empty() || path == ":memory:" || path.contains(['?', '\0']) {
        return wrong("LIBSQL_URL names no file: use file:PATH, such as file:replica.db (no parameters)");
    }
    Ok(Target::File(Path::new(path).to_path_buf()))
}

fn non_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|t| !t.is_empty())
}

/// The URLs are kept as secrets: people put passwords into them, also where they do not belong.
fn given(url: Option<&Secret>) -> Option<&str> {
    non_empty(url.map(Secret::expose))
}

/// The value of `NAME_FILE`'s file without its last line break.
fn from_file(name: &str) -> Result<Option<String>, ConfigError> {
    let variable = format!("{name}_FILE");
    match std::env::var(&variable) {
        Ok(path) if !path.is_empty() => match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned())),
            Err(e) => wrong(format!("{variable} names a file that cannot be read ({e}): check its path and rights")),
        },
        _ => Ok(None),
    }
}

/// A secret from `NAME` or `NAME_FILE`; `None` if neither is set, an error if it is empty.
pub fn secret(name: &str) -> Result<Option<Secret>, ConfigError> {
    let text = match std::env::var(name) {
        Ok(text) => Some(text),
        Err(std::env::VarError::NotPresent) => from_file(name)?,
        Err(std::env::VarError::NotUnicode(_)) => return wrong(format!("{name} is not UTF-8")),
    };
    match text.as_deref() {
        Some("") => wrong(format!("{name} is empty: set it to a secret of at least {SECRET_BYTES} bytes, or unset it")),
        Some(text) => Ok(Some(Secret::new(text))),
        None => Ok(None),
    }
}

/// The secrets of `serve`.
#[derive(Debug, Clone)]
pub struct Signatures {
    /// `WEBHOOK_SIGNATURE`, and `WEBHOOK_SIGNATURE_PREVIOUS` while rotating.
    pub webhook: Vec<Secret>,
    /// What `/nuke` takes: `NUKE_SIGNATURE`, else the same as everything.
    pub nuke: Vec<Secret>,
}

impl Signatures {
    /// Reads them from the environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        let Some(current) = secret("WEBHOOK_SIGNATURE")? else {
            return wrong("WEBHOOK_SIGNATURE is missing: set it to the secret that callers of /sync send");
        };
        let mut webhook = vec![current];
        webhook.extend(secret("WEBHOOK_SIGNATURE_PREVIOUS")?);
        let nuke = match secret("NUKE_SIGNATURE")? {
            Some(own) => vec![own],
            None => webhook.clone(),
        };
        for (name, list) in [("WEBHOOK_SIGNATURE", &webhook), ("NUKE_SIGNATURE", &nuke)] {
            for secret in list {
                check_signature(name, secret)?;
            }
        }
        Ok(Self { webhook, nuke })
    }
}

fn check_signature(name: &str, secret: &Secret) -> Result<(), ConfigError> {
    use base64::Engine as _;
    let text = secret.expose();
    let bytes = match text.strip_prefix("whsec_") {
        Some(encoded) => match base64::engine::general_purpose::STANDARD.decode(encoded) {
            Ok(key) if key.is_empty() => return wrong(format!("{name} is empty after whsec_: copy the secret again")),
            Ok(key) => key.len(),
            Err(_) => {
                return wrong(format!("{name} begins with whsec_ but is not base64 after it: copy the secret again"));
            }
        },
        None => text.len(),
    };
    if bytes < SECRET_BYTES {
        tracing::warn!("{name} is shorter than {SECRET_BYTES} bytes and could be guessed: make it longer");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_file_or_an_http_address() {
        let file = |p: &str| Ok(Target::File(p.into()));
        let remote = |u: &str| Ok(Target::Remote { url: u.into(), token: None });
        let cases = [
            ("file:a.db", file("a.db")),
            ("file:///tmp/a.db", file("/tmp/a.db")),
            ("a/b.db", file("a/b.db")),
            ("libsql://x.turso.io", remote("https://x.turso.io")),
            ("https://x.turso.io/", remote("https://x.turso.io")),
            ("http://10.0.0.1:8080/db", remote("http://10.0.0.1:8080/db")),
        ];
        for (text, expected) in cases {
            assert_eq!(target(text, None, false), expected, "{text}");
        }
        for bad in ["ws://x", "file:", "", "http://", "libsql://u:p@x", "https://x?authToken=y", ":memory:"] {
            let error = target(bad, None, false).unwrap_err().0;
            assert!(error.starts_with("LIBSQL_URL "), "{bad}: {error}");
        }
    }

    #[test]
    fn a_token_is_not_sent_unencrypted_to_another_host() {
        let token = || Some(Secret::new("t"));
        assert!(target("http://example.org", token(), false).is_err());
        assert!(target("http://example.org", token(), true).is_ok());
        for loopback in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://example.org"] {
            assert!(target(loopback, token(), false).is_ok(), "{loopback}");
        }
    }

    #[test]
    fn queue_names_are_plain() {
        assert!(QueueName::parse("replicate_data_libsql").is_ok());
        for bad in ["", "A", "a-b", "a'; drop table x; --", "a b", &"a".repeat(43)] {
            assert!(QueueName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2hunter2")), "[secret]");
    }
}
