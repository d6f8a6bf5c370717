//! What crowds may cost: of those who ask whether the worker is ready, and of callers who are turned away.

use crate::parts::proxy::{Fault, Proxy};
use crate::parts::{Sqld, SqldOptions};
use crate::security::{Served, WEBHOOK};
use crate::support::{Db, Home, Path, Rig, SECRET, Server, config, repository_schema, schema, until};
use pgflume::core::secret::Secret;
use pgflume::replica::target::Target;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Connections that ask `/ready` again and again until told to end; how many answers they had.
async fn asking(address: &str, connections: usize, end: &Arc<AtomicBool>) -> Arc<AtomicUsize> {
    let answers = Arc::new(AtomicUsize::new(0));
    for _ in 0..connections {
        let (address, end, answers) = (address.to_owned(), end.clone(), answers.clone());
        tokio::spawn(async move {
            while !end.load(Ordering::Relaxed) {
                let Ok(mut stream) = tokio::net::TcpStream::connect(&address).await else { continue };
                let mut answer = [0; 4096];
                while stream.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok()
                    && matches!(stream.read(&mut answer).await, Ok(1..))
                {
                    answers.fetch_add(1, Ordering::Relaxed);
                    if end.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
        });
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn health_answers_while_a_thousand_ask_whether_it_is_ready() {
    let (db, home) = (Db::new().await, Home::new(Path::File));
    let proxy = Proxy::start(db.cluster().port());
    let url = db.url().replace(&format!(":{}/", db.cluster().port()), &format!(":{}/", proxy.port()));
    let Target::File(replica) = home.target() else { unreachable!() };
    let replica = replica.to_str().unwrap().to_owned();
    let served = tokio::task::spawn_blocking(move || Served::start(&[("PGMQ_URL", &url), ("LIBSQL_URL", &replica)]))
        .await
        .unwrap();
    let served = Arc::new(served);
    for fault in [Fault::Pass, Fault::Blackhole] {
        proxy.set(fault);
        let end = Arc::new(AtomicBool::new(false));
        let answers = asking(served.address.trim_start_matches("http://"), 1000, &end).await;
        until("the crowd is there", async || answers.load(Ordering::Relaxed) > 100).await;
        for _ in 0..20 {
            let served = served.clone();
            let took = tokio::task::spawn_blocking(move || served.health()).await.unwrap();
            assert!(took < Duration::from_secs(20), "{fault:?}: {took:?}");
        }
        end.store(true, Ordering::Relaxed);
        assert!(served.memory_mib() < 200);
    }
    // A crowd is no reason to fill the disk.
    assert!(served.log().len() < 100_000, "{} bytes of log", served.log().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_asks_for_ready_costs_both_sides_no_more_than_one_caller() {
    let (db, sqld) = (Db::new().await, Sqld::start(SqldOptions::default()));
    let (front, behind) = (Proxy::start(db.cluster().port()), Proxy::start(sqld.port()));
    let url = db.url().replace(&format!(":{}/", db.cluster().port()), &format!(":{}/", front.port()));
    let target = Target::Remote { url: behind.url(), token: Some(Secret::new(sqld.token_rw())) };
    let server = Server::start(config(&url, target, repository_schema())).await;
    server.sync().await;
    assert_eq!(server.call("GET", "/ready", None).await.status, 200);
    let (front_before, behind_before) = (front.connections(), behind.connections());
    let started = Instant::now();
    for _ in 0..5 {
        let crowd = (0..40).map(|_| server.call("GET", "/ready", None));
        for answer in futures_util::future::join_all(crowd).await {
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }
    let asked = 2 + started.elapsed().as_secs() as usize / 5;
    assert!(front.connections() - front_before <= asked, "{} to Postgres", front.connections() - front_before);
    assert!(behind.connections() - behind_before <= 2 * asked, "{} to libSQL", behind.connections() - behind_before);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_ready_changes_nothing_in_the_replica() {
    for path in [Path::File, Path::Sqld] {
        let rig = Rig::new(path, schema(r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER"}}}"#)).await;
        let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
        server.call("GET", "/ready", None).await;
        if let Target::File(file) = rig.home.target() {
            assert!(!file.exists(), "no file is made");
        }
        server.call("GET", "/status", Some(SECRET)).await;
        if let Target::File(file) = rig.home.target() {
            assert!(!file.exists(), "no file is made");
        }
        rig.drain().await;
        // Somebody writes: a probe that wants to write would wait for them, and fail.
        if let Target::File(file) = rig.home.target() {
            let other = libsql::Builder::new_local(file).build().await.unwrap().connect().unwrap();
            other.execute("BEGIN IMMEDIATE", ()).await.unwrap();
            let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
            let answer = server.call("GET", "/ready", None).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        let before = rig.rows("PRAGMA data_version").await;
        let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
        assert_eq!(server.call("GET", "/ready", None).await.status, 200);
        assert_eq!(rig.rows("PRAGMA data_version").await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_are_turned_away_open_no_connection_and_are_no_failures() {
    let (db, home) = (Db::new().await, Home::new(Path::File));
    let proxy = Proxy::start(db.cluster().port());
    let url = db.url().replace(&format!(":{}/", db.cluster().port()), &format!(":{}/", proxy.port()));
    let server = Server::start(config(&url, home.target(), repository_schema())).await;
    db.send(r#"{"type":"INSERT","table":"apps","record":{"id":"a"}}"#).await;
    assert_eq!(server.sync().await.status, 200);
    proxy.set(Fault::Blackhole);
    let first = server.sync();
    let crowd = async {
        let before = proxy.connections();
        until("the first call waits for Postgres", async || proxy.connections() > before).await;
        let before = proxy.connections();
        let answers = futures_util::future::join_all((0..30).map(|_| server.sync())).await;
        for answer in &answers {
            assert_eq!((answer.status, &answer.json()["busy"]), (200, &true.into()), "{}", answer.body);
        }
        assert_eq!(proxy.connections(), before, "nobody of them connects");
        let status = server.call("GET", "/metrics", None).await.body;
        assert!(status.contains("pgflume_circuit_open 0"), "{status}");
        proxy.set(Fault::CutBeforeSend);
    };
    tokio::join!(first, crowd);
}

/// Ids of requests go into the log: what could forge a line of it, or fill the disk, is replaced.
#[test]
fn what_callers_send_forges_no_line_and_fills_no_disk() {
    let served = Served::start(&[
        ("PGMQ_URL", "postgres://u@127.0.0.1:1/x"),
        ("LIBSQL_URL", "http://127.0.0.1:1"),
        ("RUST_LOG", "debug"),
    ]);
    let long = "a".repeat(20_000);
    let (forged, path) = ("x} level=error forged", format!("/{}", "p".repeat(20_000)));
    for id in [long.as_str(), forged] {
        let answer = served.call("GET", "/health", &[("x-request-id", id)], "");
        assert!(answer.header("x-request-id").is_some_and(|given| given.len() <= 128 && given != id));
        served.call("POST", "/sync", &[("x-request-id", id), ("x-webhook-signature", WEBHOOK)], "");
    }
    let answer = served.call("GET", "/health", &[("x-request-id", "order-66")], "");
    assert_eq!(answer.header("x-request-id"), Some("order-66"));
    served.call("GET", &path, &[], "");
    let log = served.log();
    assert!(log.lines().all(|line| line.len() < 5_000) && !log.contains("forged"), "{log}");
}
