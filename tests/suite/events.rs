//! Outgoing events: signed, from the outbox, at least once, and none of them early.

use crate::pulls;
use crate::support::{Db, Home, Path, Rig, SECRET, Server, config, schema, until};
use crate::volume::set_up;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use pgflume::config::{Config, Signatures};
use pgflume::core::secret::Secret;
use pgflume::http::auth::Auth;
use pgflume::http::{App, Events, Lane};
use pgflume::operate::resync;
use pgflume::pull::{Pull, Scheduled, Service};
use pgflume::sync::Worker;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const T: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;
const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Somebody who takes events, or not.
#[derive(Clone, Default)]
struct Receiver {
    taken: Arc<Mutex<Vec<(String, serde_json::Value)>>>,
    refused: Arc<Mutex<usize>>,
    refuses: Arc<Mutex<bool>>,
}

impl Receiver {
    async fn start(&self) -> url::Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?key=of-theirs", listener.local_addr().unwrap());
        let router = Router::new().route("/hook", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url.parse().unwrap()
    }

    fn kinds(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(|(_, event)| event["type"].as_str().unwrap().to_owned()).collect()
    }

    fn has(&self, kind: &str) -> bool {
        self.kinds().iter().any(|taken| taken == kind)
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if *receiver.refuses.lock().unwrap() {
        *receiver.refused.lock().unwrap() += 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    // As the specification of Standard Webhooks has it.
    let content = [format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes(), &body].concat();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&STANDARD.decode(&KEY[6..]).unwrap()).unwrap();
    mac.update(&content);
    assert_eq!(header("webhook-signature"), format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())));
    receiver.taken.lock().unwrap().push((header("webhook-id"), serde_json::from_slice(&body).unwrap()));
    StatusCode::OK
}

fn auth() -> Auth {
    let secret = || vec![Secret::new(SECRET)];
    Auth::new(Signatures { webhook: secret(), nuke: secret() })
}

fn lane(rig: &Rig) -> Lane {
    let config = config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone());
    Lane::new(Worker::new(Config { has_events: true, ..config }), true)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_queue_arrive_signed_and_in_order_though_the_address_was_down_and_the_worker_stopped() {
    let rig = Rig::with(Db::new().await, Home::new(Path::File), schema(T));
    rig.db
        .sql("create table t (id int primary key, v text); insert into t select g, 'x' from generate_series(1, 50) g")
        .await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let receiver = Receiver::default();
    *receiver.refuses.lock().unwrap() = true;
    let url = receiver.start().await;
    let app = || {
        let events = Events::new(url.clone(), &Secret::new(KEY)).unwrap();
        App::of(Some(lane(&rig)), Vec::new(), Service::new(Vec::new()), auth()).telling(Some(events))
    };
    let server = Server::of(app()).await;
    until("it is copied", async || {
        rig.db.one("select count(*) from pgflume.resyncs where phase = 'done'").await == "1"
    })
    .await;
    rig.db.send(r#"{"what":"is this"}"#).await;
    until("there is a dead letter", async || rig.db.dead().await.len() == 1).await;
    until("events were refused", async || *receiver.refused.lock().unwrap() >= 1).await;
    assert!(receiver.kinds().is_empty());
    drop(server);
    assert_eq!(
        rig.db.all("select type from pgflume.events order by id").await,
        ["copy.started", "copy.finished", "dead_letter"]
    );
    *receiver.refuses.lock().unwrap() = false;
    let server = Server::of(app()).await;
    until("all arrive", async || receiver.has("dead_letter")).await;
    until("the outbox is empty", async || rig.db.one("select count(*) from pgflume.events").await == "0").await;
    let taken = receiver.taken.lock().unwrap().clone();
    let kinds: Vec<&str> = taken.iter().map(|(_, event)| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["copy.started", "copy.finished", "dead_letter"]);
    assert_eq!(
        taken[1].1["data"],
        serde_json::json!({"table": "t", "rows": 50, "removed": 0, "sync": "replicate_data_libsql"})
    );
    assert!(taken[0].0.starts_with("evt_") && taken[0].1["timestamp"].as_str().unwrap().ends_with('Z'));
    // A call, a paused table, drift, and a difference that verify finds.
    assert_eq!(server.sync().await.status, 200);
    until("a call is told", async || receiver.has("sync.before") && receiver.has("sync.after")).await;
    rig.db.sql("alter table t rename column v to w; insert into t values (1000, 'y')").await;
    until("the table waits", async || receiver.has("table.paused") && receiver.has("drift")).await;
    rig.db.sql("alter table t rename column w to v").await;
    resync::request(&rig.worker, &["t"]).await.unwrap();
    until("it is copied again", async || receiver.kinds().iter().filter(|kind| *kind == "copy.finished").count() == 2)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_where_nobody_is_to_be_told_and_a_pull_tells_of_its_passes() {
    let rig = Rig::with(Db::new().await, Home::new(Path::File), schema(T));
    rig.db.sql("create table t (id int primary key, v text); insert into t values (1, 'x')").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    assert_eq!(rig.db.one("select count(*) from pgflume.events").await, "0");
    let pulled = pulls::Rig::new(
        Path::File,
        "create table p (id int primary key, v text); insert into p values (1, 'x')",
        r#"{"p":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
    )
    .await;
    let receiver = Receiver::default();
    let url = receiver.start().await;
    let pull = Pull::new("p".into(), Arc::new(pulled.provider()), pulled.home.target(), false).with_retries(0);
    let scheduled =
        Scheduled { pull, every: Duration::from_millis(300), retry_delay: Duration::from_millis(50), limiter: None };
    let events = Events::new(url, &Secret::new(KEY)).unwrap();
    let _server =
        Server::of(App::of(None, Vec::new(), Service::new(vec![scheduled]), auth()).telling(Some(events))).await;
    until("a pass is told", async || receiver.has("sync.before") && receiver.has("sync.after")).await;
    pulled.db.sql("alter table p drop constraint p_pkey").await;
    until("a table that waits is told", async || receiver.has("table.paused")).await;
    let told =
        receiver.taken.lock().unwrap().iter().find(|(_, event)| event["type"] == "table.paused").unwrap().1.clone();
    assert_eq!((told["data"]["table"].as_str(), told["data"]["sync"].as_str()), (Some("p"), Some("p")), "{told}");
}
