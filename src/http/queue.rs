//! What a request does to a queue.

use super::answers::{detached, failure, refusal, replayed, success};
use super::app::App;
use super::auth::Caller;
use super::lane::Lane;
use crate::core::error::Result;
use crate::core::event::Event;
use crate::operate::status::Status;
use crate::operate::{resync, status};
use crate::sync::pairing::Nuked;
use crate::sync::{CALL_BUDGET, pairing};
use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// Drains a queue for as long as a call may take.
pub(super) async fn drain(app: &Arc<App>, lane: Arc<Lane>, name: &str) -> Response {
    let (app, name) = (app.clone(), name.to_owned());
    let drain = async move {
        app.tell(&name, Event::before());
        let done = lane.worker.call(CALL_BUDGET).await;
        app.tell(&name, Event::after(done.as_ref().map(|done| json!(done)).map_err(ToString::to_string)));
        let done = done?;
        if done.rebuilding > done.stuck.len() as u64 {
            lane.go_on.notify_one();
        }
        Ok(done)
    };
    match detached(drain).await {
        Ok(drained) => success(json!(drained)),
        Err(e) => failure(&e),
    }
}

/// Empties the replica of a queue.
pub(super) async fn nuke_lane(lane: Arc<Lane>, query: &HashMap<String, String>, caller: Caller) -> Response {
    let refill = match query.get("refill").map(String::as_str) {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => return refusal(StatusCode::BAD_REQUEST, format!("refill must be true or false, not {other:?}")),
    };
    let done = detached(async move {
        let done = pairing::nuke(&lane.worker, caller.id(), refill).await?;
        lane.worker.circuit().succeeded();
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
    /// The sync that it is for, checked by then.
    #[serde(rename = "sync", default)]
    _sync: Option<String>,
}

/// The tables that a request names; none for all of them.
pub(super) fn asked_tables(body: &Bytes) -> std::result::Result<Vec<String>, Box<Response>> {
    let asked: Option<ResyncBody> = match body.trim_ascii() {
        b"" => Some(ResyncBody::default()),
        // serde would take an array for an object.
        text if text.starts_with(b"{") => serde_json::from_slice(text).ok(),
        _ => None,
    };
    let wrong = r#"the body must be like {"tables":["apps"]}, or empty for all tables"#;
    asked.map(|asked| asked.tables).ok_or_else(|| Box::new(refusal(StatusCode::BAD_REQUEST, wrong)))
}

/// Asks for a rebuild of tables that a queue feeds.
pub(super) async fn resync_lane(lane: Arc<Lane>, body: &Bytes, caller: Caller) -> Response {
    let asked = match asked_tables(body) {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let tables: Vec<String> = match resync::tables(lane.worker.schema(), &asked) {
        Ok(tables) => tables.into_iter().map(str::to_owned).collect(),
        Err(unknown) => return refusal(StatusCode::BAD_REQUEST, unknown.to_string()),
    };
    let answer = json!({"success": true, "tables": tables});
    let request = async move {
        let names: Vec<&str> = tables.iter().map(String::as_str).collect();
        let is_new = resync::request_once(&lane.worker, &names, caller.id()).await?;
        lane.go_on.notify_one();
        Ok(is_new)
    };
    match detached(request).await {
        Ok(true) => (StatusCode::ACCEPTED, Json(answer)).into_response(),
        Ok(false) => replayed(),
        Err(e) => failure(&e),
    }
}

/// How a queue stands.
pub(super) async fn status_of(app: &App, name: &str, lane: &Lane) -> Result<Value> {
    let status = status::status(&lane.worker).await?;
    let feed = status.feed.as_ref().map(|feed| app.with_clients(name, feed));
    let mut status = json!(Status { circuit: Some(lane.worker.circuit().report()), ..status });
    if let Some(feed) = feed {
        status["feed"] = feed;
    }
    Ok(status)
}
