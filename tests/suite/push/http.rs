//! The path itself: who is let in, what is answered, and with which status.

use super::{Written, new, todos};
use crate::parts::Program;
use crate::parts::http::{self, Answer};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use pgflume::core::claims::Claims;
use pgflume::http::push::{Gate, router};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

struct Names {
    ann: Claims,
    bob: Claims,
}

#[async_trait::async_trait]
impl Gate for Names {
    async fn claims(&self, headers: &HeaderMap) -> Result<Claims, Box<Response>> {
        match headers.get("authorization").map(axum::http::HeaderValue::as_bytes) {
            Some(b"Bearer ann") => Ok(self.ann.clone()),
            Some(b"Bearer bob") => Ok(self.bob.clone()),
            _ => Err(Box::new(StatusCode::UNAUTHORIZED.into_response())),
        }
    }

    async fn wrote(&self, tables: &BTreeSet<&str>, _: &Claims, _: u64, wait: Option<Duration>) -> Option<i64> {
        wait.filter(|_| tables.contains("todos")).map(|wait| wait.as_millis() as i64)
    }
}

struct Listening {
    written: Written,
    address: String,
}

impl Listening {
    /// Tokens are names here: Ann's is good, Bob's has no role, and all others are nobody's.
    async fn start() -> Self {
        let written = Written::todos("").await;
        let (ann, bob) = (written.claims("ann", "a"), Claims::new(serde_json::Map::new()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/v1/push", listener.local_addr().unwrap());
        let router = router(written.pushes.clone(), Arc::new(Names { ann, bob }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { written, address }
    }

    async fn ask(&self, method: &'static str, token: &str, key: Option<&str>, kind: &str, body: String) -> Answer {
        let mut headers =
            vec![("authorization".to_owned(), format!("Bearer {token}")), ("content-type".to_owned(), kind.to_owned())];
        headers.extend(key.map(|key| ("idempotency-key".to_owned(), key.to_owned())));
        let url = self.address.clone();
        let asked = move || http::request(method, &url, &headers, body.as_bytes(), Duration::from_secs(30));
        tokio::task::spawn_blocking(asked).await.unwrap().unwrap()
    }

    async fn post(&self, token: &str, key: &str, body: String) -> Answer {
        self.ask("POST", token, Some(key), "application/json; charset=utf-8", body).await
    }
}

fn body(changes: Value) -> String {
    json!({"client": "c", "changes": changes}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_with_what_became_of_it() {
    let listening = Listening::start().await;
    let answer = listening.post("ann", "1", body(json!([new("1", "x")]))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["results"], json!([{"status": "applied"}]));
    let again = listening.post("ann", "1", body(json!([new("1", "x")]))).await;
    assert_eq!((again.status, &again.json()["duplicate"]), (200, &json!(true)));
    let refused = listening.post("ann", "2", body(json!([new("2", "bad")]))).await;
    assert_eq!((refused.status, &refused.json()["results"][0]["code"]), (200, &json!("23514")));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_request_is_said_and_nothing_is_done() {
    let listening = Listening::start().await;
    let good = || body(json!([new("1", "x")]));
    let nobody = listening.post("eve", "1", good()).await;
    assert_eq!(nobody.status, 401);
    let unwritable = body(json!([{"table": "other", "op": "insert", "key": {"id": 1}}]));
    for (answer, status, about) in [
        (listening.post("bob", "1", good()).await, 403, "token"),
        (listening.ask("POST", "ann", None, "application/json", good()).await, 400, "idempotency-key"),
        (listening.ask("POST", "ann", Some("1"), "text/plain", good()).await, 415, "content-type"),
        (listening.post("ann", "1", "{".into()).await, 400, "body"),
        (listening.post("ann", "1", unwritable).await, 400, "changes[0].table"),
        (listening.post("ann", "1", body(json!([new("1", &"x".repeat(1 << 20))]))).await, 413, "body"),
    ] {
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(answer.json()["errors"][about].is_array(), "{about}: {}", answer.body);
    }
    assert_eq!(listening.ask("GET", "ann", Some("1"), "application/json", String::new()).await.status, 405);
    assert_eq!(listening.written.db.one("select count(*) from pgflume.pushes").await, "0");
    listening.post("ann", "1", good()).await;
    let taken = listening.post("ann", "1", body(json!([new("2", "x")]))).await;
    assert_eq!(taken.status, 409, "{}", taken.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_to_be_sent_again_without_a_word_of_postgres() {
    let listening = Listening::start().await;
    let schema = todos("");
    assert!(schema.contains("doc"));
    listening.written.db.sql("alter table todos rename column doc to renamed").await;
    let change = json!({"table": "todos", "op": "insert", "key": {"id": "1"}, "set": {"doc": {}}});
    let answer = listening.post("ann", "1", body(json!([change]))).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")), "{}", answer.body);
    assert!(!answer.body.contains("42703") && !answer.body.contains("doc"), "{}", answer.body);
    listening.written.db.sql("alter table todos rename column renamed to doc").await;
    assert_eq!(
        listening.post("ann", "1", body(json!([change]))).await.json()["results"],
        json!([{"status": "applied"}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_starts_with_no_login_that_could_do_more_than_its_users() {
    let written = Written::todos("").await;
    let fed = todos("").replacen("\"primaryKey\"", "\"feed\":{\"public\":true},\"primaryKey\"", 1);
    let replica = tempfile::tempdir().unwrap();
    let path = replica.path().join("replica.db");
    let url = written.db.url();
    let variables = [
        ("PGMQ_URL", url.as_str()),
        ("LIBSQL_URL", path.to_str().unwrap()),
        ("FEED_BIND", "127.0.0.1:0"),
        ("PUSH_URL", url.as_str()),
    ];
    let said = async |program: &Program| {
        let done = program.run(&["serve"]).await;
        assert_eq!(done.status.code(), Some(2), "{done:?}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let mut program = Program::new(&fed, &variables);
    let superuser = said(&program).await;
    assert!(superuser.contains("PUSH_URL's login may do more than its users"), "{superuser}");
    program.set("PUSH_URL", "nonsense");
    assert!(said(&program).await.contains("PUSH_URL is not a Postgres URL"));
    program.set("PUSH_URL", "");
    let file = replica.path().join("url");
    std::fs::write(&file, &url).unwrap();
    program.set("PUSH_URL_FILE", file.to_str().unwrap());
    assert!(said(&program).await.contains("PUSH_URL's login"), "its file is read");
    program.set("FEED_BIND", "");
    assert!(said(&program).await.contains("FEED_BIND is not"));
    let read_only = r#"{"todos":{"primaryKey":"id","columns":{"id":"TEXT","title":"TEXT"},"feed":{"public":true}}}"#;
    program.write("schema.json", read_only);
    assert!(said(&program).await.contains("no table is writable"));
}
