//! What each request does. Answers are JSON, but for `/metrics` and `/ok`; errors say what to do
//! and hold no secret and no row value.

use super::app::App;
use super::auth::{Caller, Verb};
use super::connections::{Occupation, Visit};
use super::metrics;
use crate::core::error::{Error, Result};
use crate::operate::status::Status;
use crate::operate::{resync, status};
use crate::sync::pairing::Nuked;
use crate::sync::{CALL_BUDGET, pairing};
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// When to come back after a passing failure, in seconds.
const RETRY_AFTER: u16 = 5;

/// When to come back after one that somebody has to fix, in seconds.
const HALT_AFTER: u16 = 60;

/// How long a caller waits: less than the whole request may take, so that the answer is ours.
const PATIENCE: Duration = Duration::from_secs(55);

fn refusal(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(json!({"success": false, "error": error.into()}))).into_response()
}

/// The body and who sent it, or the answer that refuses. No body is read of somebody whose headers are wrong.
async fn admit(app: &App, request: Request, verb: Verb) -> Result<(Caller, Bytes), Box<Response>> {
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

fn replayed() -> Response {
    refusal(StatusCode::UNAUTHORIZED, "this request's webhook-id was used before: sign a new one")
}

fn failure(error: &Error) -> Response {
    let usual = if error.needs_operator() { HALT_AFTER } else { RETRY_AFTER };
    let after = error.retry_after().map_or(usual, |wait| wait.as_secs_f64().ceil().max(1.0) as u16);
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after));
    response
}

/// Runs `work` on its own task: a caller that hangs up does not stop it.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    use tracing::Instrument as _;
    let span = tracing::Span::current();
    match tokio::time::timeout(PATIENCE, tokio::spawn(work.instrument(span))).await {
        Ok(done) => done.unwrap_or_else(|e| Err(Error::unknown(format!("the task ended early: {e}")))),
        Err(_) => Err(Error::retry("it takes long and goes on by itself: ask again later")),
    }
}

pub(super) async fn sync(State(app): State<Arc<App>>, request: Request) -> Response {
    if let Err(response) = admit(&app, request, Verb::Sync).await {
        return *response;
    }
    let drain = async move {
        let done = app.worker.call(CALL_BUDGET).await?;
        if done.rebuilding > done.stuck.len() as u64 {
            app.go_on.notify_one();
        }
        Ok(done)
    };
    match detached(drain).await {
        Ok(drained) => success(json!(drained)),
        Err(e) => failure(&e),
    }
}

fn success(mut fields: Value) -> Response {
    fields["success"] = Value::Bool(true);
    Json(fields).into_response()
}

pub(super) async fn nuke(
    State(app): State<Arc<App>>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let caller = match admit(&app, request, Verb::Nuke).await {
        Ok((caller, _)) => caller,
        Err(response) => return *response,
    };
    let refill = match query.get("refill").map(String::as_str) {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => return refusal(StatusCode::BAD_REQUEST, format!("refill must be true or false, not {other:?}")),
    };
    let done = detached(async move {
        let done = pairing::nuke(&app.worker, caller.id(), refill).await?;
        app.worker.circuit().succeeded();
        Ok(done)
    });
    match done.await {
        Ok(Nuked::Done) => success(json!({"message": "Data nuked and schema reinitialized"})),
        Ok(Nuked::Replayed) => replayed(),
        Err(e) => failure(&e),
    }
}

/// What `POST /resync` may say; all of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResyncBody {
    #[serde(default)]
    tables: Vec<String>,
    /// The verb of a request that is signed as Standard Webhooks; the signature was checked with it.
    #[serde(rename = "type", default)]
    _verb: Option<String>,
}

pub(super) async fn resync(State(app): State<Arc<App>>, request: Request) -> Response {
    let (caller, body) = match admit(&app, request, Verb::Resync).await {
        Ok(admitted) => admitted,
        Err(response) => return *response,
    };
    let asked = match body.trim_ascii() {
        b"" => Some(ResyncBody::default()),
        // serde would take an array for an object.
        text if text.starts_with(b"{") => serde_json::from_slice(text).ok(),
        _ => None,
    };
    let Some(asked) = asked else {
        return refusal(
            StatusCode::BAD_REQUEST,
            r#"the body must be like {"tables":["apps"]}, or empty for all tables"#,
        );
    };
    let tables: Vec<String> = match resync::tables(app.worker.schema(), &asked.tables) {
        Ok(tables) => tables.into_iter().map(str::to_owned).collect(),
        Err(unknown) => return refusal(StatusCode::BAD_REQUEST, unknown.to_string()),
    };
    let answer = json!({"success": true, "tables": tables});
    let request = async move {
        let names: Vec<&str> = tables.iter().map(String::as_str).collect();
        let is_new = resync::request_once(&app.worker, &names, caller.id()).await?;
        app.go_on.notify_one();
        Ok(is_new)
    };
    match detached(request).await {
        Ok(true) => (StatusCode::ACCEPTED, Json(answer)).into_response(),
        Ok(false) => replayed(),
        Err(e) => failure(&e),
    }
}

pub(super) async fn status(State(app): State<Arc<App>>, request: Request) -> Response {
    if let Err(response) = admit(&app, request, Verb::Status).await {
        return *response;
    }
    match status::status(&app.worker).await {
        Ok(status) => Json(Status { circuit: Some(app.worker.circuit().report()), ..status }).into_response(),
        Err(e) => failure(&e),
    }
}

pub(super) async fn health() -> &'static str {
    "OK"
}

pub(super) async fn ready(State(app): State<Arc<App>>, Extension(visit): Extension<Visit>) -> Response {
    let asked = app.clone();
    let reasons = visit.sharing(app.ready.get(|| async move { status::unready(&asked.worker).await })).await;
    let Some(reasons) = reasons else {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, "whether it is ready cannot be told: ask again");
    };
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": reasons.is_empty(), "reasons": reasons}))).into_response()
}

pub(super) async fn metrics(State(app): State<Arc<App>>, Extension(visit): Extension<Visit>) -> Response {
    match visit.sharing(metrics::text(&app)).await {
        Some(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        None => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    }
}

pub(super) async fn unknown_path() -> Response {
    refusal(
        StatusCode::NOT_FOUND,
        "no such path: there are /sync, /nuke, /resync, /status, /metrics, /health, /ok and /ready",
    )
}

pub(super) async fn wrong_method() -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, "wrong method: POST /sync, /nuke and /resync, GET the others")
}
