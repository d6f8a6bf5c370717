//! `POST /v1/push`: writes of clients. Who asks is found by whoever this is plugged into; what is asked is checked before
//! anybody is asked for a connection.

use super::app::App;
use super::body::Bodies;
use crate::core::claims::Claims;
use crate::core::error::Error;
use crate::push::{Answer, Failure, Invalid, Push, Pushes, Taken, Writables};
use async_trait::async_trait;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// When to send the same request again, in seconds.
const RETRY_AFTER: &str = "1";

/// The same, where somebody has to act first.
const HALT_AFTER: &str = "30";

/// What a client calls a request, each time that it sends it.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest time that an answer waits for the replica.
const MOST_WAIT: Duration = Duration::from_secs(20);

/// Where this is plugged in.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Who asks, or the answer that refuses.
    async fn claims(&self, headers: &HeaderMap) -> Result<Claims, Box<Response>>;
    /// Somebody's transaction is committed that wrote these tables. Where clients that are fed find it, if that is known
    /// after waiting for so long.
    async fn wrote(&self, tables: &BTreeSet<&str>, claims: &Claims, xid: u64, wait: Option<Duration>) -> Option<i64>;
}

struct Door {
    pushes: Arc<Pushes>,
    gate: Arc<dyn Gate>,
    bodies: Bodies,
}

/// What clients may write of all that queues replicate.
pub fn writables(app: &App) -> Writables {
    Writables::of(app.lanes().flat_map(|lane| lane.worker.schema().tables()))
}

/// The path of writes, for the listener that feeds clients.
pub fn router(pushes: Arc<Pushes>, gate: Arc<dyn Gate>) -> Router {
    let door = Arc::new(Door { pushes, gate, bodies: Bodies::new() });
    Router::new().route("/v1/push", post(push)).with_state(door)
}

async fn push(
    State(door): State<Arc<Door>>,
    Query(query): Query<BTreeMap<String, String>>,
    request: Request,
) -> Response {
    let asked = match read(&door, &query, request).await {
        Ok(asked) => asked,
        Err(refused) => {
            door.pushes.figures().count(refused_as(refused.status()));
            return *refused;
        }
    };
    let Asked { push, claims, wait } = asked;
    match carry_out(door.pushes.clone(), door.gate.clone(), push, claims, wait).await {
        Ok(answer) => Json(answer).into_response(),
        Err(failure) => *failed(failure),
    }
}

/// As what one is counted that is refused with this status.
pub(super) fn refused_as(status: StatusCode) -> Taken {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Taken::Forbidden,
        StatusCode::SERVICE_UNAVAILABLE => Taken::Again,
        _ => Taken::Invalid,
    }
}

/// A request that may be answered.
struct Asked {
    push: Push,
    claims: Claims,
    /// How long its answer may wait for the replica.
    wait: Option<Duration>,
}

async fn read(door: &Door, query: &BTreeMap<String, String>, request: Request) -> Result<Asked, Box<Response>> {
    let (head, body) = request.into_parts();
    let wait = query.get("wait").map(|text| text.parse().map(Duration::from_millis)).transpose();
    let wait = wait.ok().filter(|wait| wait.is_none_or(|wait| wait <= MOST_WAIT));
    let wait = wait.ok_or_else(|| refused(StatusCode::BAD_REQUEST, "wait", "must be at most 20000 milliseconds"))?;
    let claims = door.gate.claims(&head.headers).await?;
    if !is_json(&head.headers) {
        return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", "must be application/json"));
    }
    let key = head.headers.get(KEY).and_then(|key| key.to_str().ok());
    let Some(key) = key else {
        return Err(refused(
            StatusCode::BAD_REQUEST,
            "idempotency-key",
            "is missing: the same with each try of a request",
        ));
    };
    let body = door.bodies.read(head.headers.get(header::CONTENT_LENGTH), body).await;
    let body = body.map_err(|(status, problem)| refused(status, "body", problem))?;
    let Ok(text) = std::str::from_utf8(&body) else {
        return Err(refused(StatusCode::BAD_REQUEST, "body", "is not UTF-8"));
    };
    let push = Push::read(door.pushes.writables(), text, key)
        .map_err(|Invalid { path, problem }| refused(StatusCode::BAD_REQUEST, &path, &problem))?;
    Ok(Asked { push, claims, wait })
}

/// Pushes, and tells the gate. Whoever goes away does not end it in the middle: its connection would be taken for free.
pub(super) async fn carry_out(
    pushes: Arc<Pushes>,
    gate: Arc<dyn Gate>,
    push: Push,
    claims: Claims,
    wait: Option<Duration>,
) -> Result<Answer, Failure> {
    let pushing = tokio::spawn(async move {
        let mut answer = pushes.push(&push, &claims).await?;
        if let Some(xid) = answer.txid {
            answer.pos = gate.wrote(&push.tables(), &claims, xid, wait).await.map(|pos| pos.to_string());
        }
        Ok(answer)
    });
    pushing.await.unwrap_or_else(|_| Err(Error::retry("a push ended in the middle").into()))
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn refused(status: StatusCode, about: &str, problem: &str) -> Box<Response> {
    let errors = BTreeMap::from([(about, [problem])]);
    Box::new((status, Json(json!({"message": "Invalid request", "errors": errors}))).into_response())
}

fn failed(failure: Failure) -> Box<Response> {
    match failure {
        Failure::Forbidden(problem) => refused(StatusCode::FORBIDDEN, "token", problem),
        Failure::KeyTaken => refused(
            StatusCode::CONFLICT,
            "idempotency-key",
            "stands for another request, or is somebody else's: use another",
        ),
        Failure::Again(error) => again(&error),
    }
}

/// Nothing is known to be done: the same request with the same key finds out, and does it where it was not.
fn again(error: &Error) -> Box<Response> {
    let (after, needs_operator) = if error.needs_operator() { (HALT_AFTER, true) } else { (RETRY_AFTER, false) };
    match needs_operator {
        true => tracing::error!(%error, "a push is not taken"),
        false => tracing::warn!(%error, "a push is not taken"),
    }
    let body = Json(json!({"message": "not taken now: send the same request again, with the same Idempotency-Key"}));
    Box::new((StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, after)], body).into_response())
}
