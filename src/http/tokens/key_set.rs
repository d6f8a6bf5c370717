//! Keys that sign tokens, from an address (RFC 7517), which are renewed there.

use super::bearer::Refused;
use super::fetch;
use super::jwt::{Key, Kind};
use jsonwebtoken::jwk::Jwk;
use reqwest::Client;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

/// How long keys are taken for current.
const CURRENT: Duration = Duration::from_secs(600);

/// Between two looks for a key that is not known, or for keys where none came: anybody can send names of keys.
const PAUSE: Duration = Duration::from_secs(5);

/// Where keys come from.
pub(super) struct KeySet {
    url: Url,
    client: Client,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    keys: Vec<Key>,
    /// Keys came at all.
    is_there: bool,
    /// When they were last asked for.
    asked_at: Option<Instant>,
}

impl KeySet {
    /// From this address.
    pub fn new(url: Url, client: Client) -> Self {
        Self { url, client, known: Mutex::default() }
    }

    /// Those that may have signed a token.
    pub async fn find(&self, kind: &Kind) -> Result<Vec<Key>, Refused> {
        let mut known = self.known.lock().await;
        let fits = |known: &Known| -> Vec<Key> { known.keys.iter().filter(|key| key.fits(kind)).cloned().collect() };
        let found = fits(&known);
        let pause = if found.is_empty() { PAUSE } else { CURRENT };
        if known.asked_at.is_some_and(|at| at.elapsed() < pause) {
            return if known.is_there { Ok(found) } else { Err(Refused::Unknown) };
        }
        known.asked_at = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => (known.keys, known.is_there) = (keys, true),
            Err(problem) => {
                let host = self.url.host_str().unwrap_or_default();
                tracing::warn!(host, problem, "the keys of FEED_JWKS_URL cannot be had; those that are known stay");
            }
        }
        if known.is_there { Ok(fits(&known)) } else { Err(Refused::Unknown) }
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let (status, bytes) = fetch::get(self.client.get(self.url.clone())).await?;
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        let answer: Value = serde_json::from_slice(&bytes).map_err(|_| "it answers no JSON".to_owned())?;
        let keys = answer["keys"].as_array().ok_or("it answers no key set: name the address of a JWKS")?;
        // Kinds that are not known are other people's.
        let known = keys.iter().filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
        Ok(known.filter_map(|key| Key::public(&key)).collect())
    }
}
