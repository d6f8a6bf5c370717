//! The dashboard: signed in or nothing, no request from elsewhere, small, quick, and as somebody sees it in a browser.

use crate::parts::proxy::{Fault, Proxy};
use crate::pulls;
use crate::support::{Db, Home, Path, Rig, SECRET, Server, config, schema, until};
use crate::volume::set_up;
use pgflume::config::{Config, Signatures};
use pgflume::core::secret::Secret;
use pgflume::http::auth::Auth;
use pgflume::http::{App, Lane};
use pgflume::operate::resync;
use pgflume::operate::status::status;
use pgflume::pull::{Pull, Scheduled, Service};
use pgflume::sync::Worker;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TABLES: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}},
    "big":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

fn auth() -> Auth {
    let secret = || vec![Secret::new(SECRET)];
    Auth::new(Signatures { webhook: secret(), nuke: secret() })
}

type Headers = Vec<(String, String)>;

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// The headers of somebody who has signed in.
async fn signed_in(server: &Server) -> Headers {
    let form = format!("secret={SECRET}");
    let type_of = header("content-type", "application/x-www-form-urlencoded");
    let answer = server.request("POST", "/session", vec![type_of], form.into_bytes()).await;
    assert_eq!((answer.status, answer.header("location").unwrap()), (303, "/"), "{}", answer.body);
    let cookie = answer.header("set-cookie").unwrap();
    vec![header("cookie", cookie.split(';').next().unwrap())]
}

/// What the page shows, asked for as the page does.
async fn shown(server: &Server, session: &Headers) -> serde_json::Value {
    let shown =
        async || server.request("GET", "/dashboard/data", session.clone(), Vec::new()).await.json()["shown"].clone();
    until("both sides were asked", async || !shown().await.is_null()).await;
    shown().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_signed_in_sees_a_form_and_nothing_else_and_other_sites_get_nothing_done() {
    let rig = Rig::with(Db::new().await, Home::new(Path::File), schema(TABLES));
    rig.db.sql("create table t (id int primary key, v text); create table big (id int primary key, v text)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    let page = server.call("GET", "/", None).await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("<form id=\"in\"") && page.body.len() < 100_000, "{} bytes", page.body.len());
    assert!(
        !page.body.contains("replicate_data") && !page.body.contains("http://")
            || page.body.matches("http://").count() == page.body.matches("http://www.w3.org/2000/svg").count()
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'")
            && policy.contains("script-src 'sha256-")
            && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    for (method, path) in [("GET", "/dashboard/data"), ("GET", "/dashboard/dead"), ("POST", "/dashboard/do")] {
        for headers in [
            vec![],
            vec![header("cookie", "pgflume_session=9999999999.x.y")],
            vec![header("x-webhook-signature", SECRET)],
        ] {
            assert_eq!(server.request(method, path, headers, Vec::new()).await.status, 401, "{path}");
        }
    }
    let session = signed_in(&server).await;
    let data = server.request("GET", "/dashboard/data", session.clone(), Vec::new()).await;
    assert_eq!(data.status, 200, "{}", data.body);
    assert_eq!(shown(&server, &session).await["queues"][0]["status"]["queued"].as_i64(), Some(0));
    assert!(!data.body.contains(SECRET));
    // A page of another site has the cookie, and not the token.
    let act = async |headers: Headers, body: &str| {
        server.request("POST", "/dashboard/do", headers, body.as_bytes().to_vec()).await
    };
    rig.db.sql("insert into t values (1, 'x')").await;
    assert_eq!(act(session.clone(), r#"{"do":"sync","sync":""}"#).await.status, 403);
    let token = data.json()["csrf"].as_str().unwrap().to_owned();
    let own = [session.clone(), vec![header("x-pgflume-csrf", &token)]].concat();
    let done = act(own.clone(), r#"{"do":"sync","sync":""}"#).await;
    assert_eq!((done.status, done.json()["success"].as_bool()), (200, Some(true)), "{}", done.body);
    until("it is there", async || rig.rows("SELECT v FROM t").await == ["x"]).await;
    for (body, status) in [
        ("", 400),
        (r#"{"do":"nuke","sync":""}"#, 400),
        (r#"{"do":"sync","sync":"nobody"}"#, 404),
        (r#"{"do":"resync","sync":"","table":"nope"}"#, 503),
        (r#"{"do":"drop","sync":"","ids":[]}"#, 503),
    ] {
        assert_eq!(act(own.clone(), body).await.status, status, "{body}");
    }
    assert_eq!(act(own, r#"{"do":"resync","sync":"","table":"t"}"#).await.status, 200);
    // The session of another secret.
    let secrets = || vec![Secret::new("another secret of some length")];
    let rotated = Signatures { webhook: secrets(), nuke: secrets() };
    let other = Server::with(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone()), rotated).await;
    assert_eq!(other.request("GET", "/dashboard/data", session, Vec::new()).await.status, 401);
    // Who guesses is slowed down.
    let guess = async || server.request("POST", "/session", vec![], b"secret=guess".to_vec()).await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(guess().await.status);
    }
    assert!(statuses.iter().filter(|status| **status == 429).count() >= 12, "{statuses:?}");
}

/// A browser, and what drives it.
pub async fn browser() -> PathBuf {
    tokio::task::spawn_blocking(|| installed("install-browser.sh")).await.unwrap()
}

/// What was there to install, once for all tests.
fn installed(script: &str) -> PathBuf {
    let done =
        Command::new(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script)).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    PathBuf::from(String::from_utf8(done.stdout).unwrap().trim())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_it_at_each_width_light_and_dark_by_keyboard_and_to_screen_readers() {
    let rig = Rig::with(Db::new().await, Home::new(Path::File), schema(TABLES));
    rig.db.sql("create table t (id int primary key, v text); create table big (id int primary key, v text); insert into big select g, 'x' from generate_series(1, 100000) g; analyze big").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    // A copy that takes long, a dead letter, a column that is gone, changes that wait, and a sync that pulls.
    rig.db.sql("insert into t select g, 'x' from generate_series(1, 2000) g").await;
    rig.drain().await;
    rig.db.send(r#"{"what":"is this"}"#).await;
    rig.drain().await;
    rig.db.sql("alter table t rename column v to w; insert into t values (5000, 'y')").await;
    resync::request(&rig.worker, &["big"]).await.unwrap();
    let pulled = pulls::Rig::new(
        Path::File,
        "create table p (id int primary key, v text); insert into p values (1, 'x')",
        r#"{"p":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#,
    )
    .await;
    let slow =
        Config { rows_per_second: Some(200), ..config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone()) };
    let pull = Pull::new("shop".into(), Arc::new(pulled.provider()), pulled.home.target(), false);
    let scheduled =
        Scheduled { pull, every: Duration::from_secs(3600), retry_delay: Duration::from_millis(100), limiter: None };
    let app = App::of(Some(Lane::new(Worker::new(slow), true)), Vec::new(), Service::new(vec![scheduled]), auth());
    let server = Server::of(app).await;
    until("the copy is under way", async || {
        rig.db.one("select count(*) from pgflume.resyncs where name = 'big' and rows > 0 and phase = 'copy'").await
            == "1"
    })
    .await;
    let out = std::env::var_os("DASHBOARD_PICTURES")
        .map_or_else(|| std::env::temp_dir().join("pgflume-dashboard"), PathBuf::from);
    let (address, parts) = (server.address.clone(), installed("install-browser.sh"));
    let done = tokio::task::spawn_blocking(move || {
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/dashboard.mjs");
        let mut node = Command::new("node");
        node.args(["--test", "--test-concurrency=1"]).arg(script);
        node.env("ADDRESS", address).env("SECRET", SECRET).env("PARTS", parts).env("OUT", out).output().unwrap()
    });
    let done = done.await.unwrap();
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_at_once_while_much_is_drained() {
    let rig = Rig::with(Db::new().await, Home::new(Path::File), schema(TABLES));
    rig.db.sql("create table t (id int primary key, v text); create table big (id int primary key, v text)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    rig.db.sql("insert into big select g, 'x' from generate_series(1, 60000) g").await;
    let server = Server::following(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    let session = signed_in(&server).await;
    server.request("GET", "/dashboard/data", session.clone(), Vec::new()).await;
    let mut times = Vec::new();
    until("all is there", async || {
        let began = Instant::now();
        let answer = server.request("GET", "/dashboard/data", session.clone(), Vec::new()).await;
        assert_eq!(answer.status, 200);
        times.push(began.elapsed());
        rig.rows("SELECT count(*) FROM big").await == ["60000"]
    })
    .await;
    // Not the time that is promised, which is measured elsewhere: that nobody waits for a drain.
    times.sort();
    assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_hangs_keeps_nobody_waiting_and_the_page_is_told_to_ask_again() {
    let rig = Rig::with(Db::new().await, Home::new(Path::File), schema(TABLES));
    rig.db.sql("create table t (id int primary key, v text); create table big (id int primary key, v text)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    let proxy = Proxy::start(rig.db.cluster().port());
    let url = rig.db.url().replace(&format!(":{}/", rig.db.cluster().port()), &format!(":{}/", proxy.port()));
    let server = Server::start(config(&url, rig.home.target(), rig.worker.schema().clone())).await;
    let session = signed_in(&server).await;
    proxy.set(Fault::Blackhole);
    let began = Instant::now();
    let answer = server.request("GET", "/dashboard/data", session.clone(), Vec::new()).await;
    assert_eq!((answer.status, answer.json()["shown"].is_null()), (200, true), "{}", answer.body);
    // Not the time that is promised, which is measured elsewhere: that it does not wait for Postgres.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let told = shown(&server, &session).await;
    assert!(told["queues"][0]["error"].as_str().unwrap().contains("no answer"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_is_estimated_for_who_looks_often_and_counted_for_who_asks() {
    let rig = Rig::with(Db::new().await, Home::new(Path::File), schema(TABLES));
    rig.db.sql("create table t (id int primary key, v text); create table big (id int primary key, v text)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    rig.drain().await;
    let server = Server::start(config(&rig.db.url(), rig.home.target(), rig.worker.schema().clone())).await;
    let session = signed_in(&server).await;
    rig.db.sql(r#"insert into pgmq.q_replicate_data_libsql (vt, message) select now(), '{"v":1,"table":"t","keys":[[1]]}' from generate_series(1, 20000)"#).await;
    let seen = async || {
        let status = shown(&server, &session).await["queues"][0]["status"].clone();
        (status["queued"].as_i64().unwrap(), status["queued_is_estimate"].as_bool())
    };
    until("Postgres has the statistics", async || seen().await == (20_000, Some(true))).await;
    let counted = status(&rig.worker).await.unwrap();
    assert_eq!((counted.queued, counted.queued_is_estimate), (20_000, false));
    // Two span all ids between them, and are few.
    rig.db.sql("with q as (select min(msg_id) a, max(msg_id) b from pgmq.q_replicate_data_libsql) delete from pgmq.q_replicate_data_libsql using q where msg_id not in (a, b)").await;
    until("they are counted", async || seen().await == (2, None)).await;
    rig.drain().await;
    until("it is empty", async || seen().await == (0, None)).await;
}
