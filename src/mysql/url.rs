//! Where a MySQL or MariaDB is: `mysql://USER:PASSWORD@HOST:PORT/DATABASE?ssl-mode=…`. Takes a text, gives what the driver
//! is to do, and never shows the password.

use crate::core::error::{Error, Result};
use crate::core::secret::Secret;
use mysql_async::{Opts, OptsBuilder, SslOpts};
use percent_encoding::percent_decode_str;
use std::fmt;
use url::Url;

/// The parameters that an URL may have.
const PARAMETERS: &str = "ssl-mode, ssl-ca, socket";

/// Statements that the driver keeps prepared.
const KEPT_STATEMENTS: usize = 64;

/// What the driver takes in one packet, which is a row: as much as it can. The server sends more than its own
/// `max_allowed_packet`, which the driver would go by.
const MOST_BYTES: usize = 1 << 30;

/// How a connection is encrypted, by the names of MySQL's own programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    Disabled,
    /// Where the server can; whose it is is not checked.
    Preferred,
    Required,
    VerifyCa,
    VerifyIdentity,
}

/// A server, a login and a database.
#[derive(Clone, PartialEq, Eq)]
pub struct MySqlUrl {
    host: String,
    port: u16,
    socket: Option<String>,
    user: String,
    password: Option<Secret>,
    database: String,
    tls: Tls,
    root_cert: Option<String>,
}

/// Without the password.
impl fmt::Debug for MySqlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mysql://{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl MySqlUrl {
    /// Reads an URL.
    ///
    /// # Errors
    /// What is wrong with it and what to do, as the end of a sentence that begins with where it stands. Never shows it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|e| {
            format!("is no URL ({e}): write mysql://USER@HOST/DATABASE, with other characters percent-encoded")
        })?;
        if !matches!(url.scheme(), "mysql" | "mariadb") {
            return Err("is no mysql:// or mariadb:// URL".into());
        }
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            text.map(|text| text.into_owned()).map_err(|_| "holds percent-encoded bytes that are no UTF-8".to_owned())
        };
        let database = decoded(url.path().trim_start_matches('/'))?;
        if database.is_empty() || database.contains('/') {
            return Err("names no database: write mysql://USER@HOST/DATABASE".into());
        }
        if url.username().is_empty() {
            return Err("names no user: write mysql://USER@HOST/DATABASE".into());
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let mut made = Self {
            host: host.unwrap_or("localhost").trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(3306),
            socket: None,
            user: decoded(url.username())?,
            password: url.password().map(decoded).transpose()?.map(Secret::new),
            database,
            tls: Tls::Preferred,
            root_cert: None,
        };
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "ssl-mode" | "sslmode" | "ssl_mode" => made.tls = Tls::parse(&value)?,
                "ssl-ca" => made.root_cert = Some(value.into_owned()),
                "socket" => made.socket = Some(value.into_owned()),
                name => {
                    let name: String = name.chars().filter(|c| c.is_ascii_graphic()).take(40).collect();
                    return Err(format!("has a parameter {name:?} that is not known: known are {PARAMETERS}"));
                }
            }
        }
        if made.root_cert.is_some() && matches!(made.tls, Tls::Disabled | Tls::Preferred | Tls::Required) {
            return Err("names ssl-ca and does not check with it: add ssl-mode=VERIFY_CA or VERIFY_IDENTITY".into());
        }
        Ok(made)
    }

    /// Host and port.
    pub(crate) fn place(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    /// The database.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// What the driver is to do. `encrypted`: whether TLS is asked for.
    pub(crate) fn options(&self, encrypted: bool, setup: Vec<String>) -> Result<Opts> {
        let mut options = OptsBuilder::default()
            .user(Some(self.user.as_str()))
            .pass(self.password.as_ref().map(Secret::expose))
            .db_name(Some(self.database.as_str()))
            .stmt_cache_size(Some(KEPT_STATEMENTS))
            .prefer_socket(Some(false))
            .max_allowed_packet(Some(MOST_BYTES))
            .tcp_keepalive(Some(std::time::Duration::from_secs(30)))
            .setup(setup);
        options = match &self.socket {
            Some(socket) => options.socket(Some(socket.as_str())),
            None => options.ip_or_hostname(self.host.as_str()).tcp_port(self.port),
        };
        if encrypted {
            options = options.ssl_opts(Some(self.tls_options()?));
        }
        Ok(options.into())
    }

    /// Whether a first attempt asks for TLS, and whether another may do without.
    pub(crate) fn attempts(&self) -> &'static [bool] {
        match self.tls {
            // A socket's other end is this machine.
            _ if self.socket.is_some() => &[false],
            Tls::Disabled => &[false],
            Tls::Preferred => &[true, false],
            Tls::Required | Tls::VerifyCa | Tls::VerifyIdentity => &[true],
        }
    }

    fn tls_options(&self) -> Result<SslOpts> {
        let options = SslOpts::default().with_disable_built_in_roots(true);
        Ok(match self.tls {
            // They are not asked; the driver wants some all the same.
            Tls::Disabled | Tls::Preferred | Tls::Required => options
                .with_root_certs(self.roots()?.into_iter().map(Into::into).collect())
                .with_danger_accept_invalid_certs(true)
                .with_danger_skip_domain_validation(true),
            Tls::VerifyCa => options
                .with_root_certs(self.roots()?.into_iter().map(Into::into).collect())
                .with_danger_skip_domain_validation(true),
            Tls::VerifyIdentity => options.with_root_certs(self.roots()?.into_iter().map(Into::into).collect()),
        })
    }

    fn roots(&self) -> Result<Vec<Vec<u8>>> {
        if let Some(path) = &self.root_cert {
            let bytes = std::fs::read(path).map_err(|e| {
                Error::halt(format!("ssl-ca names {path}, which cannot be read ({e}): correct it")).caused_by(e)
            })?;
            return Ok(vec![bytes]);
        }
        let certs = rustls_native_certs::load_native_certs().certs;
        // One that cannot be read would make all of them fail.
        let is_readable = |cert: &rustls::pki_types::CertificateDer<'_>| {
            rustls::RootCertStore::empty().add(cert.clone().into_owned()).is_ok()
        };
        Ok(certs.into_iter().filter(is_readable).map(|cert| cert.to_vec()).collect())
    }
}

impl Tls {
    fn parse(name: &str) -> Result<Self, String> {
        Ok(match name.to_ascii_uppercase().replace('-', "_").as_str() {
            "DISABLED" | "DISABLE" => Self::Disabled,
            "PREFERRED" | "PREFER" => Self::Preferred,
            "REQUIRED" | "REQUIRE" => Self::Required,
            "VERIFY_CA" => Self::VerifyCa,
            "VERIFY_IDENTITY" | "VERIFY_FULL" => Self::VerifyIdentity,
            _ => {
                return Err(
                    "has an ssl-mode that is none of DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY".into(),
                );
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_never_shown_with_their_password() {
        let url =
            MySqlUrl::parse("mysql://re%40der:p%2F%3A%40ss@db.example:3307/sh%6Fp?ssl-mode=verify_identity").unwrap();
        assert_eq!((url.user.as_str(), url.port, url.database.as_str()), ("re@der", 3307, "shop"));
        assert_eq!(url.password.as_ref().map(Secret::expose), Some("p/:@ss"));
        assert_eq!((url.tls, url.attempts()), (Tls::VerifyIdentity, &[true][..]));
        assert_eq!(format!("{url:?}"), "mysql://re@der@db.example:3307/shop");
        let url = MySqlUrl::parse("mariadb://u@[::1]/d?socket=%2Frun%2Fm.sock").unwrap();
        assert_eq!(
            (url.host.as_str(), url.socket.as_deref(), url.attempts()),
            ("::1", Some("/run/m.sock"), &[false][..])
        );
    }

    #[test]
    fn what_is_wrong_with_an_url_is_said_with_the_remedy() {
        for (text, expected) in [
            ("postgres://u@h/d", "no mysql://"),
            ("mysql://u@h", "names no database"),
            ("mysql://u@h/a/b", "names no database"),
            ("mysql://h/d", "names no user"),
            ("mysql://u@h/d?ssl-mode=maybe", "DISABLED, PREFERRED"),
            ("mysql://u@h/d?password=x", "\"password\""),
            ("mysql://u@h/d?ssl-ca=x.pem", "VERIFY_CA"),
            ("mysql:", "names no database"),
            ("mysql://u:%ff@h/d", "no UTF-8"),
        ] {
            let error = MySqlUrl::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
