//! Who may call: the secret in `x-webhook-signature`, or a Standard Webhooks signature
//! (<https://github.com/standard-webhooks/standard-webhooks>), both compared in constant time.

use crate::config::Signatures;
use crate::core::secret::Secret;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::time::{SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// Longest id of a signed request: it is kept in Postgres for an hour.
const ID_BYTES: usize = 256;

/// How far a signed request's clock may be off, in seconds.
const TOLERANCE_SECONDS: u64 = 5 * 60;

/// What is asked for. The signature covers the body and not the path, so the body names the verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `POST /sync`
    Sync,
    /// `POST /nuke`
    Nuke,
    /// `POST /resync`
    Resync,
    /// `GET /status`
    Status,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Nuke => "nuke",
            Self::Resync => "resync",
            Self::Status => "status",
        }
    }
}

/// How a caller was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// By the plain secret.
    Secret,
    /// By a signature; the request's id.
    Signed(String),
}

impl Caller {
    /// The id of a signed request, which works once where it changes something that is not due anyway.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Secret => None,
            Self::Signed(id) => Some(id),
        }
    }
}

/// Checks callers.
pub struct Auth {
    signatures: Signatures,
    /// Comparing MACs under a random key hides the secret's length too.
    key: [u8; 16],
}

impl Auth {
    /// Accepts these secrets.
    pub fn new(signatures: Signatures) -> Self {
        Self { signatures, key: *uuid::Uuid::new_v4().as_bytes() }
    }

    /// Whether [`Auth::check`] can recognise the caller at all: by the headers alone, before the body is read.
    pub(crate) fn may_be_right(&self, headers: &HeaderMap, verb: Verb) -> bool {
        match headers.get("x-webhook-signature") {
            Some(given) => self.is_one_of(self.secrets(verb), given.as_bytes()),
            None => signature(headers).is_some_and(|signature| signature.is_fresh()),
        }
    }

    /// Recognises the caller, or not.
    pub fn check(&self, headers: &HeaderMap, body: &[u8], verb: Verb) -> Option<Caller> {
        let secrets = self.secrets(verb);
        if let Some(given) = headers.get("x-webhook-signature") {
            return self.is_one_of(secrets, given.as_bytes()).then_some(Caller::Secret);
        }
        let signature = signature(headers)?;
        let content = [signature.id.as_bytes(), b".", signature.at.as_bytes(), b".", body].concat();
        let signed = secrets.iter().any(|secret| is_signed(secret, &content, signature.given));
        (signature.is_fresh() && signed && names(body, verb)).then(|| Caller::Signed(signature.id.to_owned()))
    }

    /// Whether it is the webhook secret, or the one before it.
    pub(super) fn is_secret(&self, given: &[u8]) -> bool {
        self.is_one_of(&self.signatures.webhook, given)
    }

    /// A seal on a text, for one purpose, that only who knows the webhook secret can make.
    pub(super) fn seal(&self, purpose: &str, text: &str) -> String {
        self.signatures.webhook.first().map(|secret| seal(secret, purpose, text)).unwrap_or_default()
    }

    /// Whether it is such a seal, with the secret of now or the one before it.
    pub(super) fn is_sealed(&self, purpose: &str, text: &str, given: &str) -> bool {
        self.signatures
            .webhook
            .iter()
            .any(|secret| bool::from(seal(secret, purpose, text).as_bytes().ct_eq(given.as_bytes())))
    }

    fn secrets(&self, verb: Verb) -> &[Secret] {
        if verb == Verb::Nuke { &self.signatures.nuke } else { &self.signatures.webhook }
    }

    fn is_one_of(&self, secrets: &[Secret], given: &[u8]) -> bool {
        let given = self.mac(given);
        secrets
            .iter()
            .fold(false, |found, secret| found | bool::from(self.mac(secret.expose().as_bytes()).ct_eq(&given)))
    }

    fn mac(&self, bytes: &[u8]) -> Vec<u8> {
        mac(&self.key, bytes).unwrap_or_default()
    }
}

fn seal(secret: &Secret, purpose: &str, text: &str) -> String {
    let content = format!("pgflume {purpose} {text}");
    hex::encode(mac(secret.expose().as_bytes(), content.as_bytes()).unwrap_or_default())
}

/// The headers of Standard Webhooks.
struct Signature<'a> {
    id: &'a str,
    at: &'a str,
    given: &'a str,
}

fn signature(headers: &HeaderMap) -> Option<Signature<'_>> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    Some(Signature {
        id: header("webhook-id").filter(|id| id.len() <= ID_BYTES)?,
        at: header("webhook-timestamp")?,
        given: header("webhook-signature")?,
    })
}

impl Signature<'_> {
    fn is_fresh(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs());
        matches!((self.at.parse::<u64>(), now), (Ok(at), Ok(now)) if at.abs_diff(now) <= TOLERANCE_SECONDS)
    }
}

fn mac(key: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?; // HMAC takes keys of any length
    mac.update(bytes);
    Some(mac.finalize().into_bytes().to_vec())
}

fn is_signed(secret: &Secret, content: &[u8], given: &str) -> bool {
    let key = match secret.expose().strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).unwrap_or_default(),
        None => secret.expose().as_bytes().to_vec(),
    };
    let Some(expected) = mac(&key, content).filter(|_| !key.is_empty()) else {
        return false;
    };
    let versions = given.split(' ').filter_map(|v| v.strip_prefix("v1,"));
    versions.filter_map(|v| STANDARD.decode(v).ok()).any(|v| bool::from(v.ct_eq(&expected)))
}

fn names(body: &[u8], verb: Verb) -> bool {
    #[derive(serde::Deserialize)]
    struct Named {
        r#type: String,
    }
    // A GET has no body, as a rule. A signature of none opens nothing else: all others are named.
    (verb == Verb::Status && body.trim_ascii().is_empty())
        || serde_json::from_slice::<Named>(body).is_ok_and(|named| named.r#type == verb.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn auth(webhook: &[&str], nuke: &str) -> Auth {
        let secret = |s: &&str| Secret::new(*s);
        Auth::new(Signatures { webhook: webhook.iter().map(secret).collect(), nuke: vec![Secret::new(nuke)] })
    }

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (axum::http::HeaderName::from_static(k), HeaderValue::from_str(v).unwrap())).collect()
    }

    fn signed(key: &[u8], at: u64, body: &str) -> HeaderMap {
        let signature = STANDARD.encode(mac(key, format!("msg_1.{at}.{body}").as_bytes()).unwrap());
        headers(&[
            ("webhook-id", "msg_1".into()),
            ("webhook-timestamp", at.to_string()),
            ("webhook-signature", format!("v1a,zzz v1,{signature}")),
        ])
    }

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn the_plain_secret_opens_what_it_is_for() {
        let auth = auth(&["current", "previous"], "nuke-only");
        let with = |s: &str| headers(&[("x-webhook-signature", s.into())]);
        for good in ["current", "previous"] {
            assert_eq!(auth.check(&with(good), b"", Verb::Sync), Some(Caller::Secret));
            assert_eq!(auth.check(&with(good), b"", Verb::Nuke), None);
        }
        assert_eq!(auth.check(&with("nuke-only"), b"", Verb::Nuke), Some(Caller::Secret));
        for bad in ["", "curren", "current ", "currentcurrent"] {
            assert_eq!(auth.check(&with(bad), b"", Verb::Sync), None, "{bad:?}");
        }
        assert_eq!(auth.check(&HeaderMap::new(), b"", Verb::Sync), None);
    }

    #[test]
    fn a_signature_counts_for_its_body_its_verb_and_its_time() {
        let auth = auth(&[SECRET], SECRET);
        let key = STANDARD.decode(&SECRET[6..]).unwrap();
        let body = r#"{"type":"sync"}"#;
        let check = |headers: HeaderMap, body: &str, verb| auth.check(&headers, body.as_bytes(), verb);
        assert_eq!(check(signed(&key, now(), body), body, Verb::Sync), Some(Caller::Signed("msg_1".into())));
        assert_eq!(check(signed(&key, now(), body), body, Verb::Nuke), None, "another verb");
        assert_eq!(check(signed(&key, now(), body), r#"{"type":"sync" }"#, Verb::Sync), None, "another body");
        assert_eq!(check(signed(&key, now() - 301, body), body, Verb::Sync), None, "too old");
        assert_eq!(check(signed(&key, now() + 301, body), body, Verb::Sync), None, "from the future");
        assert_eq!(check(signed(b"wrong", now(), body), body, Verb::Sync), None, "another key");
        assert_eq!(check(signed(&key, now(), ""), "", Verb::Sync), None, "no verb");
        for verb in [Verb::Sync, Verb::Nuke, Verb::Resync, Verb::Status] {
            for named in ["sync", "nuke", "resync", "status"] {
                let body = format!(r#"{{"type":"{named}"}}"#);
                let opens = check(signed(&key, now(), &body), &body, verb).is_some();
                assert_eq!(opens, named == verb.name(), "{named} for {verb:?}");
            }
            assert_eq!(
                check(signed(&key, now(), ""), "", verb).is_some(),
                verb == Verb::Status,
                "nothing for {verb:?}"
            );
        }
    }
}
