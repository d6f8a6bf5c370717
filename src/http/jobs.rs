//! Jobs: `POST /jobs`, `GET /jobs`, and webhooks, which are hints to look and nothing more.

use super::answers::{admit, failure, refusal};
use super::app::App;
use super::auth::Verb;
use crate::core::error::Result;
use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// Jobs that one answer shows.
const LISTED: i64 = 100;

/// What `POST /jobs` may say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    sync_id: String,
    #[serde(default)]
    team_id: Option<String>,
}

fn unknown_sync(app: &App, name: &str) -> Response {
    let known: Vec<&str> = app.service.names().collect();
    let known = if known.is_empty() { "none is enabled".to_owned() } else { format!("known are {}", known.join(", ")) };
    refusal(StatusCode::NOT_FOUND, format!("there is no sync {name:?} that pulls: {known}"))
}

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Response {
    let body = match admit(&app, request, Verb::Sync).await {
        Ok((_, body)) => body,
        Err(response) => return *response,
    };
    let Ok(asked) = serde_json::from_slice::<Asked>(&body) else {
        return refusal(StatusCode::BAD_REQUEST, r#"the body must be like {"syncId":"shop","teamId":"t1"}"#);
    };
    let payload = json!({"from": "POST /jobs"});
    match add(&app, &asked.sync_id, asked.team_id.as_deref(), &payload).await {
        None => unknown_sync(&app, &asked.sync_id),
        Some(Ok((job, true))) => {
            let answer = json!({"message": "Data sync job created successfully", "job": job});
            (StatusCode::CREATED, Json(answer)).into_response()
        }
        Some(Ok((job, false))) => {
            Json(json!({"message": "A job of this sync is pending already", "job": job})).into_response()
        }
        Some(Err(e)) => failure(&e),
    }
}

async fn add(app: &App, sync: &str, team: Option<&str>, payload: &Value) -> Option<Result<(Value, bool)>> {
    let pull = app.service.pull(sync)?;
    let added = pull.add_job(team, payload).await;
    app.service.hint(sync);
    Some(added.map(|(job, is_new)| (json!(job), is_new)))
}

pub(super) async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    if let Err(response) = admit(&app, request, Verb::Status).await {
        return *response;
    }
    let mut jobs = HashMap::new();
    for pull in app.service.pulls() {
        match pull.jobs(LISTED).await {
            // Several syncs may share a replica.
            Ok(found) => jobs.extend(found.into_iter().map(|job| (job.id.clone(), job))),
            Err(e) => return failure(&e),
        }
    }
    let mut jobs: Vec<_> = jobs.into_values().collect();
    jobs.sort_by(|a, b| (&b.created_at, &a.id).cmp(&(&a.created_at, &b.id)));
    jobs.truncate(LISTED as usize);
    Json(json!({"jobs": jobs})).into_response()
}

pub(super) async fn one(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    if let Err(response) = admit(&app, request, Verb::Status).await {
        return *response;
    }
    for pull in app.service.pulls() {
        match pull.job(&id).await {
            Ok(Some(job)) => return Json(json!({"job": job})).into_response(),
            Ok(None) => {}
            Err(e) => return failure(&e),
        }
    }
    refusal(StatusCode::NOT_FOUND, format!("there is no job {id:?}"))
}

/// Supabase's database webhooks carry the secret as `/sync` does. Nothing of the body is believed.
pub(super) async fn webhook(
    State(app): State<Arc<App>>,
    Path(provider): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    if provider != "supabase" {
        return refusal(
            StatusCode::NOT_FOUND,
            format!("no webhooks of {provider:?} are understood: known is supabase"),
        );
    }
    if let Err(response) = admit(&app, request, Verb::Sync).await {
        return *response;
    }
    let Some(name) = query.get("sync") else {
        return refusal(StatusCode::NOT_FOUND, "name the sync, as in /webhooks/supabase?sync=NAME");
    };
    match add(&app, name, None, &json!({"from": "webhook", "provider": provider})).await {
        None => unknown_sync(&app, name),
        Some(Ok(_)) => Json(json!({"success": true})).into_response(),
        Some(Err(e)) => failure(&e),
    }
}
