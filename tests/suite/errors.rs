//! Failures of either side: what `/sync` answers, that nothing is lost, and that it goes on by itself once
//! the side works again.

use crate::parts::{Pgbouncer, Sqld, SqldOptions, http};
use crate::support::{Db, Home, Path, SECRET, Server, config, repository_schema, until};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use pgflume::core::queue_name::DEFAULT_QUEUE;
use pgflume::core::secret::Secret;
use pgflume::demo::postgres::{Cluster, ClusterOptions, Stop};
use pgflume::postgres::PgUrl;
use pgflume::replica::target::Target;
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

async fn send(db: &Db) {
    db.send(r#"{"type":"INSERT","table":"orgs","record":{"id":"a","name":"x"}}"#).await;
}

/// One call fails, says why, and when to come back.
async fn fails(server: &Server, words: &str) -> http::Answer {
    let answer = server.sync().await;
    assert_eq!(answer.status, 503, "{words}: {}", answer.body);
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=300).contains(&after), "{words}: {after}");
    assert!(answer.json()["error"].as_str().unwrap().contains(words), "{words}: {}", answer.body);
    answer
}

async fn circuit(server: &Server) -> Value {
    let answer = server.call("GET", "/status", Some(SECRET)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["circuit"].clone()
}

/// The side is repaired: the first call that is let through delivers everything.
async fn delivers(server: &Server, db: &Db, what: &str) {
    until(what, async || circuit(server).await["state"] != "open").await;
    let answer = server.sync().await;
    assert_eq!((answer.status, &answer.json()["queued"]), (200, &0.into()), "{what}: {}", answer.body);
    assert_eq!(db.queued().await, 0, "{what}");
    assert_eq!(circuit(server).await["state"], "closed", "{what}");
}

fn target(url: String, token: String) -> Target {
    Target::Remote { url, token: Some(Secret::new(token)) }
}

async fn serve(db: &Db, target: Target) -> Server {
    Server::start(config(&db.url(), target, repository_schema())).await
}

/// Sends a signal to a server of the test.
fn signal(sqld: &Sqld, name: &str) {
    let id = sqld.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_stops_the_drain_and_goes_on_when_it_is_repaired() {
    let (db, sqld) = (Db::new().await, Sqld::start(SqldOptions::default()));
    let right = || target(sqld.url(), sqld.token_rw());
    serve(&db, right()).await.sync().await;
    let limit = |size: &str| sqld.configure(&format!(r#"{{"block_reads":false,"block_writes":false{size}}}"#));
    send(&db).await;
    for (words, token) in [
        ("LIBSQL_AUTH_TOKEN", sqld.token_expired()),
        ("LIBSQL_AUTH_TOKEN", sqld.token_ro()),
        ("LIBSQL_AUTH_TOKEN", "not.a.token".into()),
        ("LIBSQL_AUTH_TOKEN", String::new()),
    ] {
        let server = serve(&db, target(sqld.url(), token)).await;
        fails(&server, words).await;
        assert_eq!(circuit(&server).await["state"], "closed", "once may be a change of tokens");
        fails(&server, words).await;
        assert_eq!(circuit(&server).await["state"], "open", "twice is not");
        assert_eq!(db.queued().await, 1);
    }
    let server = serve(&db, right()).await;
    sqld.block_writes(true);
    fails(&server, "lift the block").await;
    fails(&server, "lift the block").await;
    assert!(fails(&server, "not tried").await.body.contains("lift the block"), "the last error is named");
    sqld.block_writes(false);
    delivers(&server, &db, "blocked").await;

    let server = serve(&db, right()).await;
    limit(r#","max_db_size":"300 KB""#);
    let name = "x".repeat(900_000);
    db.send(&format!(r#"{{"type":"INSERT","table":"orgs","record":{{"id":"b","name":"{name}"}}}}"#)).await;
    fails(&server, "size limit").await;
    limit(r#","max_db_size":"1 GB""#);
    delivers(&server, &db, "full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_down_opens_the_circuit_which_everybody_sees() {
    let (db, mut sqld) = (Db::new().await, Sqld::start(SqldOptions::default()));
    let server = serve(&db, target(sqld.url(), sqld.token_rw())).await;
    server.sync().await;
    send(&db).await;
    sqld.kill();
    for _ in 0..5 {
        assert_eq!(circuit(&server).await["state"], "closed");
        fails(&server, "LIBSQL_URL").await;
    }
    let shown = circuit(&server).await;
    assert_eq!(shown["state"], "open");
    assert!(shown["since"].is_string() && shown["reason"].as_str().unwrap().contains("LIBSQL_URL"), "{shown}");
    assert!(shown["next_try_seconds"].as_f64().unwrap() <= 1.0, "{shown}");
    let gauge = async |value: &str| {
        let line = format!("pgflume_circuit_open {value}");
        until(&line, async || server.call("GET", "/metrics", None).await.body.contains(&line)).await;
    };
    gauge("1.0").await;
    // The rest grows with each try that fails.
    until("a longer rest", async || {
        let answer = server.sync().await;
        assert_eq!(answer.status, 503);
        let shown = circuit(&server).await;
        shown["state"] == "open" && shown["next_try_seconds"].as_f64().unwrap() > 1.5
    })
    .await;
    let ready = server.call("GET", "/ready", None).await.json();
    let reason = ready["reasons"]["circuit"].as_str().unwrap_or_else(|| panic!("{ready}"));
    assert!(reason.contains("open since") && reason.contains("next try in"), "{reason}");
    assert!(ready["reasons"]["target"].is_null(), "it is not asked: {ready}");
    sqld.start_again();
    delivers(&server, &db, "killed").await;
    gauge("0.0").await;
    until("it is ready", async || server.call("GET", "/ready", None).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_hangs_is_given_up_and_delivered_to_later() {
    let (db, sqld) = (Db::new().await, Sqld::start(SqldOptions::default()));
    let server = serve(&db, target(sqld.url(), sqld.token_rw())).await;
    server.sync().await;
    send(&db).await;
    signal(&sqld, "-STOP");
    let begun = Instant::now();
    fails(&server, "libSQL").await;
    assert!(begun.elapsed() < Duration::from_secs(55), "within a request's time");
    assert_eq!(db.queued().await, 1);
    signal(&sqld, "-CONT");
    delivers(&server, &db, "stopped").await;
}

/// Runs SQL on a stream of its own that stays open; its baton.
async fn stream(sqld: &Sqld, baton: Option<&str>, sql: &str) -> http::Answer {
    let body = serde_json::json!({"baton": baton, "requests": [{"type": "execute", "stmt": {"sql": sql}}]}).to_string();
    let (url, token) = (format!("{}/v2/pipeline", sqld.url()), sqld.token_rw());
    let headers = [("authorization".to_owned(), format!("Bearer {token}"))];
    let call = move || http::request("POST", &url, &headers, body.as_bytes(), Duration::from_secs(30)).unwrap();
    tokio::task::spawn_blocking(call).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_too_many_streams_is_busy_and_another_writer_is_waited_for() {
    let (db, sqld) = (Db::new().await, Sqld::start(SqldOptions::default()));
    let server = serve(&db, target(sqld.url(), sqld.token_rw())).await;
    server.sync().await;
    send(&db).await;
    // Streams that nobody closes, and more as soon as some have ended.
    let hog = async {
        loop {
            futures_util::future::join_all((0..150).map(|_| stream(&sqld, None, "SELECT 1"))).await;
        }
    };
    let refused = async {
        until("too many streams", async || stream(&sqld, None, "SELECT 1").await.status == 429).await;
        fails(&server, "HTTP 429").await;
    };
    tokio::select! {
        () = refused => {}
        () = hog => {}
    }
    assert_eq!(db.queued().await, 1);
    // Idle streams end by themselves.
    until("a free stream", async || stream(&sqld, None, "SELECT 1").await.status == 200).await;
    delivers(&server, &db, "too many streams").await;

    send(&db).await;
    let holder = stream(&sqld, None, "BEGIN IMMEDIATE").await;
    assert_eq!(holder.status, 200, "{}", holder.body);
    delivers(&server, &db, "the lock is taken from a writer who holds it for too long").await;
}

/// A server in front of sqld that answers in its place, as proxies and hosts do.
struct Front {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    sqld: String,
    says: Mutex<Option<Says>>,
    asked: AtomicUsize,
    client: reqwest::Client,
}

/// What it says instead.
#[derive(Clone)]
struct Says {
    /// To requests that do something; not to the question for the protocol.
    only_posts: bool,
    status: u16,
    retry_after: Option<&'static str>,
    body: &'static str,
    is_cut: bool,
}

impl Front {
    async fn start(sqld: &Sqld) -> Self {
        pgflume::core::crypto::install();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let shared = Arc::new(Shared { sqld: sqld.url(), says: Mutex::default(), asked: AtomicUsize::new(0), client });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new()
            .fallback(answer)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(shared.clone());
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { url, shared }
    }

    fn says(&self, says: Option<Says>) {
        *self.shared.says.lock().unwrap() = says;
    }

    fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let says = shared.says.lock().unwrap().clone().filter(|says| !says.only_posts || method == Method::POST);
    let Some(says) = says else { return forward(&shared, method, &uri, headers, body).await };
    let mut answer = Response::builder().status(says.status);
    if let Some(after) = says.retry_after {
        answer = answer.header("retry-after", after);
    }
    let body = if says.is_cut {
        let parts = [Ok(Bytes::from_static(says.body.as_bytes())), Err(std::io::Error::other("cut"))];
        Body::from_stream(futures_util::stream::iter(parts))
    } else {
        Body::from(says.body)
    };
    answer.body(body).unwrap()
}

async fn forward(shared: &Shared, method: Method, uri: &Uri, mut headers: HeaderMap, body: Bytes) -> Response<Body> {
    headers.remove("host");
    let request = shared.client.request(method, format!("{}{uri}", shared.sqld)).headers(headers).body(body);
    match request.send().await {
        Ok(answer) => {
            let status = answer.status();
            Response::builder().status(status).body(Body::from(answer.bytes().await.unwrap())).unwrap()
        }
        Err(e) => Response::builder().status(StatusCode::BAD_GATEWAY).body(Body::from(e.to_string())).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_or_a_host_says_in_place_of_the_target_is_understood() {
    let (db, sqld) = (Db::new().await, Sqld::start(SqldOptions::default()));
    let front = Front::start(&sqld).await;
    serve(&db, target(sqld.url(), sqld.token_rw())).await.sync().await;
    let stolen =
        r#"{"results":[{"type":"error","error":{"message":"Transaction timed-out","code":"TRANSACTION_TIMEOUT"}}]}"#;
    let cases = [
        (500, "", "HTTP 500"),
        (502, "<html>", "HTTP 502"),
        (503, "<html>", "HTTP 503"),
        (504, "", "HTTP 504"),
        (429, "", "HTTP 429"),
        (401, "", "LIBSQL_AUTH_TOKEN"),
        (404, "", "LIBSQL_URL"),
        (302, "", "LIBSQL_URL"),
        (400, "BLOCKED: SQL write operations are forbidden", "lift the block"),
        (400, stolen, "TRANSACTION_TIMEOUT"),
        (200, "<html>", "not Hrana"),
    ];
    for (status, body, words) in cases {
        for (only_posts, is_cut) in [(true, false), (false, false), (true, true)] {
            let is_about_the_body = status == 200 || (status == 400 && !body.is_empty());
            if is_about_the_body && !only_posts {
                continue;
            }
            let what = format!("{status} {words} {only_posts} {is_cut}");
            let server = serve(&db, target(front.url.clone(), sqld.token_rw())).await;
            send(&db).await;
            front.says(Some(Says { only_posts, status, retry_after: None, body, is_cut }));
            // Of what is cut off, not even the status may have come through.
            let words = if is_cut { "libSQL" } else { words };
            fails(&server, words).await;
            assert_eq!(db.queued().await, 1, "{what}");
            front.says(None);
            delivers(&server, &db, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_the_target_names_is_kept_to_and_nobody_is_asked_meanwhile() {
    let (db, sqld) = (Db::new().await, Sqld::start(SqldOptions::default()));
    let front = Front::start(&sqld).await;
    let server = serve(&db, target(front.url.clone(), sqld.token_rw())).await;
    server.sync().await;
    for (status, only_posts) in [(429, true), (503, true), (429, false), (503, false)] {
        send(&db).await;
        let says = Says { only_posts, status, retry_after: Some("8"), body: "", is_cut: false };
        front.says(Some(says));
        let before = Instant::now();
        let answer = fails(&server, &format!("HTTP {status}")).await;
        assert!(before.elapsed() < Duration::from_secs(8), "the caller is not held");
        assert!(["7", "8"].contains(&answer.header("retry-after").unwrap()), "{:?}", answer.headers);
        let asked = front.asked();
        let refused = fails(&server, "not tried").await;
        assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() <= 8);
        server.call("GET", "/ready", None).await;
        assert_eq!(front.asked(), asked, "it is left alone");
        front.says(None);
        // A nuke is let through, and what works then closes the circuit.
        if only_posts {
            assert_eq!(server.call("POST", "/nuke", Some(SECRET)).await.status, 200);
            assert!(before.elapsed() < Duration::from_secs(8), "before the time is over");
            assert_eq!(circuit(&server).await["state"], "closed");
        } else {
            until("the time is over", async || circuit(&server).await["state"] != "open").await;
            assert!(before.elapsed() >= Duration::from_secs(7), "kept to");
        }
        delivers(&server, &db, "named a time").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_another_process_holds_is_waited_for() {
    let (db, home) = (Db::new().await, Home::new(Path::File));
    let server = serve(&db, home.target()).await;
    server.sync().await;
    send(&db).await;
    let Target::File(path) = home.target() else { unreachable!() };
    let other = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
    other.execute("BEGIN IMMEDIATE", ()).await.unwrap();
    fails(&server, "lock").await;
    assert_eq!(db.queued().await, 1);
    other.execute("ROLLBACK", ()).await.unwrap();
    delivers(&server, &db, "held").await;
    // Somebody who holds all of it, while it is opened.
    send(&db).await;
    other.query("PRAGMA locking_mode = EXCLUSIVE", ()).await.unwrap().next().await.unwrap();
    other.execute("BEGIN EXCLUSIVE", ()).await.unwrap();
    fails(&server, "lock").await;
    drop(other);
    delivers(&server, &db, "held whole").await;
    let db = Db::new().await;
    let nowhere = serve(&db, Target::File("/nowhere/replica.db".into())).await;
    fails(&nowhere, "check the path").await;
}

/// A Postgres of the test's own, with few connections and passwords, and a database with PGMQ.
pub async fn strict() -> (&'static Cluster, Db) {
    let settings = [("fsync", "off"), ("max_connections", "20")];
    let settings = settings.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let cluster: &'static Cluster = Box::leak(Box::new(
        Cluster::start(ClusterOptions { bin_dir: None, settings, ..ClusterOptions::default() }).unwrap(),
    ));
    let db = Db::named("strict".into(), cluster, "template1").await;
    db.sql(include_str!(concat!(env!("OUT_DIR"), "/pgmq.sql"))).await;
    db.sql(&format!("select pgmq.create('{DEFAULT_QUEUE}')")).await;
    db.sql("create role worker login password 'right'; grant pg_read_all_data, pg_write_all_data to worker").await;
    (cluster, db)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_refuses_or_is_down_loses_nothing() {
    let (cluster, mut db) = strict().await;
    let home = Home::new(Path::File);
    serve(&db, home.target()).await.sync().await;
    // Passwords count from here on, but for the superuser.
    let hba = db.one("select current_setting('hba_file')").await;
    let rules = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("host all worker all scram-sha-256\n{rules}")).unwrap();
    db.sql("select pg_reload_conf()").await;
    let port = cluster.port();
    let url = |user: &str, database: &str| format!("postgres://{user}@127.0.0.1:{port}/{database}");
    let admin = PgUrl::parse(&cluster.url("postgres")).unwrap().connect().await.unwrap();
    let at = async |url: &str| Server::start(config(url, home.target(), repository_schema())).await;
    let right = url("worker:right", "strict");
    until("passwords count", async || PgUrl::parse(&url("worker:wrong", "strict")).unwrap().connect().await.is_err())
        .await;
    send(&db).await;
    for (url, words) in [
        (url("worker:wrong", "strict"), "password"),
        (url("worker", "strict"), "password"),
        (url("nobody", "strict"), "PGMQ_URL"),
        (url("worker:right", "nowhere"), "database name"),
    ] {
        let server = at(&url).await;
        fails(&server, words).await;
        fails(&server, words).await;
        fails(&server, "not tried").await;
    }
    assert_eq!(db.queued().await, 1);
    for (off, on, words) in [
        ("revoke connect on database strict from public", "grant connect on database strict to public", "CONNECT"),
        (
            "alter database strict set default_transaction_read_only = on",
            "alter database strict reset default_transaction_read_only",
            "primary",
        ),
        (
            "alter database strict allow_connections false",
            "alter database strict allow_connections true",
            "takes connections",
        ),
        ("alter role worker connection limit 0", "alter role worker connection limit -1", "max_connections"),
    ] {
        let server = at(&right).await;
        admin.batch_execute(off).await.unwrap();
        fails(&server, words).await;
        fails(&server, words).await;
        assert_eq!(db.queued().await, 1, "{words}");
        admin.batch_execute(on).await.unwrap();
        delivers(&server, &db, words).await;
        send(&db).await;
    }
    let server = at(&right).await;
    let mut taken = Vec::new();
    while let Ok(client) = PgUrl::parse(&right).unwrap().connect().await {
        taken.push(client);
    }
    fails(&server, "max_connections").await;
    drop(taken);
    delivers(&server, &db, "too many connections").await;

    for how in [Stop::Fast, Stop::Immediate] {
        send(&db).await;
        cluster.stop(how).unwrap();
        fails(&server, "PGMQ_URL").await;
        cluster.start_again().unwrap();
        db.client = PgUrl::parse(&db.url()).unwrap().connect().await.unwrap();
        delivers(&server, &db, "stopped").await;
    }
    through_a_pooler(cluster, &mut db, &home).await;
}

/// The same seen through pgbouncer, which has one SQLSTATE for everything.
async fn through_a_pooler(cluster: &'static Cluster, db: &mut Db, home: &Home) {
    let pooler = Pgbouncer::start(cluster.port());
    let at = async |url: String| Server::start(config(&url, home.target(), repository_schema())).await;
    send(db).await;
    fails(&at(pooler.url("nowhere")).await, "database name").await;
    fails(&at(format!("postgres://nobody@127.0.0.1:{}/strict", pooler.port())).await, "PGMQ_URL").await;
    let server = at(pooler.url("strict")).await;
    delivers(&server, db, "through the pooler").await;
    send(db).await;
    cluster.stop(Stop::Fast).unwrap();
    fails(&server, "tried again").await;
    cluster.start_again().unwrap();
    db.client = PgUrl::parse(&db.url()).unwrap().connect().await.unwrap();
    until("the pooler tries again", async || {
        let url = PgUrl::parse(&pooler.url("strict")).unwrap();
        matches!(url.connect().await, Ok(client) if client.batch_execute("select 1").await.is_ok())
    })
    .await;
    delivers(&server, db, "the pooler's Postgres was stopped").await;
}
