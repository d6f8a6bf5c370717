//! `GET /v1/shape`, `GET /v1/socket` and `/v1/rx` on a listener of its own: what browsers and other clients are fed. Anybody may
//! ask, so how much is read at once is bounded.

mod asking;
mod fed;
mod poll;
mod question;
mod refusal;
mod responses;
mod rx;
mod socket;
mod stream;
mod wanted;

use super::ANSWER_PATIENCE;
use super::{connections, push};
use crate::push::Pushes;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, options};
use axum::{Json, Router};
pub use fed::Feed;
use poll::shape;
use refusal::Refusal;
use serde_json::json;
use std::sync::Arc;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;

/// Connections at once.
const CONNECTIONS: usize = 12_000;

/// What pages of other origins may see of an answer.
const EXPOSED: &str = "electric-cursor,electric-handle,electric-offset,electric-schema,electric-up-to-date,retry-after";

/// Serves until `stop` resolves; whoever waits is answered then.
pub async fn serve(listener: TcpListener, feed: Feed, pushes: Option<Arc<Pushes>>, stop: impl Future<Output = ()>) {
    raise_limit_of_files();
    let feed = Arc::new(feed);
    let collections = rx::router(feed.clone(), pushes.clone());
    let writing = pushes.map_or_else(Router::new, |pushes| {
        // A page asks before it writes to another origin, too.
        push::router(pushes, feed.clone()).route("/v1/push", options(preflight))
    });
    let router = Router::new()
        .route("/v1/shape", get(shape).options(preflight).delete(unsupported))
        .route("/v1/socket", get(socket::socket))
        .route("/v1/health", get(async || Json(json!({"status": "active"}))))
        .fallback(async || {
            Refusal::with_status(StatusCode::NOT_FOUND, "path", "unknown: rows are at GET /v1/shape and GET /v1/socket")
        })
        .with_state(feed.clone())
        .merge(writing)
        .merge(collections)
        .route("/v1/rx/{table}/pull", options(preflight))
        .route("/v1/rx/{table}/push", options(preflight))
        .route("/v1/rx/{table}/stream", options(preflight))
        .layer(from_fn(with_origins))
        .layer(CatchPanicLayer::new());
    let stopped = async {
        stop.await;
        feed.stopping.send_replace(true);
    };
    let looking = async {
        futures_util::future::join_all(feed.heralds.iter().map(|(_, herald)| herald.run())).await;
        std::future::pending::<()>().await; // there may be none: clients write only
    };
    let serving = async {
        let open = connections::serve(listener, router, CONNECTIONS, stopped).await;
        tokio::time::timeout(ANSWER_PATIENCE, open.shutdown()).await.ok();
    };
    tokio::select! {
        () = looking => {}
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
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, idempotency-key, *"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

async fn unsupported() -> Response {
    Refusal::with_status(StatusCode::METHOD_NOT_ALLOWED, "method", "nothing is deleted here").into_response()
}
