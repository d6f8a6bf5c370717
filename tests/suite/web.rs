//! The HTTP contract, from the outside.

use crate::parts::{Sqld, SqldOptions};
use crate::support::{Db, Home, PATHS, Path, Rig, SECRET, Server, config, repository_schema, until};
use pgflume::config::Signatures;
use pgflume::core::secret::Secret;
use pgflume::replica::target::Target;
use std::io::Write;
use std::time::{Duration, Instant};

async fn served(path: Path) -> (Server, Db, Home) {
    let (db, home) = (Db::new().await, Home::new(path));
    let server = Server::start(config(&db.url(), home.target(), repository_schema())).await;
    (server, db, home)
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_without_the_secret_get_401_and_wrong_requests_their_status() {
    let (server, db, _home) = served(Path::File).await;
    db.send(r#"{"type":"INSERT","table":"orgs","record":{"id":"a"}}"#).await;
    for (method, path) in [("POST", "/sync"), ("POST", "/nuke"), ("POST", "/resync"), ("GET", "/status")] {
        for secret in [None, Some("wrong"), Some(""), Some("a-secret-of-the-suite-and-more")] {
            let answer = server.call(method, path, secret).await;
            assert_eq!((answer.status, &answer.json()["success"]), (401, &false.into()), "{path} {secret:?}");
        }
    }
    assert_eq!(db.queued().await, 1);
    for (method, path, status) in
        [("GET", "/nothing", 404), ("GET", "/sync", 405), ("POST", "/health", 405), ("DELETE", "/nuke", 405)]
    {
        let answer = server.call(method, path, Some(SECRET)).await;
        assert_eq!((answer.status, &answer.json()["success"]), (status, &false.into()), "{method} {path}");
        assert!(answer.header("x-request-id").is_some());
    }
    let headers = vec![("x-webhook-signature".to_owned(), SECRET.to_owned())];
    let answer = server.request("POST", "/sync", headers, vec![b' '; 1024 * 1024 + 1]).await;
    assert_eq!((answer.status, &answer.json()["success"]), (413, &false.into()));
    for path in ["/health", "/ok"] {
        let answer = server.call("GET", path, None).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "OK"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nuke_rebuilds_the_tables_works_on_an_empty_target_and_leaves_the_queue() {
    for path in PATHS {
        let (server, db, home) = served(path).await;
        for _ in 0..2 {
            let answer = server.call("POST", "/nuke", Some(SECRET)).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.json()["message"], "Data nuked and schema reinitialized");
        }
        db.send(r#"{"type":"INSERT","table":"orgs","record":{"id":"a"}}"#).await;
        assert_eq!(server.sync().await.json()["processed"], 1);
        db.send(r#"{"type":"INSERT","table":"orgs","record":{"id":"b"}}"#).await;
        assert_eq!(server.call("POST", "/nuke?refill=false", Some(SECRET)).await.status, 200);
        assert_eq!(server.call("POST", "/nuke?refill=maybe", Some(SECRET)).await.status, 400);
        let rig = Rig::with(db, home, repository_schema());
        assert_eq!(rig.rows("SELECT count(*) FROM orgs").await, ["0"], "{path:?}");
        let indexes = rig
            .rows("SELECT count(*) FROM sqlite_master WHERE type = 'index' AND tbl_name = 'orgs' AND sql IS NOT NULL")
            .await;
        assert_eq!(indexes, ["3"]);
        assert_eq!(server.sync().await.json()["processed"], 1);
        assert_eq!(rig.rows("SELECT id FROM orgs").await, ["b"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_nuke_works_once() {
    let (db, home) = (Db::new().await, Home::new(Path::File));
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let secret = || vec![Secret::new(key)];
    let server = Server::with(
        config(&db.url(), home.target(), repository_schema()),
        Signatures { webhook: secret(), nuke: secret() },
    )
    .await;
    // Signed in SQL, as the documentation shows it.
    db.sql("create extension pgcrypto").await;
    let headers = |at: String, signature: String| {
        vec![
            ("webhook-id".to_owned(), "msg_1".to_owned()),
            ("webhook-timestamp".to_owned(), at),
            ("webhook-signature".to_owned(), format!("v1,{signature}")),
        ]
    };
    let body = r#"{"type":"nuke"}"#;
    let at = db.one("select floor(extract(epoch from now()))::bigint").await;
    let signature = db.one(&format!("select encode(hmac(('msg_1.{at}.{body}')::bytea, decode('MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'base64'), 'sha256'), 'base64')")).await;
    let call = |path: &'static str| {
        server.request("POST", path, headers(at.clone(), signature.clone()), body.as_bytes().to_vec())
    };
    assert_eq!(call("/sync").await.status, 401, "the body names another verb");
    assert_eq!(call("/nuke").await.status, 200);
    assert_eq!(call("/nuke").await.status, 401, "a replay");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_or_refusing_side_is_503_with_retry_after_and_nothing_is_lost() {
    let (db, home) = (Db::new().await, Home::new(Path::Sqld));
    let Home::Sqld(sqld) = &home else { unreachable!() };
    db.send(r#"{"type":"INSERT","table":"orgs","record":{"id":"a"}}"#).await;
    let dead = Sqld::start(SqldOptions::default()).url(); // stopped again at once
    let target = |url: String, token: String| Target::Remote { url, token: Some(Secret::new(token)) };
    let cases = [
        (db.url(), target(dead, sqld.token_rw()), "libSQL"),
        (db.url(), target(sqld.url(), "not.a.token".into()), "LIBSQL_AUTH_TOKEN"),
        (db.url(), target(sqld.url(), sqld.token_ro()), "LIBSQL_AUTH_TOKEN"),
        ("postgres://postgres@127.0.0.1:1/x".into(), home.target(), "PGMQ_URL"),
        (db.url().replace(&db.name, "nobody"), home.target(), "PGMQ_URL"),
    ];
    for (url, target, named) in cases {
        let server = Server::start(config(&url, target, repository_schema())).await;
        let answer = server.sync().await;
        assert_eq!(answer.status, 503, "{named}: {}", answer.body);
        assert!(
            answer.header("retry-after").is_some() && answer.json()["error"].as_str().unwrap().contains(named),
            "{named}: {}",
            answer.body
        );
        assert!(!answer.body.contains("not.a.token"));
        assert_eq!(server.call("GET", "/health", None).await.status, 200);
        let ready = server.call("GET", "/ready", None).await;
        assert_eq!(ready.status, 503, "{named}: {}", ready.body);
    }
    assert_eq!(db.queued().await, 1);
    sqld.block_writes(true);
    let server = Server::start(config(&db.url(), home.target(), repository_schema())).await;
    let answer = server.sync().await;
    assert!(answer.status == 503 && answer.body.contains("block"), "{}", answer.body);
    sqld.block_writes(false);
    assert_eq!(server.sync().await.json()["processed"], 1);
    assert_eq!(server.call("GET", "/ready", None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_both_sides_and_no_values() {
    let (server, db, _home) = served(Path::File).await;
    db.send(r#"{"type":"INSERT","table":"orgs","record":{"id":"hush","name":"hush"}}"#).await;
    db.send(r#"{"type":"INSERT","table":"orgs","record":{"name":"hush"}}"#).await;
    let before = server.call("GET", "/status", Some(SECRET)).await.json();
    assert_eq!((&before["queued"], &before["replica"]["seq"]), (&2.into(), &serde_json::Value::Null));
    server.sync().await;
    let answer = server.call("GET", "/status", Some(SECRET)).await;
    let status = answer.json();
    assert_eq!(
        (&status["queued"], &status["dead"], &status["replica"]["seq"], &status["last_sync"]["seq"]),
        (&0.into(), &1.into(), &1.into(), &1.into())
    );
    assert_eq!(status["tables"]["orgs"]["captured"], false);
    assert!(status["replica"]["caught_up_at"].is_string() && !answer.body.contains("hush"), "{}", answer.body);
}

/// Fills the queue with more than one step takes.
async fn fill(db: &Db, messages: i64) {
    db.sql(&format!(
        "insert into pgmq.q_replicate_data_libsql (vt, message) select now(), jsonb_build_object('type', 'INSERT', 'table', 'orgs',
         'record', jsonb_build_object('id', i::text, 'name', repeat('x', 50))) from generate_series(1, {messages}) i"
    )).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_does_not_stop_the_drain() {
    let (server, db, _home) = served(Path::Sqld).await;
    fill(&db, 30_000).await;
    let mut stream = std::net::TcpStream::connect(server.address.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "POST /sync HTTP/1.1\r\nhost: x\r\nx-webhook-signature: {SECRET}\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    // Hang up once the drain holds the progress row: it runs.
    let locked = "select count(*) from pg_locks l join pg_class c on c.oid = l.relation where c.relname = 'progress' and l.mode = 'RowShareLock'
                  and l.database = (select oid from pg_database where datname = current_database())";
    until("the drain has begun", async || db.one(locked).await != "0" || db.queued().await < 30_000).await;
    drop(stream);
    until("the drain ends", async || db.queued().await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_ends_its_step_and_leaves_the_rest_queued() {
    const QUEUED: i64 = 700_000; // more than one step takes
    let (mut server, db, home) = served(Path::File).await;
    fill(&db, QUEUED).await;
    let stop = server.stop.take().unwrap();
    let signal = async {
        until("the drain is on its way", async || db.queued().await < QUEUED).await;
        stop.send(()).unwrap();
        Instant::now()
    };
    let (answer, at) = tokio::join!(server.sync(), signal);
    server.task.take().unwrap().await.unwrap().unwrap();
    assert!(at.elapsed() < Duration::from_secs(10));
    let processed = answer.json()["processed"].as_i64().unwrap();
    assert!(processed < QUEUED, "it was to be stopped on the way");
    let rig = Rig::with(db, home, repository_schema());
    let (left, there) = (rig.db.queued().await, rig.rows("SELECT count(*) FROM orgs").await);
    assert_eq!(there, [(QUEUED - left).to_string()]);
    assert_eq!(processed, QUEUED - left);
}

/// Headers of a request that is signed as Standard Webhooks, with the key that these tests use.
async fn signed(db: &Db, id: &str, body: &str) -> Vec<(String, String)> {
    let at = db.one("select floor(extract(epoch from now()))::bigint").await;
    let signature = db.one(&format!("select encode(hmac(('{id}.{at}.{body}')::bytea, decode('MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'base64'), 'sha256'), 'base64')")).await;
    [("webhook-id", id.to_owned()), ("webhook-timestamp", at), ("webhook-signature", format!("v1,{signature}"))]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_opens_its_own_path_only_and_once_where_it_asks_for_work() {
    let (db, home) = (Db::new().await, Home::new(Path::File));
    let secret = || vec![Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
    let signatures = Signatures { webhook: secret(), nuke: secret() };
    let server = Server::with(config(&db.url(), home.target(), repository_schema()), signatures).await;
    db.sql("create extension pgcrypto").await;
    let paths = [("sync", "POST", 200), ("resync", "POST", 202), ("status", "GET", 200), ("nuke", "POST", 200)];
    for named in ["sync", "resync", "status", "nuke", ""] {
        let body = if named.is_empty() { String::new() } else { format!(r#"{{"type":"{named}"}}"#) };
        for (path, method, status) in paths {
            let headers = signed(&db, &format!("{named}-{path}"), &body).await;
            let opens = named == path || (named.is_empty() && path == "status");
            let expected = if opens { status } else { 401 };
            let at = format!("/{path}");
            let call = || server.request(method, &at, headers.clone(), body.clone().into_bytes());
            assert_eq!(call().await.status, expected, "{named:?} for {path}");
            // What is due anyway may be asked for again; work that somebody asked for is done once.
            let again = if opens && ["resync", "nuke"].contains(&path) { 401 } else { expected };
            assert_eq!(call().await.status, again, "{named:?} for {path}, again");
        }
    }
    let other = r#"{"type":"resync","tables":["nobody"]}"#;
    let headers = signed(&db, "refused", other).await;
    let call = |body: &'static str, headers| server.request("POST", "/resync", headers, body.into());
    assert_eq!(call(other, headers).await.status, 400);
    let right = r#"{"type":"resync","tables":["apps"]}"#;
    let headers = signed(&db, "refused", right).await;
    assert_eq!(call(right, headers).await.status, 202, "an id that came to nothing may be used again");
    let long = signed(&db, &"i".repeat(1000), r#"{"type":"resync"}"#).await;
    assert_eq!(call(r#"{"type":"resync"}"#, long).await.status, 401, "an id of any length is none");
}
