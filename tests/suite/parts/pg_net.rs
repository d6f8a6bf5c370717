//! The sending half of the pg_net stand-in (`net_http_post.sql` is the asking half): takes
//! requests off `net.http_request_queue` once their transaction has committed, sends each over
//! real HTTP on a thread of its own, and records the outcome in `net._http_response`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::{Client, NoTls, Row};

use super::http::{self, Answer};

const SQL: &str = include_str!("net_http_post.sql");
const POLL: Duration = Duration::from_millis(20);
/// The same advisory lock in every test: two sessions cannot create one schema at once.
const INSTALL_LOCK: &str = "select pg_advisory_lock(hashtext('net_http_post.sql'))";
const UNLOCK: &str = "select pg_advisory_unlock(hashtext('net_http_post.sql'))";
const TAKE: &str = "delete from net.http_request_queue \
    returning id, method, url, headers::text, body, timeout_milliseconds";
const RECORD: &str = "insert into net._http_response \
    (id, status_code, content_type, headers, content, timed_out, error_msg) \
    values ($1, $2, $3, $4::text::jsonb, $5, $6, $7)";

/// The sender for one database; ends when dropped.
pub struct PgNet {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Request {
    id: i64,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: String,
    timeout: Duration,
}

type Outcome = (i64, std::io::Result<Answer>);

impl PgNet {
    /// Installs `net.http_post` in the database at `url`, if it is missing, and starts sending.
    /// Returns once it is installed.
    pub fn start(url: &str) -> PgNet {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, installed) = mpsc::channel();
        let (url, stop_too) = (url.to_owned(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime for pg_net").block_on(serve(&url, &stop_too, &ready));
        });
        installed.recv().expect("pg_net's stand-in is installed");
        PgNet { stop, thread: Some(thread) }
    }
}

impl Drop for PgNet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Until told to stop, or until the server goes away (tests stop it on purpose).
async fn serve(url: &str, stop: &AtomicBool, ready: &mpsc::Sender<()>) {
    let client = connect(url).await;
    for sql in [INSTALL_LOCK, SQL, UNLOCK] {
        client.batch_execute(sql).await.expect("net_http_post.sql runs");
    }
    ready.send(()).ok();
    let (done, outcomes) = mpsc::channel();
    while !stop.load(Ordering::SeqCst) {
        let Ok(rows) = client.query(TAKE, &[]).await else {
            return;
        };
        for row in rows {
            let (request, done) = (read(&row), done.clone());
            thread::spawn(move || done.send((request.id, send(&request))));
        }
        for outcome in outcomes.try_iter() {
            if record(&client, outcome).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("Postgres takes pg_net's connection");
    tokio::spawn(connection);
    client
}

fn read(row: &Row) -> Request {
    let headers: Value = serde_json::from_str(row.get::<_, &str>(3)).unwrap_or_default();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let headers = headers.as_object().into_iter().flatten();
    Request {
        id: row.get(0),
        method: row.get(1),
        url: row.get(2),
        headers: headers.map(|(name, value)| (name.clone(), text(value))).collect(),
        body: row.get::<_, Option<String>>(4).unwrap_or_default(),
        timeout: Duration::from_millis(u64::try_from(row.get::<_, i32>(5)).unwrap_or(0)),
    }
}

fn send(request: &Request) -> std::io::Result<Answer> {
    http::request(&request.method, &request.url, &request.headers, request.body.as_bytes(), request.timeout)
}

async fn record(client: &Client, (id, outcome): Outcome) -> Result<u64, tokio_postgres::Error> {
    match outcome {
        Ok(answer) => {
            let status = i32::from(answer.status);
            let content_type = answer.header("content-type").map(str::to_owned);
            let headers: Value = answer.headers.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
            client
                .execute(
                    RECORD,
                    &[
                        &id,
                        &Some(status),
                        &content_type,
                        &headers.to_string(),
                        &answer.body,
                        &Some(false),
                        &None::<String>,
                    ],
                )
                .await
        }
        Err(error) => {
            let timed_out = matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock);
            let none = None::<String>;
            client
                .execute(RECORD, &[&id, &None::<i32>, &none, &none, &none, &Some(timed_out), &error.to_string()])
                .await
        }
    }
}
