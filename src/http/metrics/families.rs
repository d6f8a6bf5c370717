//! What the families of metrics are made of: a queue with its labels, one figure of each queue, and histograms that are
//! counted elsewhere.

use super::super::lane::Lane;
use crate::core::distribution::{BOUNDS, Distribution};
use crate::operate::status::Status;
use crate::sync::Counts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub(super) type Value = Gauge<f64, AtomicU64>;
/// None for the queue of the variables.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A queue, with its labels and what is known of it.
pub(super) struct Queue<'a> {
    pub labels: Labels,
    pub lane: &'a Lane,
    /// What its Postgres said last, if it ever did.
    pub status: Option<Status>,
    /// How long ago.
    pub age: Duration,
    /// Whether Postgres answers now.
    pub is_source_up: bool,
    /// Whether the replica answers.
    pub is_target_up: bool,
    /// What this process has measured.
    pub counts: Counts,
}

/// One figure of each queue.
pub(super) fn of_queues(queues: &[Queue<'_>], value: impl Fn(&Queue<'_>) -> Option<f64>) -> Family<Labels, Value> {
    let family = Family::<Labels, Value>::default();
    for queue in queues {
        if let Some(value) = value(queue) {
            family.get_or_create(&queue.labels).set(value);
        }
    }
    family
}

/// One count of each queue, or of several things in each.
pub(super) fn counted(counts: impl Iterator<Item = (Labels, u64)>) -> Family<Labels, Counter> {
    let family = Family::<Labels, Counter>::default();
    for (labels, count) in counts {
        family.get_or_create(&labels).inc_by(count);
    }
    family
}

/// The labels of one thing of a queue.
pub(super) fn with(labels: &Labels, more: &[(&'static str, &str)]) -> Labels {
    labels.iter().cloned().chain(more.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect()
}

/// A histogram of each queue.
#[derive(Debug)]
struct Histograms {
    name: &'static str,
    help: &'static str,
    of: Vec<(Labels, Distribution)>,
}

impl Collector for Histograms {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(self.name, self.help, None, MetricType::Histogram)?;
        for (labels, distribution) in &self.of {
            let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(distribution.counts).collect();
            let mut encoder = family.encode_family(labels)?;
            encoder.encode_histogram::<NoLabelSet>(distribution.sum, distribution.count(), &buckets, None)?;
        }
        Ok(())
    }
}

/// Registers a histogram of each queue.
pub(super) fn histogram(
    registry: &mut Registry,
    queues: &[Queue<'_>],
    name: &'static str,
    help: &'static str,
    of: fn(&Counts) -> Distribution,
) {
    let of = queues.iter().map(|queue| (queue.labels.clone(), of(&queue.counts))).collect();
    registry.register_collector(Box::new(Histograms { name, help, of }));
}
