//! What the handlers share.

use super::auth::Auth;
use super::body::Bodies;
use super::kept::Kept;
use crate::sync::Worker;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Notify;

/// How long the answer of `/metrics` is kept.
const METRICS_KEPT: Duration = Duration::from_secs(5);

/// How long the answer of `/ready` is kept: a crowd that asks costs both sides no more than one caller.
const READY_KEPT: Duration = Duration::from_secs(5);

/// What the handlers share.
pub struct App {
    /// Does the work.
    pub worker: Worker,
    /// Who may ask for it.
    pub auth: Auth,
    /// Tables are left to be rebuilt.
    pub(super) go_on: Notify,
    /// Changes are applied as they come.
    pub(super) is_following: bool,
    pub(super) bodies: Bodies,
    pub(super) metrics: Kept<Option<String>>,
    pub(super) ready: Kept<BTreeMap<&'static str, String>>,
}

impl App {
    /// A worker behind `auth`.
    pub fn new(worker: Worker, auth: Auth) -> Self {
        let (metrics, ready) = (Kept::new(METRICS_KEPT), Kept::new(READY_KEPT));
        Self { worker, auth, go_on: Notify::new(), is_following: false, bodies: Bodies::new(), metrics, ready }
    }

    /// One that applies changes as they come, too.
    #[must_use]
    pub fn following(self) -> Self {
        Self { is_following: true, ..self }
    }
}
