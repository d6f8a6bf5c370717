//! A named connection: a source, or a libSQL database.

use super::read::{Broken, Members};
use super::secrets::Template;
use crate::core::config_error::{ConfigError, wrong};
use crate::core::json::Node;
use crate::core::secret::Secret;
use crate::mysql::MySqlUrl;
use crate::postgres::PgUrl;
use crate::replica::target::{Target, target};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;
use std::path::Path;
use std::time::Duration;

const MEMBERS: [&str; 5] = ["url", "user", "password", "token", "limit"];

/// A connection as the file has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    path: String,
    url: Template,
    user: Option<Template>,
    password: Option<Template>,
    token: Option<Template>,
    /// How often it may be asked.
    pub limit: Option<Limit>,
}

/// So many requests in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Requests.
    pub requests: u32,
    /// In this time.
    pub per: Duration,
}

/// What a connection leads to.
#[derive(Debug, Clone)]
pub enum Resolved {
    /// A Postgres.
    Postgres(Box<PgUrl>),
    /// A MySQL or MariaDB.
    MySql(Box<MySqlUrl>),
    /// A libSQL database.
    Target(Target),
}

/// What a source may be.
const SOURCES: &str = "postgres://USER@HOST/DATABASE or mysql://USER@HOST/DATABASE";

/// What a target may be.
const TARGETS: &str = "file:PATH, http://, https:// or libsql://";

/// Without what may be a secret.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("path", &self.path).field("url", &self.shown()).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn of(node: &Node, path: &str) -> Result<Self, Broken> {
        let members = Members::of(node, path, &MEMBERS)?;
        let Some(url) = Template::of(&members, "url")? else {
            return Err(Broken::new(path, format!("lacks url: a source is {SOURCES}, a replica {TARGETS}")));
        };
        let limit = members.text("limit")?.map(|text| limit(text, &members.path_of("limit"))).transpose()?;
        Ok(Self {
            path: path.to_owned(),
            url,
            user: Template::of(&members, "user")?,
            password: Template::of(&members, "password")?,
            token: Template::of(&members, "token")?,
            limit,
        })
    }

    /// Its kind, as far as the file tells without any variable: `postgres`, `libsql`, or nothing.
    pub fn kind(&self) -> Option<&'static str> {
        let url = self.url.text()?;
        match url.split_once(':').map_or(url, |(scheme, _)| scheme) {
            "postgres" | "postgresql" => Some("postgres"),
            "mysql" | "mariadb" => Some("mysql"),
            "file" | "http" | "https" | "libsql" => Some("libsql"),
            _ => None,
        }
    }

    /// Its URL, as it is written, without the values of variables.
    pub fn shown(&self) -> String {
        match &self.url {
            Template::Text(text) => without_password(text),
            Template::File(path) => format!("what {} holds", path.display()),
        }
    }

    /// Where it leads; files that it names lie in `directory`. `is_insecure`: a token may be sent unencrypted.
    pub fn resolve(&self, directory: &Path, is_insecure: bool) -> Result<Resolved, ConfigError> {
        let value = |template: &Option<Template>, name: &str| {
            let path = format!("{}.{name}", self.path);
            template.as_ref().map(|t| t.value(&path, directory, |value, _| value.to_owned())).transpose()
        };
        let path = format!("{}.url", self.path);
        let account = self.url.text().and_then(account).unwrap_or_default();
        // A password may hold any character.
        let encoded = |value: &str, at: usize| match account.contains(&at) {
            true => utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
            false => value.to_owned(),
        };
        let url = self.url.value(&path, directory, encoded)?;
        let (user, password) = (value(&self.user, "user")?, value(&self.password, "password")?);
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                let url = with_account(&url, user, password).or_else(|problem| wrong(format!("{path} {problem}")))?;
                let url = PgUrl::parse(&url).or_else(|problem| wrong(format!("{path} {problem}")))?;
                url.check_files().map_err(ConfigError)?;
                Ok(Resolved::Postgres(Box::new(url)))
            }
            Some("mysql" | "mariadb") => {
                let url = with_account(&url, user, password).or_else(|problem| wrong(format!("{path} {problem}")))?;
                let url = MySqlUrl::parse(&url).or_else(|problem| wrong(format!("{path} {problem}")))?;
                Ok(Resolved::MySql(Box::new(url)))
            }
            _ => {
                let token = value(&self.token, "token")?.filter(|token| !token.is_empty()).map(Secret::new);
                let made = target(&url, token, is_insecure);
                let made = made
                    .map_err(|e| ConfigError(e.0.replace("LIBSQL_URL", &path).replace("LIBSQL_AUTH_TOKEN", "token")))?;
                Ok(Resolved::Target(made))
            }
        }
    }
}

/// Where the account of an URL stands in a text.
fn account(text: &str) -> Option<std::ops::Range<usize>> {
    let start = text.find("://")? + 3;
    let end = text[start..].rfind('@')? + start;
    Some(start..end)
}

fn with_account(url: &str, user: Option<String>, password: Option<String>) -> Result<String, &'static str> {
    if user.is_none() && password.is_none() {
        return Ok(url.to_owned());
    }
    let mut parsed = url::Url::parse(url).map_err(|_| "is no URL")?;
    let encoded = |text: &String| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let is_set = user.as_ref().map(encoded).is_none_or(|user| parsed.set_username(&user).is_ok())
        && password.as_ref().map(encoded).is_none_or(|password| parsed.set_password(Some(&password)).is_ok());
    if is_set { Ok(parsed.into()) } else { Err("takes no user and password beside it") }
}

fn without_password(text: &str) -> String {
    // Parameters may hold secrets, too.
    let text = text.split_once('?').map_or(text, |(before, _)| before);
    let Some(range) = account(text) else { return text.to_owned() };
    match text[range.clone()].split_once(':') {
        Some((user, _)) => format!("{}{user}{}", &text[..range.start], &text[range.end..]),
        None => text.to_owned(),
    }
}

fn limit(text: &str, path: &str) -> Result<Limit, Broken> {
    let units = [("s", 1), ("min", 60), ("h", 3600)];
    let read = || {
        let (requests, unit) = text.split_once('/')?;
        let (_, seconds) = units.iter().find(|(name, _)| *name == unit)?;
        let requests = requests.parse().ok().filter(|requests| *requests > 0)?;
        Some(Limit { requests, per: Duration::from_secs(*seconds) })
    };
    read().ok_or_else(|| Broken::new(path, "is no limit: write requests in a time, like 5/s, 300/min or 1000/h"))
}
