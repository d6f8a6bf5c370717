//! Somebody's own endpoint that knows tokens which are no JWT, and answers their claims.

use super::bearer::{Bearer, KEPT, Refused};
use super::{fetch, jwt};
use reqwest::{Client, StatusCode};
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use url::Url;

/// Questions at once.
const AT_ONCE: usize = 16;

/// How long one waits for others.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Endpoint {
    url: Url,
    client: Client,
    asking: Semaphore,
}

impl Endpoint {
    /// At this address.
    pub fn new(url: Url, client: Client) -> Self {
        Self { url, client, asking: Semaphore::new(AT_ONCE) }
    }

    /// Whose token this is: asked with the token as the request that it came with had it.
    pub async fn ask(&self, token: &str) -> Result<Bearer, Refused> {
        let Ok(Ok(_asking)) = tokio::time::timeout(PATIENCE, self.asking.acquire()).await else {
            return Err(Refused::Unknown);
        };
        let unknown = |problem: String| {
            let host = self.url.host_str().unwrap_or_default();
            tracing::warn!(host, problem, "FEED_AUTH_URL does not say whose a token is");
            Refused::Unknown
        };
        let asked = fetch::get(self.client.get(self.url.clone()).bearer_auth(token)).await;
        let (status, bytes) = asked.map_err(unknown)?;
        match status {
            StatusCode::OK => {}
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                return Err(unknown(format!("it answers {status}")));
            }
            status if status.is_client_error() => return Err(Refused::Token("is not known")),
            status => return Err(unknown(format!("it answers {status}"))),
        }
        let claims: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|_| unknown("it answers no JSON object".into()))?;
        // As RFC 7662 says that it is not good.
        if claims.get("active") == Some(&Value::Bool(false)) {
            return Err(Refused::Token("is not known"));
        }
        jwt::bearer(with_end(claims))
    }
}

/// Claims without an end of their own are asked for again.
fn with_end(mut claims: Map<String, Value>) -> Map<String, Value> {
    let end = SystemTime::now() + KEPT;
    let end = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if claims.get("exp").is_none_or(Value::is_null) {
        claims.insert("exp".to_owned(), end.into());
    }
    claims
}
