//! `GET /v1/shape` on a listener of its own: what browsers and other clients are fed. Anybody may ask, so how much is read at
//! once is bounded.

use super::ANSWER_PATIENCE;
use super::app::App;
use super::connections::{self, Visit};
use super::lane::Lane;
use super::tokens::{Refused, Tokens};
use crate::config::TokenSources;
use crate::core::config_error::ConfigError;
use crate::core::error;
use crate::core::schema::Table;
use crate::core::token::Seen;
use crate::feed::access::{self, Denied};
use crate::feed::answer::{Answer, Asked, LIMITS, Told};
use crate::feed::filter;
use crate::feed::herald::Herald;
use crate::feed::offset::Offset;
use crate::feed::shape::Shape;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use futures_util::StreamExt as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

/// Connections at once.
const CONNECTIONS: usize = 12_000;

/// Requests that read the replica at once.
const READERS: usize = 8;

/// How long a request waits for news: proxies cut idle connections after 20 to 60 s.
const POLL: Duration = Duration::from_secs(20);

/// How long server-sent events go on.
const STREAM: Duration = Duration::from_secs(300);

/// Without news a comment is sent so often, which keeps proxies from cutting the connection.
const QUIET: Duration = Duration::from_secs(15);

const UNWHOLE: &str = "the table is not whole yet: ask again";

/// When to ask again for a table that is not whole yet, in seconds.
const RETRY_AFTER: &str = "1";

/// What pages of other origins may see of an answer.
const EXPOSED: &str = "electric-cursor,electric-handle,electric-offset,electric-schema,electric-up-to-date,retry-after";

const HANDLE: HeaderName = HeaderName::from_static("electric-handle");
const OFFSET: HeaderName = HeaderName::from_static("electric-offset");
const SCHEMA: HeaderName = HeaderName::from_static("electric-schema");
const CURSOR: HeaderName = HeaderName::from_static("electric-cursor");
const UP_TO_DATE: HeaderName = HeaderName::from_static("electric-up-to-date");

/// A table that is fed, and who knows of its replica.
struct Source {
    table: Arc<Table>,
    herald: Arc<Herald>,
}

/// All that is fed.
pub struct Feed {
    /// By the names that tables go by.
    tables: BTreeMap<String, Vec<Arc<Source>>>,
    heralds: Vec<(Arc<Herald>, watch::Receiver<Option<Seen>>)>,
    readers: Semaphore,
    tokens: Option<Tokens>,
    stopping: watch::Sender<bool>,
}

impl Feed {
    /// What queues and syncs that pull feed, to those whose tokens are good by these sources; `None` where no table is.
    pub fn of(app: &App, tokens: TokenSources) -> Result<Option<Self>, ConfigError> {
        let mut feed = Self {
            tables: BTreeMap::new(),
            heralds: Vec::new(),
            readers: Semaphore::new(READERS),
            tokens: Tokens::new(tokens)?,
            stopping: watch::Sender::new(false),
        };
        for Lane { worker, .. } in app.lanes().map(|lane| &**lane) {
            let fed: Vec<_> = worker.schema().tables().filter(|table| table.feed.is_some()).cloned().collect();
            feed.add(&fed, Herald::new(worker.target().clone(), worker.queue().as_str().to_owned()), worker.seen());
        }
        for pull in app.service.pulls() {
            feed.add(pull.fed(), Herald::new(pull.target().clone(), pull.name().to_owned()), pull.watch());
        }
        let closed = feed.tables.values().flatten().find(|source| access::needs_token(&source.table));
        match (closed, &feed.tokens) {
            (Some(source), None) => Err(ConfigError(format!(
                "the table {:?} is fed to those who have a token, and nothing says how tokens are checked: set FEED_JWT_SECRET (HS256), FEED_JWKS_URL (RS256, ES256) or FEED_AUTH_URL",
                source.table.name
            ))),
            _ => Ok((!feed.tables.is_empty()).then_some(feed)),
        }
    }

    /// Tables of a sync; `brought` tells when this process has brought its replica somewhere.
    fn add(&mut self, fed: &[Arc<Table>], herald: Herald, brought: watch::Receiver<Option<Seen>>) {
        if fed.is_empty() {
            return;
        }
        let herald = Arc::new(herald);
        self.heralds.push((herald.clone(), brought));
        for table in fed {
            let source = Arc::new(Source { table: table.clone(), herald: herald.clone() });
            let mut names = vec![table.name.clone(), table.source.written(), table.source.quoted()];
            names.sort();
            names.dedup();
            for name in names {
                self.tables.entry(name).or_default().push(source.clone());
            }
        }
    }
}

/// Serves until `stop` resolves; whoever waits is answered then.
pub async fn serve(listener: TcpListener, feed: Feed, stop: impl Future<Output = ()>) {
    raise_limit_of_files();
    let feed = Arc::new(feed);
    let router = Router::new()
        .route("/v1/shape", get(shape).options(preflight).delete(unsupported))
        .route("/v1/health", get(async || Json(json!({"status": "active"}))))
        .fallback(async || refused(StatusCode::NOT_FOUND, "path", "unknown: rows are at GET /v1/shape"))
        .with_state(feed.clone())
        .layer(from_fn(with_origins))
        .layer(CatchPanicLayer::new());
    let stopped = async {
        stop.await;
        feed.stopping.send_replace(true);
    };
    let looking = futures_util::future::join_all(feed.heralds.iter().map(|(herald, seen)| herald.run(seen.clone())));
    let serving = async {
        let open = connections::serve(listener, router, CONNECTIONS, stopped).await;
        tokio::time::timeout(ANSWER_PATIENCE, open.shutdown()).await.ok();
    };
    tokio::select! {
        _ = looking => {}
        () = serving => {}
    }
}

/// Each who waits has a connection.
fn raise_limit_of_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(error = %e, "the limit of open files stays as it is");
    }
}

/// Pages of all origins may ask: what they are given does not depend on cookies.
async fn with_origins(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    response
}

async fn preflight() -> Response {
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, *"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

async fn unsupported() -> Response {
    refused(StatusCode::METHOD_NOT_ALLOWED, "method", "nothing is deleted here")
}

fn refused(status: StatusCode, about: &str, problem: impl Into<String>) -> Response {
    let errors = BTreeMap::from([(about.to_owned(), [problem.into()])]);
    (status, Json(json!({"message": "Invalid request", "errors": errors}))).into_response()
}

/// Whoever is not known.
fn unknown(refused: &Refused) -> Response {
    match refused {
        Refused::Token(problem) => {
            let body = Json(json!({"message": format!("the token {problem}")}));
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response()
        }
        Refused::Unknown => not_now("whose the token is cannot be known now: ask again"),
    }
}

/// Whoever may not read a table.
fn denied(why: &Denied) -> Response {
    match why {
        Denied::Anonymous => unknown(&Refused::Token("is missing: send it as Authorization: Bearer …")),
        Denied::Lacks(claim) => {
            let message = format!("the token has no claim {claim:?} with a text, a number or a list of them");
            (StatusCode::FORBIDDEN, Json(json!({"message": message}))).into_response()
        }
    }
}

fn not_now(problem: &str) -> Response {
    let body = Json(json!({"message": problem}));
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, RETRY_AFTER)], body).into_response()
}

/// What was asked for.
struct Wanted {
    source: Arc<Source>,
    shape: Shape,
    offset: Offset,
    handle: Option<String>,
    is_live: bool,
    /// It wants server-sent events.
    is_stream: bool,
    /// When its token ends.
    until: Option<Instant>,
}

type Refusal = Box<Response>;

impl Wanted {
    fn read(feed: &Feed, query: &[(String, String)]) -> Result<Self, Refusal> {
        let wrong = |about: &str, problem: String| Box::new(refused(StatusCode::BAD_REQUEST, about, problem));
        let get = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let is_true = |name: &str| get(name) == Some("true");
        let name = get("table").ok_or_else(|| wrong("table", "is missing: name a table that is fed".into()))?;
        let source = match feed.tables.get(name).map(Vec::as_slice) {
            Some([source]) => source.clone(),
            Some(_) => {
                return Err(wrong("table", format!("{name:?} is fed by several syncs: rename it in one of them")));
            }
            None => return Err(wrong("table", format!("{name:?} is not fed"))),
        };
        let offset = get("offset").ok_or_else(|| wrong("offset", "is missing: begin with -1".into()))?;
        let offset = Offset::parse(offset).ok_or_else(|| wrong("offset", "is none that was given".into()))?;
        let handle = get("handle").map(str::to_owned);
        let is_live = is_true("live");
        if matches!(offset, Offset::At(..)) && handle.is_none() {
            return Err(wrong("handle", "is missing: it came with the offset".into()));
        }
        if is_live && offset == Offset::Start {
            return Err(wrong("live", "cannot be asked for before there are rows".into()));
        }
        let unserved = |key: &&String| key.starts_with("subset__") || *key == "log" && get("log") != Some("full");
        if let Some(key) = query.iter().map(|(key, _)| key).find(unserved) {
            return Err(wrong(key, "is not served: all rows of a shape come".into()));
        }
        let shape = Self::shape(&source, query).map_err(|(about, problem)| wrong(about, problem))?;
        let is_stream = is_live && (is_true("live_sse") || is_true("experimental_live_sse"));
        Ok(Self { source, shape, offset, handle, is_live, is_stream, until: None })
    }

    /// The same for one who asks with these headers: only what the claims may read.
    async fn restricted(mut self, feed: &Feed, headers: &HeaderMap) -> Result<Self, Refusal> {
        if !access::needs_token(&self.source.table) {
            return Ok(self);
        }
        let Some(tokens) = &feed.tokens else { return Err(Box::new(denied(&Denied::Anonymous))) };
        let bearer = tokens.bearer(headers).await.map_err(|refused| Box::new(unknown(&refused)))?;
        let restricted = access::restrict(&mut self.shape.allowed, &self.source.table, Some(&bearer.claims));
        restricted.map_err(|why| Box::new(denied(&why)))?;
        self.until = Some(Instant::now() + bearer.rest());
        Ok(self)
    }

    /// When what was asked for ends, of what goes on for so long.
    fn ends(&self, after: Duration) -> Instant {
        let end = Instant::now() + after;
        self.until.map_or(end, |until| until.min(end))
    }

    fn shape(source: &Source, query: &[(String, String)]) -> Result<Shape, (&'static str, String)> {
        let get = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let mut shape = Shape::of(&source.table).ok_or_else(|| ("table", "is not fed".to_owned()))?;
        if let Some(columns) = get("columns") {
            let names: Vec<String> = columns.split(',').map(|name| name.trim().trim_matches('"').to_owned()).collect();
            if names.len() > source.table.columns.len() {
                return Err(("columns", "names more than there are".to_owned()));
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            shape = shape.with_columns(&names).map_err(|problem| ("columns", problem))?;
        }
        if let Some(condition) = get("where") {
            let number = |key: &str| key.strip_prefix("params[")?.strip_suffix(']')?.parse().ok();
            let parameters = query.iter().filter_map(|(key, value)| Some((number(key)?, value.clone()))).collect();
            shape.allowed =
                filter::parse(condition, &parameters, &shape.table).map_err(|problem| ("where", problem))?;
        }
        Ok(shape)
    }
}

async fn shape(
    State(feed): State<Arc<Feed>>,
    Extension(visit): Extension<Visit>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let wanted = match Wanted::read(&feed, &query) {
        Ok(wanted) => wanted.restricted(&feed, &headers).await,
        Err(refused) => Err(refused),
    };
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(refused) => return *refused,
    };
    match wanted.is_stream {
        true => visit.sharing(stream(feed, wanted)).await,
        false => visit.sharing(answer(&feed, &wanted)).await,
    }
}

/// Server-sent events, where the first request shows that there is something to follow. Whoever can no longer, or has not
/// heard why, asks anew when they end.
async fn stream(feed: Arc<Feed>, mut wanted: Wanted) -> Response {
    let herald = wanted.source.herald.clone();
    let asked = Asked { shape: &wanted.shape, offset: wanted.offset, handle: wanted.handle.as_deref() };
    let first = match read(&feed, &wanted, &asked).await {
        Ok(Answer::Messages(told) | Answer::Nothing(told)) => told,
        Ok(Answer::Refetch { handle, body }) => return refetch(&handle, body),
        Ok(Answer::Unready) => return not_now(UNWHOLE),
        Err(e) => return unreadable(&e),
    };
    let (mut response, next) = (Response::new(Body::empty()), first.offset);
    wanted.handle = Some(first.handle.clone());
    put_headers(&mut response, &first, true);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    let beginning = format!(": {}\n\n{}", env!("CARGO_PKG_NAME"), first.messages.into_events());
    let until = wanted.ends(STREAM);
    let events = Events { feed, wanted, herald, offset: next, until };
    let later = futures_util::stream::unfold(events, |mut events| async move {
        Some((std::io::Result::Ok(events.next().await?), events))
    });
    let begun = futures_util::stream::iter([std::io::Result::Ok(beginning)]);
    *response.body_mut() = Body::from_stream(begun.chain(later));
    response
}

/// What one who follows by server-sent events is told.
struct Events {
    feed: Arc<Feed>,
    wanted: Wanted,
    herald: Arc<Herald>,
    offset: Offset,
    until: Instant,
}

impl Events {
    /// The next events; `None` where they end.
    async fn next(&mut self) -> Option<String> {
        let mut stopping = self.feed.stopping.subscribe();
        let mut waiting = self.herald.wait();
        let quiet = Instant::now() + QUIET;
        loop {
            if Instant::now() >= self.until || *stopping.borrow_and_update() {
                return None;
            }
            let (shape, handle) = (&self.wanted.shape, self.wanted.handle.as_deref());
            let asked = Asked { shape, offset: self.offset, handle };
            let told = match read(&self.feed, &self.wanted, &asked).await {
                Ok(Answer::Messages(told)) => {
                    self.offset = told.offset;
                    return Some(told.messages.into_events());
                }
                Ok(Answer::Nothing(told)) => told,
                _ => return None,
            };
            self.offset = told.offset;
            tokio::select! {
                () = waiting.news() => {}
                // How far it is by now, where it is anywhere: it begins there when the connection is cut.
                () = tokio::time::sleep_until(quiet.min(self.until)) => {
                    return Some(format!(": still here\n\n{}", told.messages.into_events()));
                }
                _ = stopping.wait_for(|stopping| *stopping) => return None,
            }
        }
    }
}

async fn answer(feed: &Feed, wanted: &Wanted) -> Response {
    let mut asked = Asked { shape: &wanted.shape, offset: wanted.offset, handle: wanted.handle.as_deref() };
    let deadline = wanted.ends(POLL);
    // Before the replica is read: what comes meanwhile is news.
    let mut waiting = wanted.is_live.then(|| wanted.source.herald.wait());
    let mut stopping = feed.stopping.subscribe();
    loop {
        match read(feed, wanted, &asked).await {
            Ok(Answer::Messages(told)) => return messages(told, wanted.is_live),
            Ok(Answer::Refetch { handle, body }) => return refetch(&handle, body),
            Ok(Answer::Unready) => return not_now(UNWHOLE),
            Ok(Answer::Nothing(told)) => {
                let Some(waiting) = &mut waiting else { return behind(told) };
                asked.offset = told.offset;
                let news = tokio::select! {
                    () = waiting.news() => true,
                    () = tokio::time::sleep_until(deadline) => false,
                    _ = stopping.wait_for(|stopping| *stopping) => false,
                };
                if !news {
                    return messages(told, true);
                }
            }
            Err(e) => return unreadable(&e),
        }
    }
}

async fn read(feed: &Feed, wanted: &Wanted, asked: &Asked<'_>) -> error::Result<Answer> {
    let Ok(_reader) = feed.readers.acquire().await else { return Ok(Answer::Unready) };
    match wanted.source.herald.replica().await? {
        Some(replica) => asked.answer(&replica, LIMITS).await,
        None => Ok(Answer::Unready),
    }
}

fn unreadable(error: &error::Error) -> Response {
    tracing::warn!(%error, "a client is not answered: the replica cannot be read");
    not_now("the replica cannot be read: ask again")
}

/// One who does not wait, and of whose table changes are on their way to a cut.
fn behind(told: Told) -> Response {
    if told.is_up_to_date {
        messages(told, false)
    } else {
        not_now("the table is between two moments of its source: ask again")
    }
}

fn messages(told: Told, is_live: bool) -> Response {
    let mut response = Response::new(Body::empty());
    put_headers(&mut response, &told, is_live);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Body::from(told.messages.into_json());
    response
}

fn put_headers(response: &mut Response, told: &Told, is_live: bool) {
    let headers = response.headers_mut();
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set(HANDLE, &told.handle);
    set(OFFSET, &told.offset.to_string());
    match is_live {
        true => set(CURSOR, &cursor().to_string()),
        false => set(SCHEMA, &ascii(&told.schema)),
    }
    if told.is_up_to_date {
        set(UP_TO_DATE, "true");
    }
}

/// JSON in ASCII: what is beyond is escaped.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c.is_ascii() && !c.is_ascii_control() {
            true => text.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    text
}

/// Another one every 20 seconds, so that no cache keeps an answer for longer.
fn cursor() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / POLL.as_secs())
}

fn refetch(handle: &str, body: String) -> Response {
    let mut response = (StatusCode::CONFLICT, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(handle) = HeaderValue::try_from(handle) {
        headers.insert(HANDLE, handle);
    }
    response
}
