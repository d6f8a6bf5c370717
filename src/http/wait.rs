//! `GET /wait`: answers when the replica holds what a writer's token names. Anybody may ask, so it begins nothing that
//! costs more than a look, and bounds who waits.

use super::answers::refusal;
use super::app::App;
use super::connections::Visit;
use super::kept::Kept;
use super::lane::Lane;
use crate::core::error::Result;
use crate::core::token::{Seen, Token};
use crate::replica::Replica;
use crate::replica::target::Target;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// The longest wait, and the usual one.
const LONGEST: Duration = Duration::from_secs(30);

/// Who waits at once.
const MOST_WAITERS: usize = 100;

/// Between two looks at what this process knows.
const LOOK: Duration = Duration::from_millis(50);

/// A follower is asked to look anew so often.
const ASK: Duration = Duration::from_millis(250);

/// A file is asked so often what another process has brought to it, for all who wait.
const FILE_LOOK: Duration = Duration::from_millis(250);

/// The same of a server, which may bill reads.
const SERVER_LOOK: Duration = Duration::from_secs(2);

/// Who waits, and what replicas were last seen to hold.
pub(super) struct Waiters {
    places: Semaphore,
    looked: Mutex<BTreeMap<String, Arc<Kept<Option<Seen>>>>>,
}

impl Default for Waiters {
    fn default() -> Self {
        Self { places: Semaphore::new(MOST_WAITERS), looked: Mutex::default() }
    }
}

/// What is waited for.
enum Awaited {
    Queue(Arc<Lane>),
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
                .map(Self::Queue)
                .or_else(pull)
                .ok_or_else(|| Box::new(refusal(StatusCode::NOT_FOUND, format!("no sync is called {name:?}"))));
        }
        let mut all: Vec<Self> = match &app.lane {
            Some(lane) => vec![Self::Queue(lane.clone())],
            None => {
                let pulls = app.service.names().map(|name| Self::Pull(name.to_owned()));
                app.named.values().cloned().map(Self::Queue).chain(pulls).collect()
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
            Self::Queue(lane) => lane.worker.seen().borrow().clone(),
            Self::Pull(name) => app.service.report(name)?.seen,
        }
    }

    fn place<'a>(&'a self, app: &'a App) -> Option<(&'a Target, &'a str)> {
        match self {
            Self::Queue(lane) => Some((lane.worker.target(), lane.worker.queue().as_str())),
            Self::Pull(name) => Some((app.service.pull(name)?.target(), name)),
        }
    }

    /// What the replica says of itself: another process may have brought it there.
    async fn looked(&self, app: &App) -> Option<Seen> {
        let (target, name) = self.place(app)?;
        let age = if matches!(target, Target::Remote { .. }) { SERVER_LOOK } else { FILE_LOOK };
        let kept = {
            let mut looked = app.waiters.looked.lock().unwrap_or_else(PoisonError::into_inner);
            looked.entry(name.to_owned()).or_insert_with(|| Arc::new(Kept::new(age))).clone()
        };
        let (target, name) = (target.clone(), name.to_owned());
        let look = move || async move {
            look(&target, &name).await.unwrap_or_else(|e| {
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

async fn look(target: &Target, name: &str) -> Result<Option<Seen>> {
    let Some(replica) = Replica::existing(target).await? else { return Ok(None) };
    replica.seen(name).await
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
    let Ok(_place) = app.waiters.places.try_acquire() else {
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
    let mut news = if let Awaited::Queue(lane) = awaited { Some(lane.worker.seen()) } else { None };
    loop {
        if awaited.holds(app, token).await {
            return Some(());
        }
        if Instant::now() >= deadline {
            return None;
        }
        // A token of a transaction that changed nothing here puts nothing on the queue.
        if let Awaited::Queue(lane) = awaited
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
