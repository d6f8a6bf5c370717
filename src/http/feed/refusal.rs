//! Why a request is not answered: as a response of HTTP, or as a message of a socket.

use crate::core::error;
use crate::feed::access::Denied;
use crate::feed::figures::Outcome;
use crate::http::tokens::Refused;
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Of whose table changes are on their way to a cut.
pub(super) const BETWEEN: &str = "the table is between two moments of its source: ask again";

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub status: StatusCode,
    /// What is said of it.
    said: Map<String, Value>,
    /// When to ask again, in seconds.
    pub retry_after: Option<u32>,
}

impl Refusal {
    fn new(status: StatusCode, said: Value) -> Self {
        let said = if let Value::Object(said) = said { said } else { Map::new() };
        Self { status, said, retry_after: None }
    }

    /// What of a request is wrong, and why.
    pub fn wrong(about: &str, problem: impl Into<String>) -> Self {
        Self::with_status(StatusCode::BAD_REQUEST, about, problem)
    }

    /// The same with another status.
    pub fn with_status(status: StatusCode, about: &str, problem: impl Into<String>) -> Self {
        Self::new(status, json!({"message": "Invalid request", "errors": {about: [problem.into()]}}))
    }

    /// Whoever is not known.
    pub fn unknown(refused: &Refused) -> Self {
        match refused {
            Refused::Token(problem) => {
                Self::new(StatusCode::UNAUTHORIZED, json!({"message": format!("the token {problem}")}))
            }
            Refused::Unknown => Self::not_now("whose the token is cannot be known now: ask again"),
        }
    }

    /// Whoever may not read a table.
    pub fn denied(why: &Denied) -> Self {
        match why {
            Denied::Anonymous => Self::unknown(&Refused::Token("is missing: send it as Authorization: Bearer …")),
            Denied::Lacks(claim) => {
                let message = format!("the token has no claim {claim:?} with a text, a number or a list of them");
                Self::new(StatusCode::FORBIDDEN, json!({"message": message}))
            }
        }
    }

    /// Whoever has to ask again, not all at the same time.
    pub fn not_now(problem: &str) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, json!({"message": problem}));
        Self { retry_after: Some(retry_after()), ..refusal }
    }

    /// The replica does not answer.
    pub fn unreadable(error: &error::Error) -> Self {
        tracing::warn!(%error, "a client is not answered: the replica cannot be read");
        Self::not_now("the replica cannot be read: ask again")
    }

    /// As what it is counted.
    pub fn outcome(&self) -> Outcome {
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Outcome::Unauthorized,
            StatusCode::SERVICE_UNAVAILABLE => Outcome::Unready,
            _ => Outcome::Refused,
        }
    }

    /// As members of a message.
    pub fn members(&self) -> Map<String, Value> {
        let mut members = self.said.clone();
        members.insert("status".to_owned(), json!(self.status.as_u16()));
        if let Some(seconds) = self.retry_after {
            members.insert("retryAfter".to_owned(), json!(seconds));
        }
        members
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.said)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// When to ask again, in seconds: 1 to 3, so that not all come at once.
fn retry_after() -> u32 {
    1 + SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_micros() % 3)
}
