//! Keys that sign tokens, from an address (RFC 7517), which are renewed there.

use super::bearer::Refused;
use super::fetch;
use super::jwt::{Key, Kind};
use jsonwebtoken::jwk::Jwk;
use reqwest::Client;
use serde_json::Value;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

/// How long keys are taken for current.
const CURRENT: Duration = Duration::from_secs(600);

/// Between two looks for a key that is not known, or for keys where none came: anybody can send names of keys.
const PAUSE: Duration = Duration::from_secs(5);

/// Where keys come from.
pub(super) struct KeySet(Arc<Source>);

struct Source {
    url: Url,
    client: Client,
    known: RwLock<Known>,
    /// Held by whoever asks for them: when they last did.
    asking: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    keys: Vec<Key>,
    /// Keys came at all.
    is_there: bool,
}

impl KeySet {
    /// From this address.
    pub fn new(url: Url, client: Client) -> Self {
        Self(Arc::new(Source { url, client, known: RwLock::default(), asking: Mutex::default() }))
    }

    /// Those that may have signed a token.
    pub async fn find(&self, kind: &Kind) -> Result<Vec<Key>, Refused> {
        let found = self.0.fitting(kind).unwrap_or_default();
        let pause = if found.is_empty() { PAUSE } else { CURRENT };
        // Whoever wants to know may go away: what is asked for is for all.
        let source = self.0.clone();
        let asking = tokio::spawn(async move { source.renew(pause).await });
        if !found.is_empty() {
            return Ok(found);
        }
        asking.await.ok();
        self.0.fitting(kind).ok_or(Refused::Unknown)
    }
}

impl Source {
    /// Those that are known and may have signed a token; `None` where none ever came.
    fn fitting(&self, kind: &Kind) -> Option<Vec<Key>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.is_there.then(|| known.keys.iter().filter(|key| key.fits(kind)).cloned().collect())
    }

    /// Asks for keys, unless somebody did so lately.
    async fn renew(&self, pause: Duration) {
        let mut asked_at = self.asking.lock().await;
        if asked_at.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        match self.fetch().await {
            Ok(keys) => {
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known { keys, is_there: true };
            }
            Err(problem) => {
                let host = self.url.host_str().unwrap_or_default();
                tracing::warn!(host, problem, "the keys of FEED_JWKS_URL cannot be had; those that are known stay");
            }
        }
        *asked_at = Some(Instant::now());
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
