//! Takes connections and bounds them: how many there are, how large a request's head may be, and how long it
//! may take. Where there are too many, the one that has kept us waiting for the longest goes, so that nobody
//! who holds connections open locks others out.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio_io_timeout::TimeoutStream;

/// Connections at once: half of what a process may open by default, the rest is for Postgres and libSQL.
pub(super) const MOST: usize = 512;

/// Time for a request's head, and for the next request on a connection that is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a reader may take nothing of an answer: what it is given stays in memory until then.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest head; some proxies add much to it.
const HEAD_BYTES: usize = 64 * 1024;

/// Rest after a connection could not be taken: most often because files ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection is there for at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Occupation {
    /// We wait for its sender: for a request, or for the rest of one.
    Sender,
    /// Its request waits for an answer that many share, and that anybody may ask for.
    Shared,
    /// Its request is at work: it is not given up.
    Work,
}

/// A connection's [`Occupation`]. Among the request's extensions.
#[derive(Debug, Clone, Default)]
pub(super) struct Visit(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    occupation: AtomicU8,
    /// Ends when whoever took the connection over has.
    stay: Mutex<Option<oneshot::Receiver<()>>>,
}

/// Held by whoever takes a connection over from HTTP: until it is dropped, the connection is one of those that are counted,
/// and waited for.
#[derive(Debug)]
pub(super) struct Stay(oneshot::Sender<()>);

impl Stay {
    /// Comes back when the connection is given up, for another one.
    pub(super) async fn given_up(&mut self) {
        self.0.closed().await;
    }
}

impl Visit {
    /// From now on.
    pub(super) fn set(&self, occupation: Occupation) {
        self.0.occupation.store(occupation as u8, Ordering::Relaxed);
    }

    fn is(&self, occupation: Occupation) -> bool {
        self.0.occupation.load(Ordering::Relaxed) == occupation as u8
    }

    /// The connection is taken over when this request is answered.
    pub(super) fn stay(&self) -> Stay {
        let (stay, left) = oneshot::channel();
        *self.0.stay.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
        Stay(stay)
    }

    /// Waits until whoever took it over has ended.
    async fn left(&self) {
        let stay = self.0.stay.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stay) = stay {
            stay.await.ok();
        }
    }

    /// Waits for an answer that others wait for, too.
    pub(super) async fn sharing<T>(&self, answer: impl Future<Output = T>) -> T {
        self.set(Occupation::Shared);
        let answer = answer.await;
        self.set(Occupation::Work);
        answer
    }
}

/// Longest id of a request that is taken over from its sender: it goes into each line of the log.
const REQUEST_ID_BYTES: usize = 128;

/// An id that could forge or flood the log is replaced by one of ours.
fn drop_unfit_id(headers: &mut HeaderMap) {
    let fits = |id: &HeaderValue| {
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b);
        (1..=REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(is_plain)
    };
    if !headers.get("x-request-id").is_none_or(fits) {
        headers.remove("x-request-id");
    }
}

/// The connections that are left when no more are taken.
pub(super) struct Open(watch::Sender<()>);

impl Open {
    /// Tells all of them to end with the answer in hand, and waits until they have.
    pub(super) async fn shutdown(self) {
        self.0.send_replace(());
        self.0.closed().await;
    }
}

/// Serves `most` connections at once until `stop` resolves, and returns those that are open.
pub(super) async fn serve(listener: TcpListener, router: Router, most: usize, stop: impl Future<Output = ()>) -> Open {
    let (open, connections) = (Open(watch::Sender::new(())), Connections { most, list: Arc::default() });
    let mut stop = std::pin::pin!(stop);
    for id in 0.. {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => connections.add(id, stream, &router, open.0.subscribe()),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(e) => {
                tracing::error!(error = %e, "a connection could not be taken: raise the limit of open files");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    open
}

type Visits = BTreeMap<u64, (Visit, AbortHandle)>;

/// All that are open, in the order in which they came.
#[derive(Clone)]
struct Connections {
    most: usize,
    list: Arc<Mutex<Visits>>,
}

/// Takes a connection off the list when its task ends, however it does.
struct Listed(Connections, u64);

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.list().remove(&self.1);
    }
}

impl Connections {
    fn list(&self) -> MutexGuard<'_, Visits> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves `stream`; where there are too many, in place of the oldest that waits, or not at all.
    fn add(&self, id: u64, stream: TcpStream, router: &Router, stopping: watch::Receiver<()>) {
        // Held until it is on the list: its task might end before.
        let mut list = self.list();
        if list.len() >= self.most {
            let Some((_, task)) = dispensable(&list).and_then(|id| list.remove(&id)) else { return };
            task.abort();
        }
        let visit = Visit::default();
        let (listed, work) =
            (Listed(self.clone(), id), converse(stream, router.clone(), visit.clone(), stopping, WRITE_TIMEOUT));
        let task = tokio::spawn(async move {
            work.await;
            drop(listed);
        });
        list.insert(id, (visit, task.abort_handle()));
    }
}

/// The oldest of those that are the most, of the two kinds that may be given up: a crowd of the one kind costs
/// those of the other nothing.
fn dispensable(list: &Visits) -> Option<u64> {
    let of = |occupation| list.iter().filter(move |(_, (visit, _))| visit.is(occupation)).map(|(id, _)| *id);
    let (senders, shared) = (of(Occupation::Sender), of(Occupation::Shared));
    let mut crowd = if senders.clone().count() > shared.clone().count() { senders } else { shared };
    crowd.next().or_else(|| of(Occupation::Sender).next())
}

/// The requests of one connection, whose reader may rest for so long.
async fn converse(
    stream: TcpStream,
    router: Router,
    visit: Visit,
    mut stopping: watch::Receiver<()>,
    patience: Duration,
) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, "TCP_NODELAY could not be set");
    }
    let router = TowerToHyperService::new(router);
    let all = visit.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let visit = all.clone();
        visit.set(Occupation::Work);
        let mut request = request.map(Body::new);
        drop_unfit_id(request.headers_mut());
        request.extensions_mut().insert(visit.clone());
        let answer = router.call(request);
        async move {
            let answer = answer.await;
            visit.set(Occupation::Sender);
            answer
        }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(HEAD_BYTES) // of one that is not whole yet
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    match ended {
        Ok(()) => visit.left().await,
        Err(e) => tracing::debug!(error = %e, "a connection ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_requests_that_do_not_fit_into_a_line_are_dropped() {
        for (id, stays) in
            [("a-1", true), ("", false), ("a b", false), ("a=1 level=error", false), (&"a".repeat(129), false)]
        {
            let mut headers = HeaderMap::from_iter([(
                axum::http::HeaderName::from_static("x-request-id"),
                HeaderValue::from_str(id).unwrap(),
            )]);
            drop_unfit_id(&mut headers);
            assert_eq!(headers.contains_key("x-request-id"), stays, "{id}");
        }
    }

    #[tokio::test]
    async fn whoever_takes_nothing_of_an_answer_is_given_up() {
        use tokio::io::AsyncWriteExt as _;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        reader.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        // More than what systems keep for a connection.
        let router = Router::new().fallback(async || vec![0_u8; 64 << 20]);
        let open = watch::Sender::new(());
        let conversing = converse(stream, router, Visit::default(), open.subscribe(), Duration::from_millis(100));
        tokio::time::timeout(Duration::from_secs(30), conversing).await.unwrap();
        drop(reader);
    }

    #[tokio::test]
    async fn the_oldest_of_the_crowd_goes_and_never_one_at_work() {
        use Occupation::{Sender, Shared, Work};
        let cases = [
            (vec![Work, Shared, Sender, Shared], Some(1)),
            (vec![Work, Shared, Sender, Sender], Some(2)),
            (vec![Work, Sender], Some(1)),
            (vec![Shared, Work], Some(0)),
            (vec![Work, Work], None),
        ];
        for (occupations, expected) in cases {
            let list: Visits = (0..)
                .zip(&occupations)
                .map(|(id, occupation)| {
                    let visit = Visit::default();
                    visit.set(*occupation);
                    (id, (visit, tokio::spawn(async {}).abort_handle()))
                })
                .collect();
            assert_eq!(dispensable(&list), expected, "{occupations:?}");
        }
    }
}
