//! `GET /metrics`: the figures of `status` and this process's counters as Prometheus text. No keys and no row
//! values. Anybody may ask, so the answer is kept for a while, and the replica is only asked whether it answers: a
//! server seldom, because hosted libSQL bills requests. What Postgres said last stays while it does not answer.

mod families;
mod feed;
mod process;
mod pulls;
mod source;

use super::app::App;
use super::lane::Lane;
use crate::operate::status;
use families::{Labels, Queue, Value, of_queues};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// The content type of the answer.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text, at most [`KEPT`] old; `None` if it cannot be written.
pub(super) async fn text(app: &Arc<App>) -> Option<String> {
    let asked = app.clone();
    app.metrics.get(|| async move { written(&asked).await.ok() }).await.flatten()
}

async fn queue(labels: Labels, lane: &Arc<Lane>) -> Queue<'_> {
    let (said, is_target_up) = tokio::join!(status::of_source(&lane.worker), lane.target_answers());
    // What it says may take too long where it answers well.
    let is_source_up = said.is_ok() || status::source_answers(&lane.worker).await;
    let (status, age) = lane.last_status(said.ok());
    Queue { labels, lane, status, age, is_source_up, is_target_up, counts: lane.worker.counts() }
}

async fn written(app: &App) -> Result<String, fmt::Error> {
    let unnamed = app.lane.iter().map(|lane| (Labels::new(), lane));
    let named = app.named.iter().map(|(name, lane)| (vec![("sync", name.clone())], lane));
    let queues = futures_util::future::join_all(unnamed.chain(named).map(|(labels, lane)| queue(labels, lane))).await;
    let (pulls, fed) = futures_util::join!(pulls::read(app), feed::read(app));
    let mut registry = Registry::with_prefix("pgflume");
    build_info(&mut registry);
    sides(&mut registry, &queues, &pulls);
    if !queues.is_empty() {
        process::register(&mut registry, &queues);
        source::register(&mut registry, &queues);
    }
    pulls::register(&mut registry, &pulls);
    feed::register(&mut registry, app, &fed);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text.lines().map(|line| unlabelled(line) + "\n").collect())
}

fn build_info(registry: &mut Registry) {
    let info = Family::<[(&'static str, &'static str); 1], Value>::default();
    info.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
    registry.register("build_info", "The version that runs", info);
}

/// What is asked of each sync, however it is fed.
fn sides(registry: &mut Registry, queues: &[Queue<'_>], pulls: &[pulls::Pulled]) {
    let sides = [
        ("source_up", "Whether the source answers", of_queues(queues, |queue| Some(f64::from(queue.is_source_up)))),
        ("target_up", "Whether the replica answers", of_queues(queues, |queue| Some(f64::from(queue.is_target_up)))),
        (
            "last_success_timestamp_seconds",
            "When a drain or pass last ended well; 0 where none has in this process",
            of_queues(queues, |queue| Some(queue.counts.succeeded_at.unwrap_or_default())),
        ),
    ];
    let of_pulls: [fn(&pulls::Pulled) -> f64; 3] = [
        |pulled| f64::from(pulled.is_source_up()),
        |pulled| f64::from(pulled.is_target_up),
        |pulled| pulled.report.succeeded_at.unwrap_or_default(),
    ];
    for ((name, help, family), of) in sides.into_iter().zip(of_pulls) {
        for pulled in pulls {
            family.get_or_create(&pulled.labels).set(of(pulled));
        }
        registry.register(name, help, family);
    }
}

/// A line without the braces of no labels.
fn unlabelled(line: &str) -> String {
    match line.split_once("{} ") {
        Some((name, value)) if !name.contains(['{', ' ']) => format!("{name} {value}"),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_braces_of_no_labels_go() {
        for (line, expected) in [
            ("pgflume_drains_total{} 1", "pgflume_drains_total 1"),
            ("pgflume_drains_total{sync=\"a{} b\"} 1", "pgflume_drains_total{sync=\"a{} b\"} 1"),
            ("# HELP x a{} b", "# HELP x a{} b"),
        ] {
            assert_eq!(unlabelled(line), expected);
        }
    }
}
