//! Syncs by their names: those that pull, and further queues.

use super::answers::{admit, detached, failure, refusal, replayed, success};
use super::app::App;
use super::auth::{Caller, Verb};
use super::queue::{asked_tables, drain, nuke_lane, resync_lane, status_of};
use crate::core::error::Error;
use crate::pull::{Asked, Report, Service};
use crate::sync::CALL_BUDGET;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Failures in a row after which a sync does not do its job.
const MOST_FAILURES: u32 = 3;

/// Intervals without a pass that ended well after which it is behind.
const INTERVALS: u32 = 3;

/// How each sync stands that pulls.
pub(super) fn all(app: &App) -> BTreeMap<String, Report> {
    app.service.reports()
}

/// Why syncs do not do their job; nothing where all do. They are behind after `limit`, or else three intervals.
pub(super) fn reasons(service: &Service, limit: Option<Duration>) -> BTreeMap<&'static str, String> {
    let failing = |(name, report): (String, Report)| {
        let error = report.error.filter(|_| report.failures_in_a_row >= MOST_FAILURES)?;
        Some(format!("the sync {name:?}: {error}"))
    };
    let reports = service.reports();
    let waiting = reports.iter().filter(|(_, report)| !report.problems.is_empty()).map(|(name, report)| {
        let tables: Vec<&str> = report.problems.keys().map(String::as_str).collect();
        format!("the sync {name:?} leaves tables as they are: {}", tables.join(", "))
    });
    let waiting: Vec<_> = waiting.collect();
    let late = reports.iter().filter_map(|(name, report)| {
        let every = service.every(name)?;
        let limit = limit.unwrap_or(every * INTERVALS);
        let silence = report.silent_for?;
        (silence > limit).then(|| format!("the sync {name:?} has not ended well for {} s", silence.as_secs()))
    });
    let late: Vec<_> = late.collect();
    let failing: Vec<_> = reports.into_iter().filter_map(failing).collect();
    let both = [("source", failing), ("table", waiting), ("lag", late)].into_iter();
    both.filter(|(_, reasons)| !reasons.is_empty()).map(|(kind, reasons)| (kind, reasons.join("; "))).collect()
}

fn unknown(app: &App, name: &str) -> Response {
    let known: Vec<&str> = app.service.names().chain(app.named.keys().map(String::as_str)).collect();
    let known = if known.is_empty() { "none is enabled".to_owned() } else { format!("known are {}", known.join(", ")) };
    refusal(StatusCode::NOT_FOUND, format!("there is no sync {name:?}: {known}"))
}

/// A signature covers the body and not the path: a signed request that changes something names its sync there, or it
/// would open each.
fn names_sync(caller: &Caller, body: &[u8], name: &str) -> bool {
    let named = || serde_json::from_slice::<Value>(body).ok().is_some_and(|body| body["sync"] == name);
    *caller == Caller::Secret || named()
}

fn unnamed() -> Response {
    refusal(StatusCode::UNAUTHORIZED, r#"a signed body has to name its sync, as in {"type":"nuke","sync":"NAME"}"#)
}

/// Runs all that are enabled.
pub(super) async fn run_all(app: &Arc<App>) -> Response {
    let app = app.clone();
    let passes = async move {
        let (mut syncs, mut is_whole) = (BTreeMap::new(), true);
        for (name, lane) in &app.named {
            let done = lane.worker.call(CALL_BUDGET).await;
            is_whole &= done.is_ok();
            syncs.insert(name.clone(), done.map_or_else(|e| json!({"error": e.to_string()}), |done| json!(done)));
        }
        for name in app.service.names().map(str::to_owned).collect::<Vec<_>>() {
            let done = match app.service.call(&name).await {
                Some(Ok(done)) => json!(done),
                Some(Err(e)) => {
                    is_whole = false;
                    json!({"error": e.to_string()})
                }
                None => continue,
            };
            syncs.insert(name, done);
        }
        Ok::<Value, Error>(json!({"success": is_whole, "syncs": syncs}))
    };
    match detached(passes).await {
        Ok(done) => Json(done).into_response(),
        Err(e) => failure(&e),
    }
}

pub(super) async fn sync(State(app): State<Arc<App>>, Path(name): Path<String>, request: Request) -> Response {
    if let Err(response) = admit(&app, request, Verb::Sync).await {
        return *response;
    }
    if let Some(lane) = app.named.get(&name) {
        return drain(&app, lane.clone(), &name).await;
    }
    if app.service.report(&name).is_none() {
        return unknown(&app, &name);
    }
    match detached(async move { app.service.call(&name).await.unwrap_or_else(|| Err(gone())) }).await {
        Ok(done) => success(json!(done)),
        Err(e) => failure(&e),
    }
}

pub(super) async fn nuke(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let (caller, body) = match admit(&app, request, Verb::Nuke).await {
        Ok(admitted) => admitted,
        Err(response) => return *response,
    };
    if !names_sync(&caller, &body, &name) {
        return unnamed();
    }
    match app.named.get(&name) {
        Some(lane) => nuke_lane(lane.clone(), &query, caller).await,
        None if app.service.report(&name).is_none() => unknown(&app, &name),
        None if query.get("refill").is_some_and(|refill| refill != "true") => refusal(
            StatusCode::BAD_REQUEST,
            format!("the sync {name:?} pulls: its next pass fills the tables; disable it where they are to stay empty"),
        ),
        None => nuke_pull(app, name, caller).await,
    }
}

async fn nuke_pull(app: Arc<App>, name: String, caller: Caller) -> Response {
    let done = detached(async move { app.service.nuke(&name, caller.id()).await.unwrap_or_else(|| Err(gone())) });
    match done.await {
        Ok(true) => success(json!({"message": "Data nuked and schema reinitialized"})),
        Ok(false) => replayed(),
        Err(e) => failure(&e),
    }
}

fn gone() -> Error {
    Error::retry("the sync is gone")
}

pub(super) async fn resync(State(app): State<Arc<App>>, Path(name): Path<String>, request: Request) -> Response {
    let (caller, body) = match admit(&app, request, Verb::Resync).await {
        Ok(admitted) => admitted,
        Err(response) => return *response,
    };
    if !names_sync(&caller, &body, &name) {
        return unnamed();
    }
    match app.named.get(&name) {
        Some(lane) => resync_lane(lane.clone(), &body, caller).await,
        None if app.service.report(&name).is_none() => unknown(&app, &name),
        None => resync_pull(app, name, &body, caller).await,
    }
}

async fn resync_pull(app: Arc<App>, name: String, body: &Bytes, caller: Caller) -> Response {
    let asked = match asked_tables(body) {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let asking = async move { app.service.resync(&name, &asked, caller.id()).await.unwrap_or_else(|| Err(gone())) };
    match detached(asking).await {
        Ok(Asked::Unknown(problem)) => refusal(StatusCode::BAD_REQUEST, problem),
        Ok(Asked::Replayed) => replayed(),
        Ok(Asked::Tables(tables)) => {
            (StatusCode::ACCEPTED, Json(json!({"success": true, "tables": tables}))).into_response()
        }
        Err(e) => failure(&e),
    }
}

pub(super) async fn status(State(app): State<Arc<App>>, Path(name): Path<String>, request: Request) -> Response {
    if let Err(response) = admit(&app, request, Verb::Status).await {
        return *response;
    }
    match (app.named.get(&name), app.service.report(&name)) {
        (Some(lane), _) => match status_of(&app, &name, lane).await {
            Ok(status) => Json(status).into_response(),
            Err(e) => failure(&e),
        },
        (None, Some(report)) => {
            let mut status = json!(report);
            if let Some(feed) = app.feed_of(&name).await {
                status["feed"] = feed;
            }
            Json(status).into_response()
        }
        (None, None) => unknown(&app, &name),
    }
}

pub(super) async fn hello() -> Json<Value> {
    Json(json!({"message": "Data Sync Service is running!", "input": {}}))
}
