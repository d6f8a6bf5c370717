//! Probes with their reasons and codes, and metrics that one can alert on: series that stay when a side is down.

use crate::pulls;
use crate::support::{Db, Home, Path, Rig, SECRET, Server, config, schema, until};
use crate::volume::set_up;
use pgflume::config::Signatures;
use pgflume::core::codes;
use pgflume::core::secret::Secret;
use pgflume::demo::postgres::Stop;
use pgflume::http::App;
use pgflume::http::auth::Auth;
use pgflume::pull::{Pull, Scheduled, Service};
use pgflume::sync::Worker;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const T: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

fn auth() -> Auth {
    let secret = || vec![Secret::new(SECRET)];
    Auth::new(Signatures { webhook: secret(), nuke: secret() })
}

/// The value of a series, by its name and labels as they are printed.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

async fn metrics(server: &Server) -> String {
    server.call("GET", "/metrics", None).await.body
}

#[tokio::test(flavor = "multi_thread")]
async fn series_stay_when_postgres_is_down_and_probes_tell_which_side_it_is() {
    let (cluster, db) = crate::errors::strict().await;
    let rig = Rig::with(db, Home::new(Path::File), schema(T));
    rig.db
        .sql("create table t (id int primary key, v text); insert into t select g, 'v' from generate_series(1, 50) g")
        .await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let server = Server::following(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    until("it is copied", async || {
        server.call("GET", "/ready", None).await.status == 200
            && value(&metrics(&server).await, "pgflume_resync_rows{table=\"t\"}") == Some(50.0)
    })
    .await;
    rig.db.sql("insert into t values (100, 'x'), (101, 'y'); delete from t where id = 1").await;
    until("the changes are measured", async || {
        value(&metrics(&server).await, "pgflume_table_rows_total{table=\"t\",kind=\"delete\"}") == Some(1.0)
    })
    .await;
    let up = metrics(&server).await;
    let page = include_str!("../../docs/endpoints.md");
    let families = up.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.rsplit_once(' '));
    let shown =
        families.map(|(name, kind)| if kind == "counter" { format!("`{name}_total") } else { format!("`{name}") });
    let unnamed: Vec<String> =
        shown.filter(|name| !["`", "{"].iter().any(|end| page.contains(&format!("{name}{end}")))).collect();
    assert!(unnamed.is_empty(), "docs/endpoints.md lacks {unnamed:?}");
    for (series, expected) in [
        ("pgflume_source_up", 1.0),
        ("pgflume_target_up", 1.0),
        (concat!("pgflume_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
        ("pgflume_table_rows_total{table=\"t\",kind=\"upsert\"}", 52.0),
        ("pgflume_table_dead_letters_total{table=\"t\"}", 0.0),
        ("pgflume_tables_paused", 0.0),
        ("pgflume_follow_failures_total", 0.0),
        ("pgflume_drain_retries_total", 0.0),
        ("pgflume_queue_messages", 0.0),
        ("pgflume_retained_takes", 0.0),
    ] {
        assert_eq!(value(&up, series), Some(expected), "{series}: {up}");
    }
    let arrived = value(&up, "pgflume_commit_to_applied_seconds_count").unwrap();
    let within = value(&up, "pgflume_commit_to_applied_seconds_bucket{le=\"10.0\"}").unwrap();
    assert!(arrived >= 1.0 && within == arrived, "of changes that came while it followed: {up}");
    for kind in ["step", "take", "read", "apply"] {
        assert!(value(&up, &format!("pgflume_{kind}_seconds_count")).unwrap() >= 1.0, "{kind}: {up}");
    }
    assert!(value(&up, "pgflume_table_bytes_total{table=\"t\"}").unwrap() > 50.0, "{up}");
    for gauge in ["pgflume_last_success_timestamp_seconds", "pgflume_retained_bytes"] {
        assert!(value(&up, gauge).unwrap() > 0.0, "{gauge}: {up}");
    }
    assert!(value(&up, "pgflume_queue_dead_tuples").is_some() && value(&up, "pgflume_oldest_xmin_age").is_some());

    tokio::task::spawn_blocking(move || cluster.stop(Stop::Immediate).unwrap()).await.unwrap();
    until("the source is down", async || value(&metrics(&server).await, "pgflume_source_up") == Some(0.0)).await;
    let down = metrics(&server).await;
    let names = |text: &str| -> BTreeSet<String> {
        text.lines().filter(|l| !l.starts_with('#')).map(|l| l.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    assert_eq!(names(&up), names(&down), "no series goes");
    assert_eq!(value(&down, "pgflume_target_up"), Some(1.0));
    let ready = server.call("GET", "/ready", None).await;
    assert_eq!(ready.status, 503, "{}", ready.body);
    assert_eq!(ready.json()["codes"]["source"], codes::SOURCE_DOWN.code, "{}", ready.body);
    for path in ["/health", "/live", "/ok"] {
        assert_eq!(server.call("GET", path, None).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_answer_is_down_and_the_source_is_not() {
    let (db, mut home) = (Db::new().await, Home::new(Path::Sqld));
    db.sql("create table t (id int primary key, v text)").await;
    let target = home.target();
    let server = Server::start(config(&db.url(), target, schema(T))).await;
    if let Home::Sqld(sqld) = &mut home {
        sqld.kill();
    }
    let text = metrics(&server).await;
    assert_eq!(
        (value(&text, "pgflume_target_up"), value(&text, "pgflume_source_up")),
        (Some(0.0), Some(1.0)),
        "{text}"
    );
    let ready = server.call("GET", "/ready", None).await;
    assert_eq!(ready.json()["codes"]["target"], codes::TARGET_DOWN.code, "{}", ready.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_behind_for_longer_than_the_limit_says_so() {
    let (db, home) = (Db::new().await, Home::new(Path::File));
    let worker = || Worker::new(config(&db.url(), home.target(), schema(T)));
    db.sql("create table t (id int primary key, v text)").await;
    // Nobody drains.
    db.send(r#"{"type":"INSERT","table":"t","record":{"id":1}}"#).await;
    let patient = Server::of(App::new(worker(), auth())).await;
    let strict = Server::of(App::new(worker(), auth()).behind_after(Some(Duration::from_millis(1)))).await;
    assert_eq!(patient.call("GET", "/ready", None).await.status, 200);
    let answer = strict.call("GET", "/ready", None).await;
    assert_eq!(
        (answer.status, answer.json()["codes"]["lag"].as_str()),
        (503, Some(codes::LAG.code)),
        "{}",
        answer.body
    );
    // A sync that pulls and never ends well.
    let pulled = pulls::Rig::new(Path::File, "create table t (id int primary key, v text)", T).await;
    let url = pgflume::postgres::PgUrl::parse("postgres://nobody@127.0.0.1:1/x").unwrap();
    let provider = pgflume::provider::postgres::PostgresProvider { url, ..pulled.provider() };
    let pull = Pull::new("p".into(), Arc::new(provider), pulled.home.target(), false).with_retries(0);
    let scheduled =
        Scheduled { pull, every: Duration::from_millis(50), retry_delay: Duration::from_secs(60), limiter: None };
    let server = Server::of(App::of(None, Vec::new(), Service::new(vec![scheduled]), auth())).await;
    until("three intervals are over", async || {
        let answer = server.call("GET", "/ready", None).await;
        answer.status == 503 && answer.json()["reasons"]["lag"].as_str().is_some_and(|lag| lag.contains("\"p\""))
    })
    .await;
    let text = metrics(&server).await;
    assert_eq!(value(&text, "pgflume_last_success_timestamp_seconds{sync=\"p\"}"), Some(0.0), "{text}");
    assert_eq!(value(&text, "pgflume_source_up{sync=\"p\"}"), Some(0.0), "{text}");
}
