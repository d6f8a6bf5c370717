//! Who asks: what a token that was checked says of its bearer. No IO.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Claims of a token, as a JSON object.
#[derive(Clone, PartialEq, Eq)]
pub struct Claims(Map<String, Value>);

/// Without the values, which say who somebody is.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claims").field(&self.0.keys().collect::<Vec<_>>()).finish()
    }
}

impl Claims {
    /// These, which were checked.
    pub fn new(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Whose they are: the claim `sub`, where it is text.
    pub fn subject(&self) -> Option<&str> {
        self.get("sub")?.as_str()
    }

    /// The role that Postgres judges them as: the claim `role`, where it is text.
    pub fn role(&self) -> Option<&str> {
        self.get("role")?.as_str()
    }

    /// What tells them from others, whenever the token was made: a digest of all but its times and its own name.
    pub fn digest(&self) -> String {
        let lasts = |(name, _): &(&String, &Value)| !["exp", "iat", "nbf", "jti"].contains(&name.as_str());
        let lasting: std::collections::BTreeMap<_, _> = self.0.iter().filter(lasts).collect();
        hex::encode(Sha256::digest(serde_json::json!(lasting).to_string()))
    }

    /// All of them as a JSON object, as `request.jwt.claims` holds them.
    pub fn json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sees_who_somebody_is_in_a_log() {
        let claims = serde_json::json!({"sub": "ann@example.org", "role": "authenticated", "n": 1});
        let claims = Claims::new(claims.as_object().unwrap().clone());
        assert_eq!((claims.subject(), claims.role()), (Some("ann@example.org"), Some("authenticated")));
        assert!(!format!("{claims:?}").contains("ann"), "{claims:?}");
    }
}
