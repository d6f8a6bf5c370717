//! Takes connections and bounds them: how many there are, how large a request's head may be, and how long it
//! may take. Where there are too many, the one that has kept us waiting for the longest goes, so that nobody
//! who holds connections open locks others out.

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Connections at once: half of what a process may open by default, the rest is for Postgres and libSQL.
const CONNECTIONS: usize = 512;

/// Time for a request's head, and for the next request on a connection that is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head; some proxies add much to it.
const HEAD_BYTES: usize = 64 * 1024;

/// Rest after a connection could not be taken: most often because files ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether a connection's request is at work, or we wait for its sender. Among the request's extensions.
#[derive(Debug, Clone, Default)]
pub(super) struct Visit(Arc<AtomicBool>);

impl Visit {
    /// The request is at work, or not.
    pub(super) fn set_at_work(&self, at_work: bool) {
        self.0.store(at_work, Ordering::Relaxed);
    }

    fn is_at_work(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves until `stop` resolves. What it returns ends when all connections have.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) -> GracefulShutdown {
    let (graceful, connections) = (GracefulShutdown::new(), Connections::default());
    let mut stop = std::pin::pin!(stop);
    for id in 0.. {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => connections.add(id, stream, &router, graceful.watcher()),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(e) => {
                tracing::error!(error = %e, "a connection could not be taken: raise the limit of open files");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    graceful
}

/// All that are open, in the order in which they came.
#[derive(Clone, Default)]
struct Connections(Arc<Mutex<BTreeMap<u64, (Visit, AbortHandle)>>>);

/// Takes a connection off the list when its task ends, however it does.
struct Listed(Connections, u64);

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.list().remove(&self.1);
    }
}

impl Connections {
    fn list(&self) -> MutexGuard<'_, BTreeMap<u64, (Visit, AbortHandle)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves `stream`; where there are too many, in place of the oldest that waits, or not at all.
    fn add(&self, id: u64, stream: TcpStream, router: &Router, watcher: Watcher) {
        // Held until it is on the list: its task might end before.
        let mut list = self.list();
        if list.len() >= CONNECTIONS {
            let Some(oldest) = list.iter().find(|(_, (visit, _))| !visit.is_at_work()).map(|(id, _)| *id) else {
                return;
            };
            if let Some((_, task)) = list.remove(&oldest) {
                task.abort();
            }
        }
        let visit = Visit::default();
        let (listed, work) = (Listed(self.clone(), id), converse(stream, router.clone(), visit.clone(), watcher));
        let task = tokio::spawn(async move {
            work.await;
            drop(listed);
        });
        list.insert(id, (visit, task.abort_handle()));
    }
}

/// The requests of one connection.
async fn converse(stream: TcpStream, router: Router, visit: Visit, watcher: Watcher) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, "TCP_NODELAY could not be set");
    }
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let visit = visit.clone();
        visit.set_at_work(true);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(visit.clone());
        let answer = router.call(request);
        async move {
            let answer = answer.await;
            visit.set_at_work(false);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(HEAD_BYTES) // of one that is not whole yet
        .serve_connection(TokioIo::new(stream), service);
    if let Err(e) = watcher.watch(connection).await {
        tracing::debug!(error = %e, "a connection ended");
    }
}
