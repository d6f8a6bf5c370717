//! `LIBSQL_URL` and its token → [`Target`]. No IO.

use super::store::{Opener, Store};
use crate::core::config_error::{ConfigError, plain, wrong};
use crate::core::secret::Secret;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often a file is told that nothing has changed.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Marks are small, and a server that fails over loses seconds (Bunny Database: up to 10 s or 4,096 frames).
const REMOTE_RETENTION: Duration = Duration::from_secs(3600);

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
    /// Stores that the caller opens, which no `LIBSQL_URL` asks for.
    Given(Given),
}

/// Stores of one database that a caller gives, and its name, which stands for the place where it is.
#[derive(Clone)]
pub struct Given {
    name: String,
    opener: Arc<dyn Opener>,
}

impl Given {
    /// Two databases that one queue may meet must not have the same name.
    pub fn new(name: impl Into<String>, opener: Arc<dyn Opener>) -> Self {
        Self { name: name.into(), opener }
    }

    /// What the caller called it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens a store. Fails as its opener does.
    pub async fn open(&self) -> crate::core::error::Result<Box<dyn Store>> {
        self.opener.open().await
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Given").field(&self.name).finish()
    }
}

/// Only what was cloned is the same: another opener of that name may open anything.
impl PartialEq for Given {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.opener, &other.opener)
    }
}

impl Eq for Given {}

impl Target {
    /// Whether it is a file that does not exist: whoever only looks does not make it.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::File(path) if !path.exists())
    }

    /// How often it is told that nothing has changed, where nothing else is asked for; `None`: never.
    pub fn default_heartbeat(&self) -> Option<Duration> {
        match self {
            Self::File(_) | Self::Given(_) => Some(HEARTBEAT),
            // Hosted ones bill what is written.
            Self::Remote { .. } => None,
        }
    }

    /// How long messages are kept for it where nothing else is asked for.
    pub fn default_retention(&self) -> Duration {
        match self {
            // Who gives a store knows what it can lose, and asks for something else where that is not enough.
            Self::File(_) | Self::Given(_) => Duration::ZERO,
            Self::Remote { .. } => REMOTE_RETENTION,
        }
    }
}

/// What `LIBSQL_URL` may be.
const FORMS: &str = "use file:PATH, a path, http://, https:// or libsql://";

/// Reads `LIBSQL_URL`.
pub fn target(text: &str, token: Option<Secret>, insecure: bool) -> Result<Target, ConfigError> {
    let text = plain("LIBSQL_URL", text)?;
    if let Some(path) = text.strip_prefix("file:") {
        return file_url(path);
    }
    match text.split_once("://") {
        None => file(text),
        Some(("libsql" | "https" | "http", _)) => remote(text, token, insecure),
        Some(("ws", _)) => {
            wrong("LIBSQL_URL begins with ws://: use http:// in its place, the same server answers there")
        }
        Some(("wss", _)) => {
            wrong("LIBSQL_URL begins with wss://: use https:// in its place, the same server answers there")
        }
        Some((other, _)) => wrong(format!("LIBSQL_URL begins with {other}://, which is not supported: {FORMS}")),
    }
}

/// What stands behind `file:`.
fn file_url(rest: &str) -> Result<Target, ConfigError> {
    let path = match rest.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => return wrong("LIBSQL_URL file:// needs an absolute path: use file:PATH or file:///PATH"),
        None => rest,
    };
    // What SQLite would make of it is what is done anyway.
    let path = path.strip_suffix("?mode=rwc").unwrap_or(path);
    if let Some(mode) = path.split_once("?mode=").map(|(_, mode)| mode)
        && ["ro", "rw", "memory"].contains(&mode)
    {
        return wrong(format!(
            "LIBSQL_URL asks for mode={mode}, but the worker writes the file, and makes it where it is missing: use file:PATH"
        ));
    }
    file(path)
}

fn file(path: &str) -> Result<Target, ConfigError> {
    if path.is_empty() || path.starts_with(":memory:") {
        return wrong("LIBSQL_URL names no file: use file:PATH, such as file:replica.db");
    }
    if path.contains('?') {
        return wrong("LIBSQL_URL must name the file without parameters: use file:PATH, such as file:replica.db");
    }
    let scheme = path.split_once(':').map(|(scheme, _)| scheme);
    if let Some(scheme @ ("libsql" | "http" | "https")) = scheme {
        return wrong(format!("LIBSQL_URL lacks the slashes of {scheme}://: {FORMS}"));
    }
    if let Some(scheme @ ("sqlite" | "sqlite3" | "jdbc" | "libsql+file")) = scheme {
        return wrong(format!("LIBSQL_URL begins with {scheme}:, which is not supported: use file:PATH"));
    }
    Ok(Target::File(Path::new(path).to_path_buf()))
}

fn remote(text: &str, token: Option<Secret>, insecure: bool) -> Result<Target, ConfigError> {
    if text.contains('#') {
        return wrong("LIBSQL_URL must hold no fragment (#...)");
    }
    let (address, query) = text.split_once('?').unwrap_or((text, ""));
    let is_plain = match query {
        "" => address.starts_with("http://"),
        "tls=0" => true,
        "tls=1" if !address.starts_with("http://") => false,
        _ if query.starts_with("tls=") => {
            return wrong("LIBSQL_URL has a tls that is not known: use https:// or libsql:// for TLS, http:// without");
        }
        _ => {
            return wrong("LIBSQL_URL must hold no user, password or query: put the token in LIBSQL_AUTH_TOKEN");
        }
    };
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let scheme = if is_plain { "http" } else { "https" };
    let Ok(url) = url::Url::parse(&format!("{scheme}://{rest}")) else {
        return wrong(format!("LIBSQL_URL is not a valid URL: {FORMS}"));
    };
    if url.password().is_some() || !url.username().is_empty() {
        return wrong("LIBSQL_URL must hold no user, password or query: put the token in LIBSQL_AUTH_TOKEN");
    }
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => return wrong(format!("LIBSQL_URL names no host: {FORMS}")),
    };
    if is_plain && !loopback && token.is_some() && !insecure {
        return wrong(
            "LIBSQL_URL would send LIBSQL_AUTH_TOKEN unencrypted: use https://, or set LIBSQL_INSECURE=1 on a network that you trust",
        );
    }
    Ok(Target::Remote { url: url.as_str().trim_end_matches('/').to_owned(), token })
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
            ("libsql://10.0.0.1:8080?tls=0", remote("http://10.0.0.1:8080")),
            ("file:a.db?mode=rwc", file("a.db")),
            ("file:a.db\n", file("a.db")),
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
}
