//! `GET /wait`: answers when the replica holds what a writer's token names. Anybody may ask, so it begins nothing that
//! costs more than a look, and bounds who waits.

use super::answers::refusal;
use super::app::App;
use super::connections::Visit;
use super::lane::Lane;
use crate::core::token::{Seen, Token};
use crate::operate::arrived;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The longest wait, and the usual one.
const LONGEST: Duration = Duration::from_secs(30);

/// Between two looks at what this process knows.
const LOOK: Duration = Duration::from_millis(50);

/// A follower is asked to look anew so often.
const ASK: Duration = Duration::from_millis(250);

/// What is waited for.
enum Awaited {
    /// With the sync's name; the queue of the four variables has none.
    Queue(Arc<Lane>, String),
    Pull(String),
}

impl Awaited {
    /// The sync of that name; without one the queue of the four variables, or the only sync.
    fn find(app: &App, name: Option<&str>) -> std::result::Result<Self, Box<Response>> {
        if let Some(name) = name {
            let pull = || app.service.names().any(|pull| pull == name).then(|| Self::Pull(name.to_owned()));
            return app
                .named
                .get(name)
                .cloned()
                .map(|lane| Self::Queue(lane, name.to_owned()))
                .or_else(pull)
                .ok_or_else(|| Box::new(refusal(StatusCode::NOT_FOUND, format!("no sync is called {name:?}"))));
        }
        let mut all: Vec<Self> = match &app.lane {
            Some(lane) => vec![Self::Queue(lane.clone(), String::new())],
            None => {
                let pulls = app.service.names().map(|name| Self::Pull(name.to_owned()));
                let queues = app.named.iter().map(|(name, lane)| Self::Queue(lane.clone(), name.clone()));
                queues.chain(pulls).collect()
            }
        };
        match (all.pop(), all.is_empty()) {
            (Some(only), true) => Ok(only),
            _ => {
                Err(Box::new(refusal(StatusCode::BAD_REQUEST, "there are several syncs: say which, as in &sync=NAME")))
            }
        }
    }

    /// What this process knows its replica to be.
    fn known(&self, app: &App) -> Option<Seen> {
        match self {
            Self::Queue(lane, _) => lane.worker.seen().borrow().clone(),
            Self::Pull(name) => app.service.pull(name)?.seen(),
        }
    }

    /// What the replica says of itself: another process may have brought it there.
    async fn looked(&self, app: &App) -> Option<Seen> {
        let (target, name, kept_as) = match self {
            Self::Queue(lane, sync) => (lane.worker.target(), lane.worker.queue().as_str(), format!("queue {sync}")),
            Self::Pull(name) => (app.service.pull(name)?.target(), name.as_str(), format!("pull {name}")),
        };
        let age = arrived::kept_for(target);
        let kept = app.waiters.looked(&kept_as, age);
        let (target, name) = (target.clone(), name.to_owned());
        let look = move || async move {
            arrived::seen(&target, &name).await.unwrap_or_else(|e| {
                tracing::debug!(error = %e, "the replica does not tell what it holds");
                None
            })
        };
        kept.get(look).await.flatten()
    }

    /// Whether it holds the token by now.
    async fn holds(&self, app: &App, token: &Token) -> bool {
        let holds = |seen: Option<Seen>| seen.is_some_and(|seen| seen.holds(token));
        holds(self.known(app)) || holds(self.looked(app).await)
    }
}

/// `5`, `5s`, `500ms`: at most [`LONGEST`].
fn timeout(text: Option<&String>) -> Option<Duration> {
    let Some(text) = text else { return Some(LONGEST) };
    let time = match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    time.filter(|time| *time <= LONGEST)
}

pub(super) async fn wait(
    State(app): State<Arc<App>>,
    Extension(visit): Extension<Visit>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let Some(token) = query.get("token").and_then(|text| Token::parse(text)) else {
        return refusal(
            StatusCode::BAD_REQUEST,
            "token must be what pgflume.token() gave in the writing transaction, or what pg_current_snapshot() gave after it: as in /wait?token=1234&timeout=5",
        );
    };
    let Some(timeout) = timeout(query.get("timeout")) else {
        return refusal(StatusCode::BAD_REQUEST, "timeout must be a time of at most 30s: 5, 5s or 500ms");
    };
    let awaited = match Awaited::find(&app, query.get("sync").map(String::as_str)) {
        Ok(awaited) => awaited,
        Err(refused) => return *refused,
    };
    let Some(_place) = app.waiters.place() else {
        let full = refusal(StatusCode::SERVICE_UNAVAILABLE, "too many wait already: ask again");
        return ([(header::RETRY_AFTER, HeaderValue::from_static("1"))], full).into_response();
    };
    let began = Instant::now();
    let deadline = began + timeout;
    visit.sharing(arrival(&app, &awaited, &token, deadline)).await.map_or_else(
        || refusal(StatusCode::GATEWAY_TIMEOUT, "the replica does not hold it yet: ask again, or read from Postgres"),
        |()| Json(json!({"success": true, "waited_ms": began.elapsed().as_millis() as u64})).into_response(),
    )
}

/// Waits until it holds the token; `None` after the deadline.
async fn arrival(app: &App, awaited: &Awaited, token: &Token, deadline: Instant) -> Option<()> {
    let mut asked: Option<Instant> = None;
    let mut news = if let Awaited::Queue(lane, _) = awaited { Some(lane.worker.seen()) } else { None };
    loop {
        if awaited.holds(app, token).await {
            return Some(());
        }
        if Instant::now() >= deadline {
            return None;
        }
        // A token of a transaction that changed nothing here puts nothing on the queue.
        if let Awaited::Queue(lane, _) = awaited
            && asked.is_none_or(|at| at.elapsed() >= ASK)
        {
            lane.worker.ask_for_snapshot();
            asked = Some(Instant::now());
        }
        let changed = async {
            match &mut news {
                Some(news) => drop(news.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK)) => {}
        }
    }
}
