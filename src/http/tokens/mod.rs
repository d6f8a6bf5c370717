//! Checks who asks for rows, or sends writes: the token of a request, by a secret (HS256), by keys from an address (RS256 and
//! ES256), or, of a token that is no JWT, by an endpoint that answers its claims.

mod endpoint;
mod fetch;
mod jwt;
mod key_set;

use crate::config::TokenSources;
use crate::core::claims::Claims;
use crate::core::config_error::ConfigError;
use axum::http::{HeaderMap, header};
use endpoint::Endpoint;
use key_set::KeySet;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Longest token.
const TOKEN_BYTES: usize = 16 * 1024;

/// How long a token that was found good is not checked again: it may be revoked.
const KEPT: Duration = Duration::from_secs(60);

/// How long an endpoint is not asked again about one that was not.
const KEPT_REFUSED: Duration = Duration::from_secs(5);

/// Most tokens that are remembered.
const MOST_KNOWN: usize = 20_000;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Bearer {
    /// What the token says.
    pub claims: Claims,
    /// Until when.
    pub until: SystemTime,
}

impl Bearer {
    /// How long the token is good for from now on.
    pub fn rest(&self) -> Duration {
        self.until.duration_since(SystemTime::now()).unwrap_or_default()
    }
}

/// Why nobody is known by a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// It has no token, or a wrong one: what is wrong, behind "the token".
    Token(&'static str),
    /// Whether it is good cannot be known now.
    Unknown,
}

/// By the digests of tokens, what was found of them, and until when that holds.
type Known = HashMap<[u8; 32], (Instant, Result<Bearer, Refused>)>;

/// What tokens are checked by.
pub(super) struct Tokens {
    secret: Option<jwt::Key>,
    keys: Option<KeySet>,
    endpoint: Option<Endpoint>,
    known: Mutex<Known>,
}

impl Tokens {
    /// By these; `None` where there are none.
    pub fn new(sources: TokenSources) -> Result<Option<Self>, ConfigError> {
        if sources.is_empty() {
            return Ok(None);
        }
        let client = fetch::client().map_err(|e| ConfigError(format!("tokens cannot be checked: {e}")))?;
        let secret = sources.secret.map(|secret| jwt::Key::secret(&secret)).transpose().map_err(ConfigError)?;
        Ok(Some(Self {
            secret,
            keys: sources.keys.map(|url| KeySet::new(url, client.clone())),
            endpoint: sources.endpoint.map(|url| Endpoint::new(url, client)),
            known: Mutex::default(),
        }))
    }

    /// Whose request these headers are of.
    pub async fn bearer(&self, headers: &HeaderMap) -> Result<Bearer, Refused> {
        let missing = Refused::Token("is missing: send it as Authorization: Bearer …");
        let value = headers.get(header::AUTHORIZATION).ok_or_else(|| missing.clone())?;
        let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(missing.clone())?;
        match scheme.eq_ignore_ascii_case("bearer") {
            true => self.check(token.trim()).await,
            false => Err(missing),
        }
    }

    /// Whose token this is.
    pub async fn check(&self, token: &str) -> Result<Bearer, Refused> {
        if token.len() > TOKEN_BYTES {
            return Err(Refused::Token("is too long"));
        }
        let name: [u8; 32] = Sha256::digest(token).into();
        let known =
            self.known().get(&name).filter(|(until, _)| Instant::now() < *until).map(|(_, known)| known.clone());
        let (checked, kept) = match known {
            Some(known) => (known, None),
            None => {
                let checked = self.check_anew(token).await;
                let kept = if checked.is_ok() { KEPT } else { KEPT_REFUSED };
                (checked.clone(), (!matches!(checked, Err(Refused::Unknown))).then_some((kept, checked)))
            }
        };
        if let Some((kept, checked)) = kept {
            self.remember(name, Instant::now() + kept, checked);
        }
        checked.and_then(|bearer| match bearer.rest() {
            Duration::ZERO => Err(Refused::Token(jwt::EXPIRED)),
            _ => Ok(bearer),
        })
    }

    async fn check_anew(&self, token: &str) -> Result<Bearer, Refused> {
        let has_keys = self.secret.is_some() || self.keys.is_some();
        match (jwt::kind(token), &self.endpoint) {
            (Some(kind), endpoint) if has_keys || endpoint.is_none() => {
                let keys = match (kind.algorithm, &self.secret, &self.keys) {
                    (jwt::Algorithm::HS256, Some(secret), _) => vec![secret.clone()],
                    (jwt::Algorithm::RS256 | jwt::Algorithm::ES256, _, Some(keys)) => keys.find(&kind).await?,
                    _ => return Err(Refused::Token("is signed in a way that is not accepted here")),
                };
                jwt::check(token, &kind, &keys)
            }
            (_, Some(endpoint)) => endpoint.ask(token).await,
            (_, None) => Err(Refused::Token("is no JWT")),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, name: [u8; 32], until: Instant, checked: Result<Bearer, Refused>) {
        let mut known = self.known();
        if known.len() >= MOST_KNOWN {
            let now = Instant::now();
            known.retain(|_, (until, _)| now < *until);
            if known.len() >= MOST_KNOWN {
                known.clear();
            }
        }
        known.insert(name, (until, checked));
    }
}
