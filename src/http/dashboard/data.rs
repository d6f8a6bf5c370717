//! What the dashboard shows: how each sync stands, asked for at most every few seconds however many look, and answered
//! with what is known while it is asked again.

use super::super::app::App;
use super::super::handlers::reasons;
use super::super::history::Sample;
use crate::core::codes;
use crate::operate::status;
use crate::pull::PullStatus;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name under which the queue of the variables is shown.
pub(in crate::http) const UNNAMED: &str = "";

/// All that is shown.
pub(super) async fn all(app: Arc<App>) -> Value {
    let lanes = app.lane.iter().map(|lane| (UNNAMED, lane)).chain(app.named.iter().map(|(n, lane)| (n.as_str(), lane)));
    let queues = lanes.map(|(name, lane)| {
        let app = &app;
        async move {
            let status = status::at_a_glance(&lane.worker).await;
            let (status, error) = match status {
                Ok(status) => {
                    let feed = status.feed.as_ref().map(|feed| app.with_clients(name, feed));
                    let mut status = json!(status);
                    if let Some(feed) = feed {
                        status["feed"] = feed;
                    }
                    (status, Value::Null)
                }
                Err(e) => (Value::Null, json!(e.to_string())),
            };
            let circuit = lane.worker.circuit().report();
            json!({
                "name": name, "following": lane.is_following, "status": status, "error": error, "circuit": circuit,
                "paused": lane.worker.paused(), "failure": lane.worker.failure(), "history": app.history.of(name),
            })
        }
    });
    let reports = app.service.reports();
    let pulls = reports.into_iter().map(|(name, report)| {
        let app = &app;
        async move {
            let status: Option<PullStatus> = match app.service.pull(&name) {
                Some(pull) => Some(pull.status().await),
                None => None,
            };
            let feed = app.feed_of(&name).await;
            json!({"name": name, "report": report, "status": status, "feed": feed, "history": app.history.of(&name)})
        }
    });
    let (reasons, queues, pulls) = futures_util::join!(
        async {
            app.ready
                .get(|| {
                    let app = app.clone();
                    async move { reasons(&app).await }
                })
                .await
                .unwrap_or_default()
        },
        futures_util::future::join_all(queues),
        futures_util::future::join_all(pulls)
    );
    let codes: BTreeMap<_, _> = reasons.keys().map(|reason| (*reason, codes::of_reason(reason).code)).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "at": humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string(),
        "ready": reasons.is_empty(), "reasons": reasons, "codes": codes, "queues": queues, "pulls": pulls,
        "pushes": app.pushed(),
    })
}

/// Adds a point to the history of each sync.
pub(in crate::http) fn sample(app: &App) {
    let lanes = app.lane.iter().map(|lane| (UNNAMED, lane)).chain(app.named.iter().map(|(n, lane)| (n.as_str(), lane)));
    for (name, lane) in lanes {
        let arrived = lane.worker.counts().commit_to_applied;
        app.history.add(name, Sample { rows: lane.worker.totals().rows, arrived, queued: lane.worker.queued() });
    }
    for (name, report) in app.service.reports() {
        let rows = report.rows + report.removed;
        app.history.add(&name, Sample { rows, ..Sample::default() });
    }
}
