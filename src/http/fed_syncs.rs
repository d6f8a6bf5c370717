//! How feeding clients, and taking their writes, stands in this process and in the replicas.

use super::app::App;
use super::feeding::Feeding;
use crate::operate::feed::{FedSync, FeedState};
use crate::operate::status;
use crate::push::{Pushes, Status, Taken};
use serde_json::{Map, Value, json};
use std::sync::Arc;

impl App {
    /// Clients are fed by this.
    pub fn feeds(&self, feeding: Feeding) {
        self.seen.feeding.set(feeding).ok();
    }

    /// Clients' writes are taken by these.
    pub fn takes(&self, pushes: Arc<Pushes>) {
        self.seen.pushes.set(pushes).ok();
    }

    /// What feeds clients, where anything does.
    pub(super) fn feeding(&self) -> Option<&Feeding> {
        self.seen.feeding.get()
    }

    /// What takes their writes, where anything does.
    pub(super) fn pushes(&self) -> Option<&Arc<Pushes>> {
        self.seen.pushes.get()
    }

    /// All syncs with tables that are fed, by their names; that of the variables' queue is empty.
    pub(super) fn fed_syncs(&self) -> Vec<(String, FedSync)> {
        let queues = self.named_lanes().map(|(name, lane)| (name, FedSync::of_queue(&lane.worker)));
        let pulls = self.service.pulls().map(|pull| (pull.name(), FedSync::of_pull(pull)));
        queues.chain(pulls).filter_map(|(name, fed)| Some((name.to_owned(), fed?))).collect()
    }

    /// How the log of a sync stands, or stood when its replica last answered; a crowd that asks costs no more than one.
    pub(super) async fn feed_state(&self, name: &str, fed: &FedSync) -> Option<FeedState> {
        let asked = self.seen.asked.of(name, status::asked_every(fed.target()));
        let fed = fed.clone();
        self.seen.last_state(name, asked.get(|| async move { fed.state().await.ok() }).await.flatten())
    }

    /// The figures of a sync's feed, with what this process knows of its clients: nothing where none of its tables is fed.
    pub(super) async fn feed_of(&self, name: &str) -> Option<Value> {
        let (_, fed) = self.fed_syncs().into_iter().find(|(known, _)| known == name)?;
        Some(self.with_clients(name, &self.feed_state(name, &fed).await.unwrap_or_default()))
    }

    /// What a replica says of a sync's feed, with what this process knows of its clients.
    pub(super) fn with_clients(&self, name: &str, state: &FeedState) -> Value {
        let mut all = json!(state);
        let Some(feeding) = self.feeding() else { return all };
        let (mut clients, mut shapes) = (0, 0);
        for board in feeding.boards(name) {
            let (of_table, different) = board.counts();
            (clients, shapes) = (clients + of_table, shapes + different);
            all["tables"][&board.table().name]["clients"] = json!(of_table);
        }
        (all["clients"], all["shapes"]) = (json!(clients), json!(shapes));
        all
    }

    /// What became of clients' writes; nothing where none are taken.
    pub(super) fn pushed(&self) -> Option<Value> {
        let figures = self.pushes()?.figures();
        let requests = Taken::ALL.map(|taken| (taken.name().to_owned(), json!(figures.requests(taken))));
        let changes = Status::ALL.map(|status| (status.name().to_owned(), json!(figures.changes(status))));
        Some(json!({"requests": Map::from_iter(requests), "changes": Map::from_iter(changes)}))
    }
}
