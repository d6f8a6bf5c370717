//! By what the tokens of clients are checked: flags and environment of `serve`.

use super::options::line;
use super::secrets::secret;
use crate::core::config_error::{ConfigError, wrong};
use crate::core::secret::Secret;
use url::{Host, Url};

/// Flags that say so.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TokenOptions {
    /// Where the keys are by which clients' tokens are signed (RS256, ES256), as a JWKS
    #[arg(long, env = "FEED_JWKS_URL", value_parser = line, value_name = "URL")]
    feed_jwks_url: Option<String>,
    /// Your endpoint that answers the claims of tokens that are no JWT: asked with GET and the token, kept for 60 s
    #[arg(long, env = "FEED_AUTH_URL", value_parser = line, value_name = "URL")]
    feed_auth_url: Option<String>,
}

/// By what tokens are checked.
#[derive(Debug, Clone, Default)]
pub struct TokenSources {
    /// HS256.
    pub secret: Option<Secret>,
    /// Where the public keys are.
    pub keys: Option<Url>,
    /// Who knows tokens that are no JWT.
    pub endpoint: Option<Url>,
}

impl TokenSources {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.secret.is_none() && self.keys.is_none() && self.endpoint.is_none()
    }
}

impl TokenOptions {
    /// Checks them, with `FEED_JWT_SECRET`.
    pub fn sources(&self) -> Result<TokenSources, ConfigError> {
        Ok(TokenSources {
            secret: secret("FEED_JWT_SECRET")?,
            keys: address("FEED_JWKS_URL", self.feed_jwks_url.as_deref())?,
            endpoint: address("FEED_AUTH_URL", self.feed_auth_url.as_deref())?,
        })
    }
}

fn address(name: &str, text: Option<&str>) -> Result<Option<Url>, ConfigError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let url = match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
        _ => return wrong(format!("{name} is no address: write it like https://example.org/auth")),
    };
    if url.scheme() == "http" && !is_here(&url) {
        tracing::warn!("{name} is http://: who stands between can say who anybody is; use https://");
    }
    Ok(Some(url))
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
