//! The dashboard at `/`: one page, with nothing from elsewhere, and what it asks for. Signed in with the webhook secret;
//! reading, too. The page itself holds no secret and no figure.

mod data;
mod session;

pub(super) use data::sample;

use super::answers::{detached, failure, refusal, success};
use super::app::App;
use super::connections::{Occupation, Visit};
use super::kept::Soon;
use super::lane::Lane;
use crate::core::error::{Error, Result};
use crate::operate::{dead, resync};
use crate::postgres::books::dead_letters::Choice;
use crate::pull::LetterChoice;
use crate::sync::CALL_BUDGET;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use session::Session;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const PAGE: &str = include_str!("page.html");

/// How long an answer is waited for: after it, the page gets the one before if that is young, or is told to ask again.
const PATIENCE: Duration = Duration::from_millis(25);

/// Dead letters that the page shows.
const LETTERS: i64 = 100;

/// Nothing but what stands in the page: its one style and its one script, by their digests.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = |tag: &str| {
        let inside = PAGE.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
        STANDARD.encode(Sha256::digest(inside.map(|(inside, _)| inside).unwrap_or_default()))
    };
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        digest("style"),
        digest("script")
    );
    HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

/// What every answer says of itself.
fn guarded(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

pub(super) async fn page() -> Response {
    guarded(Html(PAGE))
}

fn is_https(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// `POST /session`: signs in with the secret, out with an empty form.
pub(super) async fn sign_in(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let visit = head.extensions.get::<Visit>().cloned().unwrap_or_default();
    visit.set(Occupation::Sender);
    let body = app.bodies.read(head.headers.get(header::CONTENT_LENGTH), body).await;
    visit.set(Occupation::Work);
    let body = match body {
        Ok(body) => body,
        Err((status, error)) => return guarded(refusal(status, error)),
    };
    let secret = url::form_urlencoded::parse(&body).find(|(name, _)| name == "secret").map(|(_, value)| value);
    let Some(secret) = secret.filter(|secret| !secret.is_empty()) else {
        return guarded((
            StatusCode::SEE_OTHER,
            [(header::LOCATION, HeaderValue::from_static("/")), (header::SET_COOKIE, Session::end())],
        ));
    };
    if !app.guesses.may_try() {
        let slow = refusal(StatusCode::TOO_MANY_REQUESTS, "too many wrong secrets: try again in a minute");
        return guarded(([(header::RETRY_AFTER, HeaderValue::from_static("60"))], slow));
    }
    if !app.auth.is_secret(secret.trim().as_bytes()) {
        app.guesses.was_wrong();
        tracing::warn!("somebody tried to sign in to the dashboard with a wrong secret");
        return guarded((StatusCode::SEE_OTHER, [(header::LOCATION, HeaderValue::from_static("/?wrong"))]));
    }
    let (_, cookie) = Session::begin(&app.auth, is_https(&head.headers));
    let headers = [(header::LOCATION, HeaderValue::from_static("/")), (header::SET_COOKIE, cookie)];
    guarded((StatusCode::SEE_OTHER, headers))
}

/// The session, or the answer that there is none.
fn admitted(app: &App, headers: &HeaderMap) -> Result<Session, Box<Response>> {
    let refused = || Box::new(guarded(refusal(StatusCode::UNAUTHORIZED, "sign in at / with the webhook secret")));
    Session::of(&app.auth, headers).ok_or_else(refused)
}

/// `GET /dashboard/data`
pub(super) async fn data(
    State(app): State<Arc<App>>,
    Extension(visit): Extension<Visit>,
    headers: HeaderMap,
) -> Response {
    let session = match admitted(&app, &headers) {
        Ok(session) => session,
        Err(refused) => return *refused,
    };
    let asked = app.clone();
    let known = app.shown.get_within(PATIENCE, || async move { Arc::new(data::all(asked).await) });
    let shown = match visit.sharing(known).await {
        Soon::Known(shown) => Some(shown),
        Soon::Making => None,
        Soon::Broken => {
            let broken = "what there is to show cannot be told: ask again";
            return guarded(refusal(StatusCode::INTERNAL_SERVER_ERROR, broken));
        }
    };
    guarded(Json(json!({"csrf": session.token, "shown": shown.as_deref()})))
}

/// Where letters are.
enum Letters<'a> {
    Queue(&'a Arc<Lane>),
    Pull(&'a str),
}

fn letters_of<'a>(app: &'a App, sync: &'a str) -> Option<Letters<'a>> {
    let lane = if sync == data::UNNAMED { app.lane.as_ref() } else { app.named.get(sync) };
    let pull = || app.service.pull(sync).map(|_| Letters::Pull(sync));
    lane.map(Letters::Queue).or_else(pull)
}

fn unknown() -> Response {
    guarded(refusal(StatusCode::NOT_FOUND, "there is no such sync"))
}

/// `GET /dashboard/dead?sync=`
pub(super) async fn dead_letters(
    State(app): State<Arc<App>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = admitted(&app, &headers) {
        return *refused;
    }
    let sync = query.get("sync").map(String::as_str).unwrap_or_default();
    let letters = match letters_of(&app, sync) {
        None => return unknown(),
        Some(Letters::Queue(lane)) => {
            dead::list(&lane.worker, &Choice::default(), LETTERS).await.map(|letters| json!(letters))
        }
        Some(Letters::Pull(name)) => match app.service.pull(name) {
            Some(pull) => pull.letters(&LetterChoice::default(), LETTERS).await.map(|letters| json!(letters)),
            None => return unknown(),
        },
    };
    guarded(match letters {
        Ok(letters) => success(json!({ "letters": letters })),
        Err(e) => failure(&e),
    })
}

/// What the page's buttons ask for.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Asked {
    /// Drain, or pass.
    Sync { sync: String },
    /// Rebuild a table, or compare it.
    Resync { sync: String, table: String },
    /// Try letters again.
    Retry { sync: String, ids: Vec<i64> },
    /// Drop letters.
    Drop { sync: String, ids: Vec<i64> },
}

/// `POST /dashboard/do`
pub(super) async fn act(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let session = match admitted(&app, &head.headers) {
        Ok(session) => session,
        Err(refused) => return *refused,
    };
    if !session.is_own(&app.auth, &head.headers) {
        return guarded(refusal(StatusCode::FORBIDDEN, "this does not come from the dashboard's own page: reload it"));
    }
    let visit = head.extensions.get::<Visit>().cloned().unwrap_or_default();
    visit.set(Occupation::Sender);
    let body = app.bodies.read(head.headers.get(header::CONTENT_LENGTH), body).await;
    visit.set(Occupation::Work);
    guarded(match body.map(|body: Bytes| serde_json::from_slice::<Asked>(&body)) {
        Err((status, error)) => refusal(status, error),
        Ok(Err(_)) => refusal(StatusCode::BAD_REQUEST, "this is none of the dashboard's requests: reload the page"),
        Ok(Ok(asked)) => match done(app.clone(), asked).await {
            Some(Ok(fields)) => {
                app.shown.forget();
                success(fields)
            }
            Some(Err(e)) => failure(&e),
            None => unknown(),
        },
    })
}

/// Does it; `None` where there is no such sync.
async fn done(app: Arc<App>, asked: Asked) -> Option<Result<Value>> {
    let (Asked::Sync { sync } | Asked::Resync { sync, .. } | Asked::Retry { sync, .. } | Asked::Drop { sync, .. }) =
        &asked;
    tracing::info!(sync, "the dashboard asks: {asked:?}");
    match letters_of(&app, sync)? {
        Letters::Queue(lane) => Some(detached(of_queue(lane.clone(), asked)).await),
        Letters::Pull(_) => Some(detached(of_pull(app, asked)).await),
    }
}

async fn of_queue(lane: Arc<Lane>, asked: Asked) -> Result<Value> {
    let worker = &lane.worker;
    let chosen = |ids| Choice { ids, table: None };
    Ok(match asked {
        Asked::Sync { .. } => json!(worker.call(CALL_BUDGET).await?),
        Asked::Resync { table, .. } => {
            let names = resync::tables(worker.schema(), std::slice::from_ref(&table));
            let names: Vec<&str> = names.map_err(|unknown| Error::halt(unknown.to_string()))?;
            resync::request(worker, &names).await?;
            lane.go_on.notify_one();
            json!({ "tables": [table] })
        }
        Asked::Retry { ids, .. } => {
            let done = dead::retry(worker, &chosen(named(ids)?)).await?;
            json!({"sent": done.sent, "stay": done.stay})
        }
        Asked::Drop { ids, .. } => json!({"dropped": dead::drop_letters(worker, &chosen(named(ids)?)).await?}),
    })
}

async fn of_pull(app: Arc<App>, asked: Asked) -> Result<Value> {
    let gone = || Error::retry("the sync is gone");
    let chosen = |ids| LetterChoice { ids, table: None };
    Ok(match asked {
        Asked::Sync { sync } => json!(app.service.call(&sync).await.ok_or_else(gone)??),
        Asked::Resync { sync, table } => {
            app.service.resync(&sync, std::slice::from_ref(&table), None).await.ok_or_else(gone)??;
            json!({ "tables": [table] })
        }
        Asked::Retry { sync, ids } => {
            let sent = app.service.pull(&sync).ok_or_else(gone)?.retry_letters(&chosen(named(ids)?)).await?;
            app.service.hint(&sync);
            json!({ "sent": sent })
        }
        Asked::Drop { .. } => {
            return Err(Error::halt(
                "letters of a sync that pulls go by themselves when their rows can be taken over, or are gone",
            ));
        }
    })
}

/// The letters that are meant: none at all would mean all.
fn named(ids: Vec<i64>) -> Result<Vec<i64>> {
    if ids.is_empty() {
        return Err(Error::halt("no letter was chosen: choose some"));
    }
    Ok(ids)
}
