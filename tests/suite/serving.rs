//! Syncs that pull in a served process: at their intervals, by name, beside a queue, and none because of another.

use crate::pulls;
use crate::support::{Path, SECRET, Server, config, schema, until};
use pgflume::config::Signatures;
use pgflume::core::secret::Secret;
use pgflume::http::auth::Auth;
use pgflume::http::{App, Lane};
use pgflume::provider::postgres::{PostgresProvider, Wanted};
use pgflume::pull::{Pull, Scheduled, Service};
use pgflume::sync::Worker;
use std::sync::Arc;
use std::time::Duration;

const TABLES: &str =
    "create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 10) i";
const JSON: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

fn scheduled(name: &str, rig: &pulls::Rig, every: Duration) -> Scheduled {
    let pull = Pull::new(name.into(), Arc::new(rig.provider()), rig.home.target(), false);
    Scheduled { pull, every, retry_delay: Duration::from_millis(100) }
}

/// One whose source is not there.
fn down(rig: &pulls::Rig) -> Scheduled {
    let url = pgflume::postgres::PgUrl::parse("postgres://nobody@127.0.0.1:1/x").unwrap();
    let provider = PostgresProvider { url, wanted: Wanted::Defined(schema(JSON)), row_bytes: 1 << 20 };
    let pull = Pull::new("down".into(), Arc::new(provider), rig.home.target(), false).with_retries(0);
    Scheduled { pull, every: Duration::from_millis(200), retry_delay: Duration::from_millis(50) }
}

fn auth() -> Auth {
    let secret = || vec![Secret::new(SECRET)];
    Auth::new(Signatures { webhook: secret(), nuke: secret() })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sync_runs_at_its_interval_and_one_that_is_down_stops_nobody() {
    let [fast, slow] =
        [pulls::Rig::new(Path::File, TABLES, JSON).await, pulls::Rig::new(Path::File, TABLES, JSON).await];
    let service = Service::new(vec![
        scheduled("fast", &fast, Duration::from_millis(200)),
        scheduled("slow", &slow, Duration::from_secs(3600)),
        down(&fast),
    ]);
    let server = Server::of(App::of(None, Vec::new(), service, auth())).await;
    until("both are brought", async || {
        fast.rows("SELECT count(*) FROM sqlite_master WHERE name = 't'").await == ["1"]
            && fast.rows("SELECT count(*) FROM t").await == ["10"]
            && slow.rows("SELECT count(*) FROM sqlite_master WHERE name = 't'").await == ["1"]
            && slow.rows("SELECT count(*) FROM t").await == ["10"]
    })
    .await;
    for rig in [&fast, &slow] {
        rig.db.sql("update t set v = 'new' where id = 1").await;
    }
    until("a change arrives", async || fast.rows("SELECT v FROM t WHERE id = 1").await == ["new"]).await;
    assert_eq!(slow.rows("SELECT v FROM t WHERE id = 1").await, ["old"], "not yet due");
    let done = server.call("POST", "/syncs/slow/sync", Some(SECRET)).await;
    assert_eq!((done.status, done.json()["rows"].as_u64()), (200, Some(1)), "{}", done.body);
    assert_eq!(slow.rows("SELECT v FROM t WHERE id = 1").await, ["new"]);
    let status = server.call("GET", "/status", Some(SECRET)).await.json();
    assert_eq!(status["syncs"]["fast"]["failures_in_a_row"], 0, "{status}");
    until("it fails often enough", async || {
        let status = server.call("GET", "/syncs/down/status", Some(SECRET)).await.json();
        status["failures_in_a_row"].as_u64() >= Some(3)
            && status["error"].as_str().unwrap().contains("cannot be reached")
    })
    .await;
    until("it is not ready", async || {
        let ready = server.call("GET", "/ready", None).await;
        ready.status == 503 && ready.body.contains("\\\"down\\\"")
    })
    .await;
    until("the metrics tell", async || {
        let text = server.call("GET", "/metrics", None).await.body;
        text.contains("pgflume_sync_up{sync=\"down\"} 0.0") && text.contains("pgflume_sync_up{sync=\"fast\"} 1.0")
    })
    .await;
    for (method, path, secret, expected) in [
        ("POST", "/syncs/nowhere/sync", Some(SECRET), 404),
        ("GET", "/syncs/nowhere/status", Some(SECRET), 404),
        ("POST", "/syncs/fast/sync", None, 401),
        ("GET", "/syncs/fast/status", Some("wrong"), 401),
        ("POST", "/syncs/fast/nuke", Some(SECRET), 400),
        ("POST", "/nuke", Some(SECRET), 404),
        ("GET", "/syncs/fast/sync", Some(SECRET), 405),
        ("GET", "/live", None, 200),
        ("POST", "/sync", Some(SECRET), 200),
    ] {
        assert_eq!(server.call(method, path, secret).await.status, expected, "{method} {path}");
    }
    let hello = server.call("GET", "/hello", None).await.json();
    assert_eq!(hello, serde_json::json!({"message": "Data Sync Service is running!", "input": {}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_by_its_name_and_the_four_variables_queue_are_drained_beside_a_pull() {
    let [first, second] = [
        crate::support::Rig::new(Path::File, schema(JSON)).await,
        crate::support::Rig::new(Path::File, schema(JSON)).await,
    ];
    let pulled = pulls::Rig::new(Path::File, TABLES, JSON).await;
    let lane = |rig: &crate::support::Rig| {
        Lane::new(Worker::new(config(&rig.db.url(), rig.home.target(), schema(JSON))), false)
    };
    let service = Service::new(vec![scheduled("pulled", &pulled, Duration::from_secs(3600))]);
    let app = App::of(Some(lane(&first)), vec![("second".into(), lane(&second))], service, auth());
    let server = Server::of(app).await;
    let image = r#"{"type":"INSERT","table":"t","record":{"id":1,"v":"x"},"old_record":null}"#;
    for rig in [&first, &second] {
        rig.db.send(image).await;
    }
    let done = server.sync().await.json();
    assert_eq!((done["processed"].as_u64(), second.db.queued().await), (Some(1), 1), "{done}");
    let done = server.call("POST", "/syncs/second/sync", Some(SECRET)).await.json();
    assert_eq!((done["processed"].as_u64(), second.db.queued().await), (Some(1), 0), "{done}");
    let status = server.call("GET", "/syncs/second/status", Some(SECRET)).await.json();
    assert_eq!(status["queued"], 0, "{status}");
    let status = server.call("GET", "/status", Some(SECRET)).await.json();
    assert!(status["queue"].is_string() && status["syncs"]["pulled"].is_object(), "{status}");
    let nuked = server.call("POST", "/syncs/second/nuke", Some(SECRET)).await;
    assert_eq!(nuked.status, 200, "{}", nuked.body);
    assert_eq!(
        (second.rows("SELECT count(*) FROM t").await, first.rows("SELECT count(*) FROM t").await),
        (vec!["0".to_owned()], vec!["1".to_owned()])
    );
}
