//! A proxy before sqld with the faults of a network, one HTTP request at a time: it knows where a request ends, so
//! it can cut a client off after the server has committed, send a request twice, or deliver it late.

use crate::plan::{millis, rng};
use crate::report::Tally;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longer than any batch.
const BODY_MAX_BYTES: usize = 64 << 20;

/// The longest delay of a delivery whose client is gone, in milliseconds.
const LATEST_MS: u64 = 8_000;

/// A read that fails costs a drain and shows little; so many times fewer of them are struck.
const READS_ARE_SPARED: u32 = 8;

/// A proxy in front of one server.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    client: reqwest::Client,
    rng: Mutex<StdRng>,
    /// Of 1,000 writes, so many are struck.
    rate: AtomicU32,
    /// Deliveries that nobody waits for.
    late: AtomicUsize,
    tally: Tally,
}

/// What happens to one request.
enum Fate {
    Passed,
    Delayed(Duration),
    CutBefore,
    CutAfter,
    CutInAnswer,
    Twice,
    TwiceAtOnce,
    Late(Duration),
}

/// A whole request, to be sent any number of times.
#[derive(Clone)]
struct Whole {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Whole {
    /// Whether it moves the head, or a pull: the texts of a batch stand in its body in both encodings.
    fn is_write(&self) -> bool {
        let is_in = |text: &[u8]| self.body.windows(text.len()).any(|part| part == text);
        is_in(b"INTO _pgflume_head") || is_in(b"INTO _pgflume_pulls")
    }
}

impl Proxy {
    pub async fn start(target: &str, seed: u64, tally: Tally) -> std::io::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().build().map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            client,
            rng: Mutex::new(rng(seed, "proxy")),
            rate: AtomicU32::new(0),
            late: AtomicUsize::new(0),
            tally,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let app = Router::new().fallback(handle).with_state(shared.clone());
        tokio::spawn(axum::serve(listener, app).into_future());
        Ok(Self { port, shared })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on, of 1,000 writes so many are struck.
    pub fn set_rate(&self, per_mille: u32) {
        self.shared.rate.store(per_mille, Ordering::Relaxed);
    }

    /// Requests that are still held back.
    pub fn late(&self) -> usize {
        self.shared.late.load(Ordering::SeqCst)
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_MAX_BYTES).await else { cut() };
    let whole = Whole { method: head.method, uri: head.uri, headers: head.headers, body };
    let fate = shared.fate(whole.is_write());
    if let Some(name) = fate.name() {
        shared.tally.fault(name);
    }
    match fate {
        Fate::Passed => shared.forward(&whole).await,
        Fate::Delayed(time) => {
            tokio::time::sleep(time).await;
            shared.forward(&whole).await
        }
        Fate::CutBefore => cut(),
        Fate::CutAfter => {
            shared.forward(&whole).await;
            cut()
        }
        Fate::CutInAnswer => half(shared.forward(&whole).await).await,
        Fate::Twice => {
            shared.forward(&whole).await;
            shared.forward(&whole).await
        }
        Fate::TwiceAtOnce => futures_util::join!(shared.forward(&whole), shared.forward(&whole)).0,
        Fate::Late(time) => {
            shared.late.fetch_add(1, Ordering::SeqCst);
            let theirs = shared.clone();
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                theirs.send(&whole).await.ok();
                theirs.late.fetch_sub(1, Ordering::SeqCst);
            });
            cut()
        }
    }
}

/// Closes the connection without an answer: hyper drops it with its task. No panic message is printed.
fn cut() -> ! {
    std::panic::resume_unwind(Box::new("cut"))
}

/// The head and half of the body, and then nothing.
async fn half(answer: Response) -> Response {
    let (head, body) = answer.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, BODY_MAX_BYTES).await else { cut() };
    let first = bytes.slice(..bytes.len() / 2);
    let parts = [Ok(first), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))];
    Response::from_parts(head, Body::from_stream(futures_util::stream::iter(parts)))
}

impl Shared {
    fn fate(&self, is_write: bool) -> Fate {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = self.rate.load(Ordering::Relaxed) / if is_write { 1 } else { READS_ARE_SPARED };
        if rng.random_range(0..1_000) >= rate {
            return Fate::Passed;
        }
        match rng.random_range(0..9) {
            0 => Fate::Delayed(millis(&mut rng, 20, 800)),
            1 => Fate::CutBefore,
            2 => Fate::CutAfter,
            3 => Fate::CutInAnswer,
            4 => Fate::Twice,
            5 => Fate::TwiceAtOnce,
            _ => Fate::Late(millis(&mut rng, 100, LATEST_MS)),
        }
    }

    async fn send(&self, whole: &Whole) -> reqwest::Result<Response> {
        let path = whole.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = self.client.request(whole.method.clone(), format!("{}{path}", self.target));
        for name in ["authorization", "content-type"] {
            if let Some(value) = whole.headers.get(name) {
                request = request.header(name, value);
            }
        }
        let answer = request.body(whole.body.clone()).send().await?;
        let (status, kind) = (answer.status(), answer.headers().get("content-type").cloned());
        let mut response = Response::new(Body::from(answer.bytes().await?));
        *response.status_mut() = status;
        if let Some(kind) = kind {
            response.headers_mut().insert("content-type", kind);
        }
        Ok(response)
    }

    /// A server that is down shows as a closed connection.
    async fn forward(&self, whole: &Whole) -> Response {
        match self.send(whole).await {
            Ok(response) if response.status() != StatusCode::BAD_GATEWAY => response,
            _ => cut(),
        }
    }
}

impl Fate {
    fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Passed => return None,
            Self::Delayed(_) => "request delayed",
            Self::CutBefore => "request cut before it was sent",
            Self::CutAfter => "answer lost",
            Self::CutInAnswer => "answer cut in the middle",
            Self::Twice => "request sent twice",
            Self::TwiceAtOnce => "request sent twice at once",
            Self::Late(_) => "request delivered late",
        })
    }
}
