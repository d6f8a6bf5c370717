//! `PGMQ_URL` as libpq takes it → [`PgUrl`], completely checked. Holds no connection.

use std::fmt;
use std::time::Duration;
use tokio_postgres::config::Host;
use tokio_postgres::config::SslMode;

/// A server whose machine is gone, or the way to it, is noticed after so long, where the URL says nothing else.
const DEAD_PEER: Duration = Duration::from_secs(30);

/// Time for one connection attempt to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What libpq's `sslmode` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tls {
    /// disable, prefer, require: encrypted or not, but not checked.
    Unchecked(SslMode),
    /// verify-ca: the chain, not the name.
    VerifyCa,
    /// verify-full: the chain and the name.
    VerifyFull,
}

/// A parsed `PGMQ_URL`. `Debug` shows host and database only.
#[derive(Clone)]
pub struct PgUrl {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: Tls,
    pub(super) root_cert: Option<String>,
    /// The files of the client's own certificate and its key.
    pub(super) client_cert: Option<(String, String)>,
}

impl fmt::Debug for PgUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgUrl")
            .field("hosts", &self.config.get_hosts())
            .field("dbname", &self.config.get_dbname())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Parameters that tokio-postgres understands; others (`pgbouncer`, `schema`, …) belong to other clients.
const KNOWN: [&str; 18] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// Parameters of libpq that would be missed if they were ignored, and what to do without them.
const REFUSED: [(&str, &str); 8] = [
    ("sslpassword", "takes keys without a password only: write sslkey without one (openssl pkey)"),
    ("sslcrl", "reads no revocation lists: leave it out"),
    ("sslcrldir", "reads no revocation lists: leave it out"),
    ("require_auth", "cannot choose the server's way to authenticate: leave it out, and use sslmode=verify-full"),
    ("passfile", "reads no password file: put the password into PGMQ_URL, or the whole URL into PGMQ_URL_FILE's file"),
    ("service", "reads no service file: write host, user and dbname"),
    ("servicefile", "reads no service file: write host, user and dbname"),
    ("gssencmode", "speaks no GSSAPI: use sslmode in its place"),
];

/// How the parts of a URL are written.
const ENCODE: &str =
    "in user, password and database write # as %23, ? as %3F, @ as %40, / as %2F, : as %3A and % as %25";

/// What the parameters say beside what tokio-postgres reads.
#[derive(Default)]
struct Parameters {
    tls: Option<Tls>,
    wants_tls: bool,
    root_cert: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    kept: Vec<(String, String)>,
}

impl Parameters {
    fn read(pairs: Vec<(String, String)>) -> Result<Self, String> {
        let mut read = Self::default();
        for (key, value) in pairs {
            if let Some((_, remedy)) = REFUSED.iter().find(|(name, _)| *name == key) {
                if key == "gssencmode" && value != "require" {
                    continue;
                }
                return Err(format!("has {key}, but pgflume {remedy}"));
            }
            match key.as_str() {
                "sslmode" => read.tls = Some(parse_sslmode(&value)?),
                // Of other clients: it would be wrong to go on unencrypted.
                "ssl" => read.wants_tls = ["true", "1", "require"].contains(&value.as_str()),
                "sslrootcert" => read.root_cert = Some(value),
                "sslcert" => read.cert = Some(value),
                "sslkey" => read.key = Some(value),
                "ssl_min_protocol_version" if value == "TLSv1.3" => {
                    return Err("has ssl_min_protocol_version=TLSv1.3, but pgflume takes TLS 1.2, too: leave it out, and set it at the server".into());
                }
                "target_session_attrs" => read.kept.push((key, session_attrs(&value)?.to_owned())),
                _ if KNOWN.contains(&key.as_str()) => read.kept.push((key, value)),
                _ => {}
            }
        }
        Ok(read)
    }

    fn tls(&self) -> Tls {
        let unsaid = if self.wants_tls { SslMode::Require } else { SslMode::Prefer };
        match self.tls.unwrap_or(Tls::Unchecked(unsaid)) {
            Tls::Unchecked(SslMode::Require) if self.root_cert.is_some() => Tls::VerifyCa, // as libpq does
            tls => tls,
        }
    }

    fn client_cert(&self) -> Result<Option<(String, String)>, String> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(Some((cert.clone(), key.clone()))),
            (None, None) => Ok(None),
            (Some(_), None) => Err("has sslcert without sslkey: name the file of the certificate's key, too".into()),
            (None, Some(_)) => Err("has sslkey without sslcert: name the file of the key's certificate, too".into()),
        }
    }
}

impl PgUrl {
    /// Where it leads, for people: without password and parameters.
    pub fn place(&self) -> String {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let (user, database) = (self.config.get_user(), self.config.get_dbname());
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let database = database.map(|database| format!("/{database}")).unwrap_or_default();
        format!("{user}{}{database}", hosts.collect::<Vec<_>>().join(","))
    }

    /// Whether it goes to another machine without TLS, or without checking whom it talks to.
    pub(crate) fn is_open_to_others(&self) -> bool {
        let is_near = |host: &Host| match host {
            Host::Tcp(name) => name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
            Host::Unix(_) => true,
        };
        matches!(self.tls, Tls::Unchecked(_)) && !self.config.get_hosts().iter().all(is_near)
    }

    /// Parses a URL or a key-value string. The error says what is wrong, without the value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let remedy =
            "use postgres://user:password@host:5432/database or key-value pairs such as host=… user=… dbname=…";
        if text.contains(char::is_control) {
            return Err("holds a line break or another control character: copy it again, as one line".into());
        }
        let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
        let (rest, pairs) = if is_url {
            check_encoding(text)?;
            url_parts(text)
        } else {
            (String::new(), key_values(text).ok_or_else(|| format!("is not a Postgres URL: {remedy}"))?)
        };
        let parameters = Parameters::read(pairs)?;
        let text = if is_url { url_text(rest, &parameters.kept) } else { key_value_text(&parameters.kept) };
        let mut config: tokio_postgres::Config = text.parse().map_err(|e: tokio_postgres::Error| {
            let cause = std::error::Error::source(&e).map_or("invalid value".into(), ToString::to_string);
            let encode = if is_url { format!("; {ENCODE}") } else { String::new() };
            format!("is malformed ({cause}): {remedy}{encode}")
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(format!("names no host: {remedy}"));
        }
        let tls = parameters.tls();
        config.ssl_mode(match tls {
            Tls::Unchecked(mode) => mode,
            Tls::VerifyCa | Tls::VerifyFull => SslMode::Require,
        });
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(DEAD_PEER);
        }
        if !parameters.kept.iter().any(|(key, _)| key.starts_with("keepalives")) {
            config.keepalives_idle(DEAD_PEER / 2).keepalives_interval(DEAD_PEER / 6).keepalives_retries(3);
        }
        if config.get_application_name().is_none() {
            config.application_name("pgflume");
        }
        let client_cert = parameters.client_cert()?;
        Ok(Self { config, tls, root_cert: parameters.root_cert, client_cert })
    }
}

/// Characters that a URL gives another meaning, where a password most likely holds them.
fn check_encoding(text: &str) -> Result<(), String> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    let host = base.split_once('@').map_or(base, |(_, host)| host);
    let is_cut = query.split(['&', '=']).next().is_some_and(|first| first.contains(['@', '/']));
    if host.contains(['@', '#']) || is_cut {
        return Err(format!("holds a character that means something else there: {ENCODE}"));
    }
    Ok(())
}

/// The URL with these parameters only.
fn url_text(base: String, kept: &[(String, String)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let query = query.extend_pairs(kept).finish().replace('+', "%20");
    if query.is_empty() { base } else { format!("{base}?{query}") }
}

fn key_value_text(kept: &[(String, String)]) -> String {
    let quoted = |v: &str| v.replace('\\', "\\\\").replace('\'', "\\'");
    kept.iter().map(|(k, v)| format!("{k}='{}'", quoted(v))).collect::<Vec<_>>().join(" ")
}

/// As tokio-postgres calls it: what is written to is a primary.
fn session_attrs(value: &str) -> Result<&'static str, String> {
    match value {
        "any" => Ok("any"),
        "primary" | "read-write" => Ok("read-write"),
        "standby" | "prefer-standby" | "read-only" => Err(
            "has a target_session_attrs that asks for a standby, but pgflume writes to Postgres (it takes messages off the queue): use primary or read-write, or leave it out"
                .into(),
        ),
        _ => Err("has an unknown target_session_attrs: use primary, read-write or any".into()),
    }
}

/// Base and decoded parameters of a URL.
fn url_parts(text: &str) -> (String, Vec<(String, String)>) {
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    // '+' is a plus in a Postgres URL, a space in a form.
    let pairs = url::form_urlencoded::parse(query.replace('+', "%2B").as_bytes()).into_owned().collect();
    (base.to_owned(), pairs)
}

/// Splits `host=a password='b c'` as libpq does.
fn key_values(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return None;
        }
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('\'') {
            Some(quoted) => take_value(quoted, |c| c == '\'')?,
            None => take_value(after, char::is_whitespace)
                .or_else(|| take_value(&format!("{after} "), char::is_whitespace).map(|(v, _)| (v, "")))?,
        };
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    (!pairs.is_empty()).then_some(pairs)
}

/// Takes up to the end character; a backslash keeps the next one.
fn take_value(text: &str, is_end: impl Fn(char) -> bool) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        if is_end(c) {
            return Some((value, &text[i + c.len_utf8()..]));
        }
        value.push(if c == '\\' { chars.next()?.1 } else { c });
    }
    None
}

fn parse_sslmode(value: &str) -> Result<Tls, String> {
    Ok(match value {
        "disable" => Tls::Unchecked(SslMode::Disable),
        "allow" | "prefer" => Tls::Unchecked(SslMode::Prefer),
        "require" | "no-verify" => Tls::Unchecked(SslMode::Require), // no-verify: as node-postgres calls it
        "verify-ca" => Tls::VerifyCa,
        "verify-full" => Tls::VerifyFull,
        _ => {
            return Err("has an unknown sslmode: use disable, prefer, require, verify-ca or verify-full".into());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> PgUrl {
        PgUrl::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn parameters_of_other_clients_are_ignored() {
        let url = parsed(
            "postgres://u:p%40ss@h:6543/db?pgbouncer=true&connection_limit=1&sslmode=require&application_name=a%20b",
        );
        assert_eq!(url.config.get_password(), Some(&b"p@ss"[..]));
        assert_eq!(url.config.get_ports(), [6543]);
        assert_eq!(url.config.get_application_name(), Some("a b"));
        assert_eq!(url.tls, Tls::Unchecked(SslMode::Require));
    }

    #[test]
    fn key_value_strings_are_read_as_libpq_reads_them() {
        let url = parsed(r"host=h user = u password='it\'s a \\' dbname=db sslmode=verify-full sslrootcert=/ca.pem");
        assert_eq!(url.config.get_password(), Some(&br"it's a \"[..]));
        assert_eq!((url.tls, url.root_cert.as_deref()), (Tls::VerifyFull, Some("/ca.pem")));
        assert_eq!(parsed("host=h sslmode=require sslrootcert=/ca.pem").tls, Tls::VerifyCa);
    }

    #[test]
    fn a_wrong_url_is_refused_without_showing_it() {
        for bad in [
            "",
            "nonsense",
            "postgres://",
            "postgres://u:hunter2@h:notaport/db",
            "host=h password='hunter2",
            "postgres://h/db?sslmode=maybe",
        ] {
            let error = PgUrl::parse(bad).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let shown = format!("{:?}", parsed("postgres://u:hunter2@h/db"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
