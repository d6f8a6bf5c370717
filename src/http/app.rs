//! What the handlers share.

use super::auth::Auth;
use super::body::Bodies;
use super::events::Events;
use super::feeding::Seen;
use super::guesses::Guesses;
use super::history::History;
use super::kept::{Kept, KeptBy};
use super::lane::Lane;
use super::waiters::Waiters;
use crate::core::event::Event;
use crate::operate::status;
use crate::pull::Service;
use crate::sync::Worker;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long the answer of `/metrics` is kept.
const METRICS_KEPT: Duration = Duration::from_secs(5);

/// How long the answer of `/ready` is kept: a crowd that asks costs both sides no more than one caller.
const READY_KEPT: Duration = Duration::from_secs(5);

/// How long what the dashboard shows is kept.
const SHOWN_KEPT: Duration = Duration::from_secs(4);

/// What the handlers share.
pub struct App {
    /// The queue of the four variables, if there is one.
    pub(super) lane: Option<Arc<Lane>>,
    /// Those of `pgflume.json`.
    pub(super) named: BTreeMap<String, Arc<Lane>>,
    /// The syncs that pull.
    pub(super) service: Arc<Service>,
    /// Who may ask for it.
    pub auth: Auth,
    pub(super) bodies: Bodies,
    pub(super) metrics: Kept<Option<String>>,
    pub(super) ready: Kept<BTreeMap<&'static str, String>>,
    pub(super) waiters: Waiters,
    /// From when on a queue or sync is behind, where that is asked for.
    pub(super) lag_limit: Option<Duration>,
    /// Where events go, if anywhere.
    pub(super) events: Option<Arc<Events>>,
    /// What the dashboard shows.
    pub(super) shown: Kept<Arc<Value>>,
    /// The last hour.
    pub(super) history: History,
    /// How often the secret may be guessed.
    pub(super) guesses: Guesses,
    /// Whether the replicas of syncs that pull answer.
    targets: KeptBy<bool>,
    /// What feeds clients, and takes their writes.
    pub(super) seen: Seen,
}

impl App {
    /// A worker behind `auth`.
    pub fn new(worker: Worker, auth: Auth) -> Self {
        Self::of(Some(Lane::new(worker, false)), Vec::new(), Service::new(Vec::new()), auth)
    }

    /// A queue, further ones by their names, and syncs that pull.
    pub fn of(lane: Option<Lane>, named: Vec<(String, Lane)>, service: Service, auth: Auth) -> Self {
        let (metrics, ready) = (Kept::new(METRICS_KEPT), Kept::new(READY_KEPT));
        let named = named.into_iter().map(|(name, lane)| (name, Arc::new(lane))).collect();
        let (lane, service) = (lane.map(Arc::new), Arc::new(service));
        let waiters = Waiters::default();
        Self {
            lane,
            named,
            service,
            auth,
            bodies: Bodies::new(),
            metrics,
            ready,
            waiters,
            lag_limit: None,
            events: None,
            shown: Kept::new(SHOWN_KEPT),
            history: History::default(),
            guesses: Guesses::default(),
            targets: KeptBy::default(),
            seen: Seen::default(),
        }
    }

    /// One that says that it is behind after this time.
    #[must_use]
    pub fn behind_after(self, limit: Option<Duration>) -> Self {
        Self { lag_limit: limit, ..self }
    }

    /// One that tells others of events.
    #[must_use]
    pub fn telling(self, events: Option<Events>) -> Self {
        Self { events: events.map(Arc::new), ..self }
    }

    /// Tells others of an event of a sync, if anybody is to be told.
    pub(super) fn tell(&self, sync: &str, event: Event) {
        if let Some(events) = &self.events {
            events.tell(sync, event);
        }
    }

    /// One that applies changes as they come, too.
    #[must_use]
    pub fn following(mut self) -> Self {
        if let Some(lane) = self.lane.as_mut().and_then(Arc::get_mut) {
            lane.is_following = true;
        }
        self
    }

    /// Whether the replica of a sync that pulls answers; a crowd that asks costs no more than one.
    pub(super) async fn target_answers(&self, name: &str) -> bool {
        let Some(target) = self.service.pull(name).map(|pull| pull.target().clone()) else { return false };
        let kept = self.targets.of(name, status::asked_every(&target));
        kept.get(|| async move { status::target_answers(&target).await }).await.unwrap_or_default()
    }

    /// All queues, by their names; that of the variables is empty.
    pub(super) fn named_lanes(&self) -> impl Iterator<Item = (&str, &Arc<Lane>)> {
        let named = self.named.iter().map(|(name, lane)| (name.as_str(), lane));
        self.lane.iter().map(|lane| ("", lane)).chain(named)
    }

    /// All queues.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.lane.iter().chain(self.named.values())
    }
}
