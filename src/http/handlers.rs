//! What each request does. Answers are JSON, but for `/metrics` and `/ok`; errors say what to do
//! and hold no secret and no row value.

use super::answers::{admit, failure, refusal};
use super::app::App;
use super::auth::Verb;
use super::connections::Visit;
use super::queue::{drain, nuke_lane, resync_lane, status_of};
use super::{metrics, syncs};
use crate::core::codes;
use crate::operate::status;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(super) async fn sync(State(app): State<Arc<App>>, request: Request) -> Response {
    if let Err(response) = admit(&app, request, Verb::Sync).await {
        return *response;
    }
    match app.lane.clone() {
        Some(lane) => {
            let name = lane.worker.queue().as_str().to_owned();
            drain(&app, lane, &name).await
        }
        None => syncs::run_all(&app).await,
    }
}

/// The answer where there is no queue that the path could mean.
fn no_queue() -> Response {
    refusal(
        StatusCode::NOT_FOUND,
        "no queue is set up by PGMQ_URL, LIBSQL_URL and SCHEMA_FILE: name a sync, as in /syncs/NAME/nuke",
    )
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
    match app.lane.clone() {
        Some(lane) => nuke_lane(lane, &query, caller).await,
        None => no_queue(),
    }
}

pub(super) async fn resync(State(app): State<Arc<App>>, request: Request) -> Response {
    let (caller, body) = match admit(&app, request, Verb::Resync).await {
        Ok(admitted) => admitted,
        Err(response) => return *response,
    };
    match app.lane.clone() {
        Some(lane) => resync_lane(lane, &body, caller).await,
        None => no_queue(),
    }
}

pub(super) async fn status(State(app): State<Arc<App>>, request: Request) -> Response {
    if let Err(response) = admit(&app, request, Verb::Status).await {
        return *response;
    }
    let Some(lane) = &app.lane else {
        let mut status = json!({"syncs": syncs::all(&app)});
        tell_pushes(&app, &mut status);
        return Json(status).into_response();
    };
    match status_of(&app, "", lane).await {
        Ok(mut status) => {
            let syncs = syncs::all(&app);
            if !syncs.is_empty() {
                status["syncs"] = json!(syncs);
            }
            tell_pushes(&app, &mut status);
            Json(status).into_response()
        }
        Err(e) => failure(&e),
    }
}

/// What became of clients' writes, of all queues together.
fn tell_pushes(app: &App, status: &mut Value) {
    if let Some(pushed) = app.pushed() {
        status["pushes"] = pushed;
    }
}

pub(super) async fn health() -> &'static str {
    "OK"
}

/// Why it does not do its job; nothing where it does.
pub(super) async fn reasons(app: &App) -> BTreeMap<&'static str, String> {
    let mut all = syncs::reasons(&app.service, app.lag_limit);
    for lane in app.lanes() {
        let most_lag = app.lag_limit.unwrap_or_else(|| lane.usual_lag());
        let mut found = status::unready_after(&lane.worker, most_lag).await;
        if !lane.is_behind(found.contains_key("lag"), most_lag) {
            found.remove("lag");
        }
        all.extend(found);
    }
    all
}

pub(super) async fn ready(State(app): State<Arc<App>>, Extension(visit): Extension<Visit>) -> Response {
    let asked = app.clone();
    let reasons = visit.sharing(app.ready.get(|| async move { reasons(&asked).await })).await;
    let Some(reasons) = reasons else {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, "whether it is ready cannot be told: ask again");
    };
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let codes: BTreeMap<_, _> = reasons.keys().map(|reason| (reason, codes::of_reason(reason).code)).collect();
    (status, Json(json!({"ready": reasons.is_empty(), "reasons": reasons, "codes": codes}))).into_response()
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
        "no such path: there are /, /sync, /nuke, /resync, /status, /syncs/NAME/…, /jobs, /webhooks/PROVIDER, /wait, /metrics, /health, /live, /ok, /ready and /hello",
    )
}

pub(super) async fn wrong_method() -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, "wrong method: POST /sync, /nuke and /resync, GET the others")
}
