//! Servers that are no libSQL, or a hostile one: what they say is bounded, cleaned and not believed.

use crate::support::{Db, Server, config, schema};
use pgflume::core::error::ErrorKind;
use pgflume::replica::hrana::Encoding;
use pgflume::replica::remote::Remote;
use pgflume::replica::target::Target;
use pgflume::replica::{Statement, Store};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const T: &str = r#"{"t":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

/// Answers each request with what `answer` makes of its body; GETs, which ask what it speaks, as it is told.
struct Liar {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Liar {
    fn start(speaks_protobuf: bool, answer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let counted = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, counted) = (answer.clone(), counted.clone());
                std::thread::spawn(move || converse(stream, speaks_protobuf, &*answer, &counted));
            }
        });
        Self { url, asked }
    }

    fn target(&self) -> Target {
        Target::Remote { url: self.url.clone(), token: None }
    }
}

fn converse(
    mut stream: std::net::TcpStream,
    speaks_protobuf: bool,
    answer: &dyn Fn(&[u8]) -> Vec<u8>,
    asked: &AtomicUsize,
) {
    while let Some((is_get, body)) = request(&mut stream) {
        let (status, body) = match is_get {
            true if speaks_protobuf => ("200 OK", Vec::new()),
            true => ("404 Not Found", Vec::new()),
            false => {
                asked.fetch_add(1, Ordering::Relaxed);
                ("200 OK", answer(&body))
            }
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

fn request(stream: &mut std::net::TcpStream) -> Option<(bool, Vec<u8>)> {
    let (mut bytes, mut part) = (Vec::new(), [0; 65536]);
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                return Some((head.starts_with("get"), bytes.split_off(end + 4)));
            }
        }
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&part[..read]),
        }
    }
}

/// As many results as there are steps, all of them well and empty.
fn all_well(body: &[u8]) -> Vec<u8> {
    let request: serde_json::Value = serde_json::from_slice(body).unwrap();
    let steps = request["requests"][0]["batch"]["steps"].as_array().unwrap().len();
    let (results, errors) =
        (vec![serde_json::json!({"cols": [], "rows": []}); steps], vec![serde_json::Value::Null; steps]);
    let result = serde_json::json!({"step_results": results, "step_errors": errors});
    let response = serde_json::json!({"type": "batch", "result": result});
    serde_json::json!({"baton": null, "results": [{"type": "ok", "response": response}]}).to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_keeps_nothing_is_noticed_at_once_and_nothing_is_taken() {
    let db = Db::new().await;
    db.send(r#"{"type":"INSERT","table":"t","record":{"id":1,"v":"x"}}"#).await;
    let liar = Liar::start(false, all_well);
    let server = Server::start(config(&db.url(), liar.target(), schema(T))).await;
    let answer = server.sync().await;
    assert!(answer.status == 503 && answer.body.contains("has not kept it"), "{} {}", answer.status, answer.body);
    let asked = liar.asked.load(Ordering::Relaxed);
    assert!(asked < 20, "{asked} requests");
    assert_eq!(db.queued().await, 1);
    let nuked = server.call("POST", "/nuke", Some(crate::support::SECRET)).await;
    assert!(nuked.status == 503 && nuked.body.contains("has not kept it"), "{}", nuked.body);
}

/// One that keeps its head, and from then on nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_keeping_is_noticed_before_the_messages_are_gone() {
    let db = Db::new().await;
    let sqld = crate::parts::Sqld::start(crate::parts::SqldOptions::default());
    let (url, token) = (format!("{}/v2/pipeline", sqld.url()), sqld.token_rw());
    let lies = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_lying = lies.clone();
    let liar = Liar::start(false, move |body| {
        let writes = String::from_utf8_lossy(body).contains("_pgflume_ledger (epoch");
        if is_lying.load(Ordering::Relaxed) && writes {
            return all_well(body);
        }
        let headers = [
            ("authorization".to_owned(), format!("Bearer {token}")),
            ("content-type".to_owned(), "application/json".to_owned()),
        ];
        let answer =
            crate::parts::http::request("POST", &url, &headers, body, std::time::Duration::from_secs(30)).unwrap();
        answer.body.into_bytes()
    });
    let server = Server::start(config(&db.url(), liar.target(), schema(T))).await;
    db.send(r#"{"type":"INSERT","table":"t","record":{"id":1,"v":"x"}}"#).await;
    assert_eq!(server.sync().await.json()["processed"], 1);
    lies.store(true, Ordering::Relaxed);
    db.send(r#"{"type":"INSERT","table":"t","record":{"id":2,"v":"x"}}"#).await;
    let answer = server.sync().await;
    assert!(answer.status == 503 && answer.body.contains("has not kept it"), "{} {}", answer.status, answer.body);
    assert_eq!(db.queued().await, 1);
    lies.store(false, Ordering::Relaxed);
    crate::support::until("it is delivered", async || server.sync().await.status == 200 && db.queued().await == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_words_are_bounded_and_forge_nothing_wherever_they_are_shown() {
    let db = Db::new().await;
    let hostile = format!("\u{1b}[31mX\nforged level=ERROR\r\u{202e}{}", "y".repeat(4_000_000));
    for (code, message) in
        [(hostile.as_str(), "m"), ("SQLITE_UNKNOWN", hostile.as_str()), ("SQLITE_AUTH", "m"), (&hostile, &hostile)]
    {
        let failure = serde_json::json!({"message": message, "code": code});
        let stream = serde_json::json!({"results": [{"type": "error", "error": failure}]}).to_string();
        let result = serde_json::json!({"step_results": [null], "step_errors": [failure]});
        let step = serde_json::json!({"results": [{"type": "ok", "response": {"result": result}}]}).to_string();
        for body in [stream, step] {
            let liar = Liar::start(false, move |_| body.clone().into_bytes());
            let server = Server::start(config(&db.url(), liar.target(), schema(T))).await;
            let texts = [server.sync().await.body, server.call("GET", "/ready", None).await.body];
            let error = pgflume::sync::Worker::new(config(&db.url(), liar.target(), schema(T)))
                .drain(std::time::Duration::from_secs(1))
                .await
                .unwrap_err();
            for text in texts.into_iter().chain([error.to_string(), format!("{error:?}")]) {
                let text = text.replace("\\u202e", "\u{202e}").replace("\\n", "\n").replace("\\u001b", "\u{1b}");
                assert!(text.len() < 10_000, "{} bytes", text.len());
                assert!(!text.contains(['\n', '\r', '\u{1b}', '\u{202e}']), "{text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_postgres_and_in_the_replica_forge_nothing() {
    let db = Db::new().await;
    db.sql(
        "create schema \"a\nforged\"; create table \"a\nforged\".\"t\u{1b}[1m\u{202e}\" (id int primary key, v text)",
    )
    .await;
    let text = "{\"t\":{\"primaryKey\":\"id\",\"columns\":{\"id\":\"INTEGER\",\"no\\nforged\":\"TEXT\"},\"source\":\"a\\nforged.t\\u001b[1m\\u202e\"}}";
    let home = crate::support::Home::new(crate::support::Path::File);
    let server = Server::start(config(&db.url(), home.target(), schema(text))).await;
    let error = db.client.batch_execute("select 1 from \"no\n\u{1b}such\"").await.unwrap_err();
    for shown in [
        server.sync().await.body,
        server.call("GET", "/ready", None).await.body,
        pgflume::core::error::Error::from(error).to_string(),
    ] {
        assert!(!shown.contains(['\n', '\u{1b}', '\u{202e}']), "{shown:?}");
    }
}

/// How much the process has ever taken, in MB.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

const LARGE: usize = 15 * 1024 * 1024;

/// Bodies of 15 MB whose parts cost a byte or two each.
fn large_answers() -> Vec<(&'static str, Encoding, Vec<u8>)> {
    let fill = |before: &str, part: &str, after: &str| {
        let parts = (LARGE - before.len() - after.len()) / part.len();
        format!("{before}{}{after}", part.repeat(parts)).into_bytes()
    };
    let rows = r#"{"results":[{"type":"ok","response":{"type":"batch","result":{"step_errors":[null],"step_results":[{"cols":[],"rows":["#;
    let end = "[]]}]}}}]}";
    let nest = |tags: &[u8], part: &[u8]| {
        let mut body = part.repeat(LARGE / part.len());
        for tag in tags {
            let mut outer = vec![tag << 3 | 2];
            prost::encode_length_delimiter(body.len(), &mut outer).unwrap();
            outer.append(&mut body);
            body = outer;
        }
        body
    };
    // Within a map's entry: field 2 is the value, field 1 of the result its entries.
    let steps = [2, 1, 1, 3, 1, 3];
    vec![
        ("empty stream results", Encoding::Json, fill(r#"{"results":["#, "{},", "{}]}")),
        ("empty lists", Encoding::Json, fill(r#"{"x":["#, "[],", r#"[]],"results":[]}"#)),
        ("empty rows", Encoding::Json, fill(rows, "[],", end)),
        ("nulls", Encoding::Json, fill(&format!("{rows}["), r#"{"type":"null"},"#, r#"{"type":"null"}],[]]}]}}}]}"#)),
        (
            "empty steps",
            Encoding::Json,
            fill(
                r#"{"results":[{"type":"ok","response":{"result":{"step_errors":[],"step_results":["#,
                "{},",
                "{}]}}}]}",
            ),
        ),
        (
            "errors",
            Encoding::Json,
            fill(
                r#"{"results":[{"type":"ok","response":{"result":{"step_results":[],"step_errors":["#,
                "{},",
                "{}]}}}]}",
            ),
        ),
        ("empty stream results", Encoding::Protobuf, [0x1a, 0].repeat(LARGE / 2)),
        ("empty rows", Encoding::Protobuf, nest(&steps, &[0x12, 0])),
        ("empty values", Encoding::Protobuf, nest(&[&[2][..], &steps].concat(), &[0x0a, 0])),
        ("empty steps", Encoding::Protobuf, nest(&[1, 3, 1, 3], &[0x0a, 0])),
        ("errors", Encoding::Protobuf, nest(&[1, 3, 1, 3], &[0x12, 0])),
    ]
}

/// Run by the test below, in a process whose memory is measured.
#[test]
#[ignore = "run by another test"]
fn decoding_in_a_process_of_its_own() {
    let Ok(number) = std::env::var("PGFLUME_TEST_ANSWER") else { return };
    let (what, encoding, body) = large_answers().swap_remove(number.parse().unwrap());
    let before = peak_mb();
    let outcome = encoding.decode(&body);
    let grown = peak_mb() - before;
    assert!(grown < 150, "{what} as {encoding:?}: {grown} MB for {} MB", body.len() >> 20);
    drop(outcome);
}

#[test]
fn large_answers_are_decoded_in_little_memory() {
    for number in 0..large_answers().len() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "liars::decoding_in_a_process_of_its_own", "--include-ignored", "--nocapture"])
            .env("PGFLUME_TEST_ANSWER", number.to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    }
}

#[test]
fn rows_and_values_of_an_answer_are_counted() {
    for (what, encoding, body) in large_answers() {
        match (what, encoding.decode(&body)) {
            ("empty rows" | "empty values", Err(e)) => {
                assert!(e.to_string().contains("more than"), "{what}: {e}")
            }
            ("empty rows" | "empty values", Ok(_)) => panic!("{what} as {encoding:?}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_hrana_leaves_the_outcome_unknown_and_shows_nothing_of_it() {
    for body in ["<html>hush</html>", r#"{"results":"hush"}"#, r#"{"results":[{"type":"hush"}]}"#, "", "\u{0}"] {
        let liar = Liar::start(false, move |_| body.as_bytes().to_vec());
        let error = Remote::new(&liar.url, None).unwrap().read(Statement::new("SELECT 1", vec![])).await.unwrap_err();
        assert!(error.kind() == &ErrorKind::Unknown && !error.to_string().contains("hush"), "{error}");
    }
}
