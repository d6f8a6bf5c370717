//! Outgoing events: delivered to `EVENTS_URL`, signed as Standard Webhooks, at least once and in order by sync. They come
//! from an outbox, where they were written in the transaction of what they tell of: that of a queue is in its Postgres,
//! that of a sync that pulls in its replica. What no transaction belongs to waits in this process: that a drain or pass
//! begins or has ended, and that a side is down where the outbox is on that side.

use super::lane::Lane;
use crate::core::backoff::Backoff;
use crate::core::chance::Chance;
use crate::core::crypto;
use crate::core::error::{Error, Result};
use crate::core::event::{Event, Waiting};
use crate::core::secret::Secret;
use crate::operate::outbox::Outbox;
use crate::pull::Pull;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// Between two looks at an outbox.
const LOOK: Duration = Duration::from_secs(2);

/// Time for one delivery.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Rests while events are not taken.
const REST: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));

/// How often an outbox in a replica is looked at though this process has put nothing there: another may have, and died.
const SELDOM: Duration = Duration::from_secs(3600);

/// Events that wait in this process, at most; the oldest go first.
const MOST: usize = 1_000;

/// Where events go.
pub struct Events {
    url: url::Url,
    key: Vec<u8>,
    client: reqwest::Client,
    chance: Chance,
    waiting: Mutex<VecDeque<(String, Event)>>,
    news: Notify,
}

impl Events {
    /// To this address, signed with this secret.
    pub fn new(url: url::Url, secret: &Secret) -> Result<Self> {
        let key = match secret.expose().strip_prefix("whsec_") {
            Some(encoded) => STANDARD.decode(encoded).unwrap_or_default(),
            None => secret.expose().as_bytes().to_vec(),
        };
        crypto::install();
        let client = reqwest::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("pgflume/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Error::halt(format!("events cannot be sent ({e})")))?;
        let (chance, waiting, news) = (Chance::default(), Mutex::default(), Notify::new());
        Ok(Self { url, key, client, chance, waiting, news })
    }

    /// Tells of an event of a sync that no transaction belongs to.
    pub(super) fn tell(&self, sync: &str, event: Event) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST {
            // What happens all the time goes first.
            let least = waiting.iter().position(|(_, event)| event.kind.starts_with("sync.")).unwrap_or_default();
            if let Some((sync, event)) = waiting.remove(least) {
                tracing::warn!(
                    sync,
                    event = event.kind,
                    "EVENTS_URL has taken nothing for so long that an event is dropped"
                );
            }
        }
        waiting.push_back((sync.to_owned(), event));
        self.news.notify_one();
    }

    /// Delivers what waits in this process, for ever.
    pub(super) async fn run(&self) {
        loop {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((sync, event)) = next else {
                self.news.notified().await;
                continue;
            };
            let (id, at) = (format!("evt_{}", uuid::Uuid::new_v4().simple()), now_text());
            self.insist(&id, event.kind, &at, &sync, event.data).await;
        }
    }

    /// Delivers what waits in the outbox of a queue, for ever.
    pub(super) async fn run_outbox(&self, lane: &Lane, sync: &str) {
        let mut failures = 0;
        loop {
            if let Err(e) = self.deliver_outbox(lane, sync, &mut failures).await {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(error = %e, "events wait; they are tried again");
                }
            }
            tokio::time::sleep(LOOK.max(REST.rest(failures, self.chance.fraction()))).await;
        }
    }

    async fn deliver_outbox(&self, lane: &Lane, sync: &str, failures: &mut u32) -> Result<()> {
        let outbox = Outbox::open(&lane.worker).await?;
        loop {
            let waiting = outbox.oldest().await?;
            for event in &waiting {
                // The outbox is opened anew before the next try, and does not grow without end.
                self.send_waiting(sync, event).await?;
                outbox.delivered(event.id).await?;
                *failures = 0;
            }
            if waiting.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Delivers what waits in the replica of a sync that pulls, for ever. It is asked when this process has written there,
    /// and seldom else, for servers bill requests.
    pub(super) async fn run_pulled(&self, pull: &Pull) {
        let (mut failures, mut delivered) = (0, BTreeSet::new());
        loop {
            match self.deliver_pulled(pull, &mut delivered, &mut failures).await {
                Ok(()) => drop(tokio::time::timeout(SELDOM, pull.news()).await),
                Err(e) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(sync = pull.name(), error = %e, "events wait; they are tried again");
                    }
                    tokio::time::sleep(REST.rest(failures, self.chance.fraction())).await;
                }
            }
        }
    }

    /// `delivered`: what has arrived and could not be taken out of the outbox yet.
    async fn deliver_pulled(&self, pull: &Pull, delivered: &mut BTreeSet<String>, failures: &mut u32) -> Result<()> {
        let Some(outbox) = pull.outbox().await? else { return Ok(()) };
        loop {
            let (waiting, has_more) = outbox.oldest().await?;
            let (mut sent, mut ids) = (Ok(()), Vec::new());
            for event in &waiting {
                if !delivered.contains(&event.uid) {
                    sent = self.send_waiting(pull.name(), event).await;
                    if sent.is_err() {
                        break;
                    }
                    delivered.insert(event.uid.clone());
                    *failures = 0;
                }
                ids.push(event.id);
            }
            if !ids.is_empty() {
                outbox.delivered(&ids).await?;
                delivered.clear();
            }
            sent?;
            if !has_more {
                return Ok(());
            }
        }
    }

    async fn send_waiting(&self, sync: &str, event: &Waiting) -> Result<()> {
        let (id, body) = (format!("evt_{}", event.uid), body(&event.kind, &event.at, sync, event.data.clone()));
        self.send(&id, &body).await.map_err(|e| Error::retry(format!("EVENTS_URL does not take them: {e}")))
    }

    /// Until it is taken.
    async fn insist(&self, id: &str, kind: &str, at: &str, sync: &str, data: Value) {
        let body = body(kind, at, sync, data);
        let mut failures = 0;
        while let Err(e) = self.send(id, &body).await {
            failures += 1;
            if failures == 1 {
                tracing::warn!(error = e, event = kind, "EVENTS_URL does not take an event; it is tried again");
            }
            tokio::time::sleep(REST.rest(failures, self.chance.fraction())).await;
        }
    }

    async fn send(&self, id: &str, body: &str) -> std::result::Result<(), String> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let content = format!("{id}.{at}.{body}");
        // HMAC takes keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(|e| e.to_string())?;
        mac.update(content.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", at.to_string())
            .header("webhook-signature", format!("v1,{signature}"))
            .body(body.to_owned());
        // The address may hold a secret.
        let answer = request.send().await.map_err(|e| e.without_url().to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("it answers {}", answer.status())) }
    }
}

fn body(kind: &str, at: &str, sync: &str, mut data: Value) -> String {
    data["sync"] = json!(sync);
    json!({"type": kind, "timestamp": at, "data": data}).to_string()
}

fn now_text() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// Puts an event into a queue's outbox; whether that worked.
async fn keep(lane: &Lane, sync: &str, event: Event) -> bool {
    let kept = async { Outbox::open(&lane.worker).await?.keep(event).await };
    kept.await.inspect_err(|e| tracing::debug!(sync, error = %e, "an event waits in memory")).is_ok()
}

/// Tells when a side of a queue goes down and comes back, as its circuit sees it.
pub(super) async fn watch_side(events: Arc<Events>, lane: Arc<Lane>, sync: String) {
    let (mut was_down, mut is_in_memory) = (false, false);
    loop {
        let report = lane.worker.circuit().report();
        let is_down = !report.is_closed();
        if is_down != was_down {
            let down = || Event::side_down(report.reason.as_deref().unwrap_or_default());
            let event = if is_down { down() } else { Event::side_up() };
            // What comes up goes the way of what went down, and not past it.
            let is_kept = !is_in_memory && keep(&lane, &sync, event.clone()).await;
            if !is_kept {
                events.tell(&sync, event);
            }
            is_in_memory = is_down && !is_kept;
            was_down = is_down;
        }
        tokio::time::sleep(LOOK).await;
    }
}
