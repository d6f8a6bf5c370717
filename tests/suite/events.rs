//! Outgoing events: signed, from the outbox, at least once, and none of them early.

use crate::parts::proxy::{Fault, Proxy};
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
use pgflume::postgres::PgUrl;
use pgflume::provider::postgres::PostgresProvider;
use pgflume::pull::{Pull, Scheduled, Service};
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use std::collections::BTreeSet;
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

    /// Of events that were delivered twice, the first.
    fn kinds_once(&self) -> Vec<String> {
        let mut ids = BTreeSet::new();
        let taken = self.taken.lock().unwrap();
        let first = taken.iter().filter(|(id, _)| ids.insert(id.clone()));
        first.map(|(_, event)| event["type"].as_str().unwrap().to_owned()).collect()
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
    assert_eq!(receiver.kinds_once(), ["copy.started", "copy.finished", "dead_letter"]);
    let taken = receiver.taken.lock().unwrap().clone();
    assert_eq!(
        taken.iter().find(|(_, event)| event["type"] == "copy.finished").unwrap().1["data"],
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
    until("it is copied again", async || {
        receiver.kinds_once().iter().filter(|kind| *kind == "copy.finished").count() == 2
    })
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
    pulled.pass().await;
    assert_eq!(pulled.rows("SELECT count(*) FROM sqlite_master WHERE name = '_pgflume_events'").await, ["0"]);
    let receiver = Receiver::default();
    let url = receiver.start().await;
    let pull =
        Pull::new("p".into(), Arc::new(pulled.provider()), pulled.home.target(), false).with_retries(0).telling();
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

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_pull_are_in_its_replica_and_arrive_though_the_address_was_down_and_the_process_ended() {
    for path in [Path::File, Path::Sqld] {
        let rig = pulls::Rig::new(
            path,
            "create table t (id int primary key, n numeric); insert into t select i, i from generate_series(1, 100) i;
             update t set n = 0.5 where id = 50",
            r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","n":"INTEGER"}}}"#,
        )
        .await;
        let receiver = Receiver::default();
        *receiver.refuses.lock().unwrap() = true;
        let url = receiver.start().await;
        let proxy = Proxy::start(rig.db.cluster().port());
        let source = rig.db.url().replace(&format!(":{}/", rig.db.cluster().port()), &format!(":{}/", proxy.port()));
        let serve = async || {
            let provider = PostgresProvider { url: PgUrl::parse(&source).unwrap(), ..rig.provider() };
            let pull = Pull::new("p".into(), Arc::new(provider), rig.home.target(), false).with_retries(0).telling();
            let (every, retry_delay) = (Duration::from_millis(200), Duration::from_millis(20));
            let service = Service::new(vec![Scheduled { pull, every, retry_delay, limiter: None }]);
            let events = Events::new(url.clone(), &Secret::new(KEY)).unwrap();
            Server::of(App::of(None, Vec::new(), service, auth()).telling(Some(events))).await
        };
        let server = serve().await;
        let has_outbox = "SELECT 1 FROM sqlite_master WHERE name = '_pgflume_events'";
        until("there is an outbox", async || !rig.rows(has_outbox).await.is_empty()).await;
        let waiting = async || rig.rows("SELECT type FROM _pgflume_events ORDER BY id").await;
        let first = ["copy.started", "copy.finished", "dead_letter"];
        until("events were refused", async || *receiver.refused.lock().unwrap() >= 1).await;
        until("all wait", async || waiting().await.len() == first.len()).await;
        assert_eq!(sorted(waiting().await), sorted(first.map(str::to_owned).to_vec()));
        drop(server);
        // Another process delivers them, and what it finds itself.
        *receiver.refuses.lock().unwrap() = false;
        let _server = serve().await;
        // The process that ended may have delivered some, too: each id counts once.
        until("all arrive", async || {
            let kinds = receiver.kinds_once();
            first.iter().all(|kind| kinds.contains(&(*kind).to_owned()))
        })
        .await;
        until("nothing waits", async || waiting().await.is_empty()).await;
        let told =
            receiver.taken.lock().unwrap().iter().find(|(_, event)| event["type"] == "dead_letter").unwrap().1.clone();
        assert_eq!(
            (told["data"]["table"].as_str(), told["data"]["class"].as_str()),
            (Some("t"), Some("value")),
            "{told}"
        );
        assert!(told["data"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{told}");
        rig.replica("UPDATE t SET n = 1234 WHERE id = 3").await;
        Pull::new("p".into(), Arc::new(rig.provider()), rig.home.target(), false)
            .ask_to_compare(&[], None)
            .await
            .unwrap();
        until("a difference is told", async || receiver.has("difference")).await;
        proxy.set(Fault::CutBeforeSend);
        proxy.drop_connections();
        until("the source is down", async || receiver.has("side.down")).await;
        proxy.set(Fault::Pass);
        until("it is up again", async || receiver.has("side.up")).await;
        rig.db.sql("alter table t drop constraint t_pkey").await;
        until("it waits", async || receiver.has("table.paused")).await;
        let mut kinds = receiver.kinds_once();
        kinds.retain(|kind| !kind.starts_with("sync."));
        assert_eq!(kinds.split_off(3), ["difference", "side.down", "side.up", "table.paused"]);
        until("nothing waits", async || waiting().await.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_down_is_told_of_by_the_outbox_and_postgres_that_is_down_by_the_process() {
    let home = Home::new(Path::Sqld);
    let Target::Remote { url, token } = home.target() else { unreachable!() };
    let target_proxy = Proxy::start(url.rsplit(':').next().unwrap().parse().unwrap());
    let rig = Rig::with(Db::new().await, home, schema(T));
    let source_proxy = Proxy::start(rig.db.cluster().port());
    rig.db.sql("create table t (id int primary key, v text)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    let source = rig.db.url().replace(&format!(":{}/", rig.db.cluster().port()), &format!(":{}/", source_proxy.port()));
    let config = config(&source, Target::Remote { url: target_proxy.url(), token }, rig.worker.schema().clone());
    let lane = Lane::new(Worker::new(Config { has_events: true, ..config }), false);
    let receiver = Receiver::default();
    *receiver.refuses.lock().unwrap() = true;
    let events = Events::new(receiver.start().await, &Secret::new(KEY)).unwrap();
    let server =
        Server::of(App::of(Some(lane), Vec::new(), Service::new(Vec::new()), auth()).telling(Some(events))).await;
    let waiting = async || rig.db.all("select type from pgflume.events order by id").await;
    target_proxy.set(Fault::CutBeforeSend);
    rig.db.sql("insert into t values (1, 'x')").await;
    until("it is kept in Postgres", async || {
        server.sync().await;
        waiting().await == ["side.down"]
    })
    .await;
    target_proxy.set(Fault::Pass);
    until("that it is up again, too", async || {
        server.sync().await;
        waiting().await == ["side.down", "side.up"]
    })
    .await;
    *receiver.refuses.lock().unwrap() = false;
    until("both arrive", async || receiver.has("side.up") && waiting().await.is_empty()).await;
    receiver.taken.lock().unwrap().clear();
    source_proxy.set(Fault::CutBeforeSend);
    source_proxy.drop_connections();
    until("Postgres is down", async || {
        server.sync().await;
        receiver.has("side.down")
    })
    .await;
}

/// A sync whose events are kept in its replica, and what is delivered of it.
async fn told(rig: &pulls::Rig, url: url::Url, target: Target) -> Server {
    let pull = Pull::new("p".into(), Arc::new(rig.provider()), target, false).with_retries(0).telling();
    let (every, retry_delay) = (Duration::from_millis(100), Duration::from_millis(20));
    let service = Service::new(vec![Scheduled { pull, every, retry_delay, limiter: None }]);
    let events = Events::new(url, &Secret::new(KEY)).unwrap();
    Server::of(App::of(None, Vec::new(), service, auth()).telling(Some(events))).await
}

const P: &str = r#"{"p":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},"q":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#;
const MAKE_P: &str =
    "create table p (id int primary key, v text); insert into p values (1, 'x'); create table q (id int primary key)";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_waits_is_told_once_though_its_copy_is_dropped_meanwhile() {
    let rig = pulls::Rig::new(Path::File, MAKE_P, P).await;
    let receiver = Receiver::default();
    let _server = told(&rig, receiver.start().await, rig.home.target()).await;
    until("both are copied", async || {
        receiver.kinds_once().iter().filter(|kind| *kind == "copy.finished").count() == 2
    })
    .await;
    rig.db.sql(&format!("revoke all on p from {}", rig.reader())).await;
    until("it waits", async || receiver.has("table.paused")).await;
    rig.replica("DROP TABLE p").await;
    let passes = async || receiver.kinds().iter().filter(|kind| *kind == "sync.after").count();
    let before = passes().await;
    until("some passes more", async || passes().await >= before + 10).await;
    assert_eq!(receiver.kinds().iter().filter(|kind| *kind == "table.paused").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebodys_own_database_gets_no_outbox() {
    let rig = pulls::Rig::new(Path::File, MAKE_P, P).await;
    rig.replica("CREATE TABLE p (id INTEGER PRIMARY KEY, v TEXT)").await;
    rig.replica("INSERT INTO p VALUES (7, 'theirs')").await;
    let receiver = Receiver::default();
    let _server = told(&rig, receiver.start().await, rig.home.target()).await;
    until("it is told that it is refused", async || receiver.has("side.down")).await;
    assert_eq!(rig.rows("SELECT name FROM sqlite_master WHERE type = 'table'").await, ["p"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_batch_had_no_answer_is_delivered_and_each_is_sent_once() {
    let rig = pulls::Rig::new(
        Path::Sqld,
        "create table t (id int primary key, n numeric); insert into t select i, i from generate_series(1, 100) i",
        r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","n":"INTEGER"}}}"#,
    )
    .await;
    let Target::Remote { url, token } = rig.home.target() else { unreachable!() };
    let proxy = Proxy::start(url.rsplit(':').next().unwrap().parse().unwrap());
    let receiver = Receiver::default();
    let _server = told(&rig, receiver.start().await, Target::Remote { url: proxy.url(), token }).await;
    until("it is copied", async || receiver.has("copy.finished")).await;
    let letters = async || rig.rows("SELECT count(*) FROM _pgflume_dead").await;
    for id in 1..=5 {
        // Whatever answer it is of, the next one is lost: now and then that of the batch.
        proxy.set_once(Fault::CutAfterSend);
        rig.db.sql(&format!("update t set n = 0.5 where id = {id}")).await;
        until("there is a letter", async || letters().await == [id.to_string()]).await;
        let told = async || receiver.kinds().iter().filter(|kind| *kind == "dead_letter").count();
        until("it is told", async || told().await >= id).await;
    }
    until("nothing waits", async || rig.rows("SELECT count(*) FROM _pgflume_events").await == ["0"]).await;
    let taken = receiver.taken.lock().unwrap().clone();
    let ids: Vec<&String> =
        taken.iter().filter(|(_, event)| event["type"] == "dead_letter").map(|(id, _)| id).collect();
    // Where the answer of the outbox was lost, once more.
    assert!(ids.len() <= 2 * 5 && ids.iter().collect::<BTreeSet<_>>().len() == 5, "{ids:?}");
}

fn sorted(mut all: Vec<String>) -> Vec<String> {
    all.sort();
    all
}
