//! Signed tokens (RFC 7519): by which algorithm, and whether one of some keys signed them. No IO.

use super::bearer::{Bearer, Refused};
use crate::core::claims::Claims;
use crate::core::secret::Secret;
pub(super) use jsonwebtoken::Algorithm;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is wrong with a token whose time has passed.
pub(super) const EXPIRED: &str = "has expired: get a new one";

/// The shortest secret, in bytes: as long as what HS256 makes of it (RFC 7518, 3.2).
const SECRET_BYTES: usize = 32;

/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 5;

/// How a token says that it is signed.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The key's name.
    pub key: Option<String>,
}

/// How a token is signed; `None` where it is no JWT.
pub(super) fn kind(token: &str) -> Option<Kind> {
    let header = decode_header(token).ok()?;
    Some(Kind { algorithm: header.alg, key: header.kid })
}

/// A key, for one algorithm.
#[derive(Clone)]
pub(super) struct Key {
    algorithm: Algorithm,
    name: Option<String>,
    key: DecodingKey,
}

impl Key {
    /// For HS256.
    pub fn secret(secret: &Secret) -> Result<Self, String> {
        let bytes = secret.expose().as_bytes();
        match DecodingKey::from_secret(bytes) {
            Ok(key) if bytes.len() >= SECRET_BYTES => Ok(Self { algorithm: Algorithm::HS256, name: None, key }),
            _ => Err(format!(
                "FEED_JWT_SECRET is shorter than {SECRET_BYTES} bytes and can be guessed: set it to the secret by which your tokens are signed (HS256), or make a longer one for both"
            )),
        }
    }

    /// A public key; `None` where it is none that is accepted.
    pub fn public(key: &Jwk) -> Option<Self> {
        let (algorithm, named) = match &key.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            _ => return None,
        };
        let says_so = key.common.key_algorithm.as_ref().is_none_or(|said| *said == named);
        let signs = key.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
        let key_bytes = DecodingKey::from_jwk(key).ok().filter(|_| says_so && signs)?;
        Some(Self { algorithm, name: key.common.key_id.clone(), key: key_bytes })
    }

    /// Whether it may have signed a token.
    pub fn fits(&self, kind: &Kind) -> bool {
        let is_named = |key: &String| self.name.as_ref().is_none_or(|name| name == key);
        self.algorithm == kind.algorithm && kind.key.as_ref().is_none_or(is_named)
    }
}

/// Whose token this is, where one of these keys signed it.
pub(super) fn check(token: &str, kind: &Kind, keys: &[Key]) -> Result<Bearer, Refused> {
    let mut refused = Refused::Token("is signed by a key that is not known here");
    for key in keys.iter().filter(|key| key.fits(kind)) {
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.validate_aud = false; // whom else it is for is not ours to say
        match decode::<Map<String, Value>>(token, &key.key, &validation) {
            Ok(decoded) => return bearer(decoded.claims),
            Err(e) => refused = Refused::Token(problem(e.kind())),
        }
    }
    Err(refused)
}

/// Who these claims say that somebody is.
pub(super) fn bearer(claims: Map<String, Value>) -> Result<Bearer, Refused> {
    let seconds = claims.get("exp").and_then(Value::as_f64).filter(|seconds| (0.0..1e11).contains(seconds));
    let seconds = seconds.ok_or(Refused::Token(TIMELESS))?;
    let until = UNIX_EPOCH + Duration::from_secs_f64(seconds) + Duration::from_secs(LEEWAY);
    match until > SystemTime::now() {
        true => Ok(Bearer { claims: Claims::new(claims), until }),
        false => Err(Refused::Token(EXPIRED)),
    }
}

const TIMELESS: &str = "lacks the claim exp, until when it is good";

fn problem(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => EXPIRED,
        ErrorKind::ImmatureSignature => "is not good yet: check the clocks",
        ErrorKind::MissingRequiredClaim(_) => TIMELESS,
        ErrorKind::InvalidSignature => "is signed by another key than it says, or was changed",
        _ => "cannot be read",
    }
}
