//! What the handlers share.

use super::auth::Auth;
use super::body::Bodies;
use super::kept::Kept;
use super::lane::Lane;
use super::waiters::Waiters;
use crate::pull::Service;
use crate::sync::Worker;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long the answer of `/metrics` is kept.
const METRICS_KEPT: Duration = Duration::from_secs(5);

/// How long the answer of `/ready` is kept: a crowd that asks costs both sides no more than one caller.
const READY_KEPT: Duration = Duration::from_secs(5);

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
        Self { lane, named, service, auth, bodies: Bodies::new(), metrics, ready, waiters }
    }

    /// One that applies changes as they come, too.
    #[must_use]
    pub fn following(mut self) -> Self {
        if let Some(lane) = self.lane.as_mut().and_then(Arc::get_mut) {
            lane.is_following = true;
        }
        self
    }

    /// All queues.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.lane.iter().chain(self.named.values())
    }
}
