//! How requests are let in, and how they are answered: JSON, with errors that say what to do and hold no secret and no row
//! value.

use super::app::App;
use super::auth::{Caller, Verb};
use super::connections::{Occupation, Visit};
use crate::core::error::{Error, Result};
use axum::Json;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::time::Duration;

/// When to come back after a passing failure, in seconds.
const RETRY_AFTER: u16 = 5;

/// When to come back after one that somebody has to fix, in seconds.
const HALT_AFTER: u16 = 60;

/// How long a caller waits: less than the whole request may take, so that the answer is ours.
const PATIENCE: Duration = Duration::from_secs(55);

pub(super) fn refusal(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(json!({"success": false, "error": error.into()}))).into_response()
}

/// The body and who sent it, or the answer that refuses. No body is read of somebody whose headers are wrong.
pub(super) async fn admit(app: &App, request: Request, verb: Verb) -> Result<(Caller, Bytes), Box<Response>> {
    let (head, body) = request.into_parts();
    if !app.auth.may_be_right(&head.headers, verb) {
        return Err(unauthorized());
    }
    let visit = head.extensions.get::<Visit>().cloned().unwrap_or_default();
    visit.set(Occupation::Sender);
    let body = app.bodies.read(head.headers.get(header::CONTENT_LENGTH), body).await;
    visit.set(Occupation::Work);
    let body = body.map_err(|(status, error)| Box::new(refusal(status, error)))?;
    app.auth.check(&head.headers, &body, verb).map(|caller| (caller, body)).ok_or_else(unauthorized)
}

fn unauthorized() -> Box<Response> {
    Box::new(refusal(
        StatusCode::UNAUTHORIZED,
        "wrong or missing signature: send the secret in x-webhook-signature, or sign as Standard Webhooks",
    ))
}

pub(super) fn replayed() -> Response {
    refusal(StatusCode::UNAUTHORIZED, "this request's webhook-id was used before: sign a new one")
}

pub(super) fn failure(error: &Error) -> Response {
    let usual = if error.needs_operator() { HALT_AFTER } else { RETRY_AFTER };
    let after = error.retry_after().map_or(usual, |wait| wait.as_secs_f64().ceil().max(1.0) as u16);
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after));
    response
}

/// Runs `work` on its own task: a caller that hangs up does not stop it.
pub(super) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    use tracing::Instrument as _;
    let span = tracing::Span::current();
    match tokio::time::timeout(PATIENCE, tokio::spawn(work.instrument(span))).await {
        Ok(done) => done.unwrap_or_else(|e| Err(Error::unknown(format!("the task ended early: {e}")))),
        Err(_) => Err(Error::retry("it takes long and goes on by itself: ask again later")),
    }
}

pub(super) fn success(mut fields: Value) -> Response {
    fields["success"] = Value::Bool(true);
    Json(fields).into_response()
}
