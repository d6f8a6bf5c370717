//! The HTTP worker: routes, limits and answers. [`auth`] decides who may call, `handlers` what the calls do,
//! `background` what goes on between them, `metrics` what is counted; `connections` and `body` bound what
//! comes from outside. Takes a listener and a worker, so that tests run the very same entry on port 0.

mod answers;
mod app;
pub mod auth;
mod background;
mod body;
mod connections;
mod dashboard;
mod events;
mod fed_syncs;
pub mod feed;
mod feeding;
mod guesses;
mod handlers;
mod history;
mod jobs;
mod kept;
mod lane;
mod metrics;
pub mod push;
mod queue;
mod syncs;
mod tokens;
mod wait;
mod waiters;

use axum::Router;
use axum::http::{HeaderName, Request, StatusCode};
use axum::routing::{get, post};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

pub use app::App;
pub use body::BODY_BYTES;
pub use events::Events;
pub use lane::Lane;

/// Time for one request: a drain's budget, its last step, and a little.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest part of a request's path that the log shows.
const PATH_BYTES: usize = 200;

/// After a signal: time for the step in hand.
pub(crate) const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(9);

/// After the step in hand: time for answers to be sent. Whoever has not finished asking is not waited for.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// The routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let request_id = HeaderName::from_static("x-request-id");
    Router::new()
        .route("/sync", post(handlers::sync))
        .route("/nuke", post(handlers::nuke))
        .route("/resync", post(handlers::resync))
        .route("/status", get(handlers::status))
        .route("/syncs/{name}/sync", post(syncs::sync))
        .route("/syncs/{name}/nuke", post(syncs::nuke))
        .route("/syncs/{name}/resync", post(syncs::resync))
        .route("/syncs/{name}/status", get(syncs::status))
        .route("/jobs", get(jobs::list).post(jobs::create))
        .route("/jobs/{id}", get(jobs::one))
        .route("/webhooks/{provider}", post(jobs::webhook))
        .route("/hello", get(syncs::hello))
        .route("/wait", get(wait::wait))
        .route("/", get(dashboard::page))
        .route("/session", post(dashboard::sign_in))
        .route("/dashboard/data", get(dashboard::data))
        .route("/dashboard/dead", get(dashboard::dead_letters))
        .route("/dashboard/do", post(dashboard::act))
        .route("/live", get(handlers::health))
        .route("/health", get(handlers::health))
        .route("/ok", get(handlers::health))
        .route("/ready", get(handlers::ready))
        .route("/metrics", get(handlers::metrics))
        .fallback(handlers::unknown_path)
        .method_not_allowed_fallback(handlers::wrong_method)
        .with_state(app)
        .layer(CatchPanicLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT))
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(TraceLayer::new_for_http().make_span_with(span).on_failure(())) // what fails is logged where it does
        .layer(SetRequestIdLayer::new(request_id, MakeRequestUuid))
}

/// No query and no header but the request's id: secrets travel there.
fn span<B>(request: &Request<B>) -> tracing::Span {
    let id = request.headers().get("x-request-id").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let path = request.uri().path();
    let path = path.get(..PATH_BYTES).unwrap_or(path); // always ASCII
    tracing::info_span!("request", method = %request.method(), path, id)
}

/// Serves until `shutdown` resolves, then ends the step in hand and returns.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stopped, stopping) = tokio::sync::oneshot::channel::<()>();
    let told = app.clone();
    let signal = async move {
        shutdown.await;
        told.lanes().for_each(|lane| lane.worker.stop());
        told.service.stop();
        drop(stopped);
    };
    let server = async {
        let open = connections::serve(listener, router(app.clone()), connections::MOST, signal).await;
        for lane in app.lanes() {
            lane.worker.idle().await;
        }
        app.service.idle().await;
        tokio::time::timeout(ANSWER_PATIENCE, open.shutdown()).await.ok();
    };
    let background = futures_util::future::join_all(app.lanes().cloned().map(background::run));
    let following = futures_util::future::join_all(app.lanes().cloned().map(Lane::follow));
    let pulling = async {
        app.service.run().await;
        std::future::pending::<()>().await
    };
    let telling = async {
        let Some(events) = app.events.clone() else { return std::future::pending::<()>().await };
        let unnamed = app.lane.iter().map(|lane| (lane.worker.queue().as_str().to_owned(), lane));
        let lanes = unnamed.chain(app.named.iter().map(|(name, lane)| (name.clone(), lane)));
        let lanes = lanes.map(|(name, lane)| {
            let watching = events::watch_side(events.clone(), lane.clone(), name.clone());
            let events = &events;
            async move { futures_util::future::join(events.run_outbox(lane, &name), watching).await }
        });
        let told = events.clone();
        app.service.observed_by(move |sync, event| told.tell(sync, event));
        let pulled = futures_util::future::join_all(app.service.pulls().map(|pull| events.run_pulled(pull)));
        futures_util::join!(events.run(), futures_util::future::join_all(lanes), pulled);
    };
    let sampling = async {
        loop {
            dashboard::sample(&app);
            tokio::time::sleep(history::EVERY).await;
        }
    };
    let patience = async {
        // An error says that the sender is gone: that is the signal.
        stopping.await.ok();
        tokio::time::sleep(SHUTDOWN_PATIENCE).await;
    };
    tokio::select! {
        () = async { background.await; std::future::pending().await } => {}
        () = async { following.await; std::future::pending().await } => {}
        () = pulling => {}
        () = sampling => {}
        () = telling => {}
        () = server => {}
        () = patience => {
            tracing::warn!("the step in hand takes too long; Postgres puts its messages back on the queue");
        }
    }
    Ok(())
}
