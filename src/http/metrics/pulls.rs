//! Each sync that pulls.

use super::super::app::App;
use super::families::{Labels, Value};
use crate::pull::Report;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// A sync that pulls.
pub(super) struct Pulled {
    pub labels: Labels,
    pub report: Report,
    /// How often it runs.
    pub every: Duration,
    /// Whether its replica answers.
    pub is_target_up: bool,
}

impl Pulled {
    /// A pass that fails while the replica answers fails at the source, or at what both of them say.
    pub fn is_source_up(&self) -> bool {
        self.report.failures_in_a_row == 0 || !self.is_target_up
    }
}

pub(super) async fn read(app: &App) -> Vec<Pulled> {
    let pulls = app.service.reports().into_iter().map(|(name, report)| async move {
        let is_target_up = app.target_answers(&name).await;
        let every = app.service.every(&name).unwrap_or_default();
        Pulled { labels: vec![("sync", name)], report, every, is_target_up }
    });
    futures_util::future::join_all(pulls).await
}

pub(super) fn register(registry: &mut Registry, pulls: &[Pulled]) {
    if pulls.is_empty() {
        return;
    }
    let figure = |of: &dyn Fn(&Pulled) -> Option<f64>| {
        let family = Family::<Labels, Value>::default();
        for pulled in pulls {
            if let Some(value) = of(pulled) {
                family.get_or_create(&pulled.labels).set(value);
            }
        }
        family
    };
    let gauge = |of: &dyn Fn(&Report) -> Option<f64>| figure(&|pulled| of(&pulled.report));
    let families = [
        (
            "sync_up",
            "Whether its last pass ended well",
            gauge(&|r| (r.passes + r.failures > 0).then(|| f64::from(r.failures_in_a_row == 0))),
        ),
        ("sync_passes", "Passes that ended well", gauge(&|r| Some(r.passes as f64))),
        ("sync_failures", "Passes that failed", gauge(&|r| Some(r.failures as f64))),
        ("sync_rows", "Rows written or deleted in the replica", gauge(&|r| Some((r.rows + r.removed) as f64))),
        ("sync_batches", "libSQL transactions", gauge(&|r| Some(r.batches as f64))),
        ("sync_dead_letters", "Dead letters written", gauge(&|r| Some(r.dead as f64))),
        ("sync_problem_tables", "Tables that are left as they are", gauge(&|r| Some(r.problems.len() as f64))),
        ("sync_interval_seconds", "How often it runs", figure(&|pulled| Some(pulled.every.as_secs_f64()))),
        ("sync_last_success_timestamp_seconds", "When its last pass ended well", gauge(&|r| r.succeeded_at)),
    ];
    for (name, help, family) in families {
        registry.register(name, help, family);
    }
    let promises = Family::<Labels, Value>::default();
    for pulled in pulls {
        if let Some(promise) = pulled.report.promise {
            promises.get_or_create(&super::families::with(&pulled.labels, &[("promise", promise)])).set(1.0);
        }
    }
    registry.register("sync_promise", "What a pass promises, of the table of which it promises least", promises);
}
