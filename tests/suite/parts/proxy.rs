//! A TCP proxy on 127.0.0.1 whose behaviour a test switches while connections are open.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// What happens to bytes that arrive from now on, on new and on open connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: forwarded at once.
    Pass,
    /// Forwarded after this long, in each direction.
    Delay(Duration),
    /// The client is dropped and the target never sees its bytes.
    CutBeforeSend,
    /// The target gets the whole request, and the client is dropped the moment the answer begins:
    /// the work is done and nobody was told.
    CutAfterSend,
    /// Swallowed, and the connection stays open.
    Blackhole,
    /// A whole HTTP request that writes a batch is kept for [`Proxy::deliver`], and its client is dropped. Others pass.
    HoldWrite,
}

/// A proxy in front of one port.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target_port: AtomicU16,
    state: Mutex<State>,
    hits: AtomicUsize,
    accepted: AtomicUsize,
    held: Mutex<Vec<Vec<u8>>>,
}

struct State {
    fault: Fault,
    once: bool,
    closed: bool,
    connections: Vec<Weak<Connection>>,
}

struct Connection {
    client: TcpStream,
    target: TcpStream,
}

impl Proxy {
    /// Listens on a free port and forwards to `target_port`, faultlessly at first.
    pub fn start(target_port: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for the proxy");
        let port = listener.local_addr().expect("the proxy's address").port();
        let state = State { fault: Fault::Pass, once: false, closed: false, connections: Vec::new() };
        let shared = Arc::new(Shared {
            target_port: AtomicU16::new(target_port),
            state: Mutex::new(state),
            hits: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            held: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &theirs));
        Proxy { port, shared }
    }

    /// The proxy's address for HTTP.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The proxy's port, for other protocols.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on another server stands behind it; open connections are closed.
    pub fn lead_to(&self, target_port: u16) {
        self.shared.target_port.store(target_port, Ordering::SeqCst);
        self.drop_connections();
    }

    /// Connections that were ever opened to it.
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// This fault until further notice.
    pub fn set(&self, fault: Fault) {
        let mut state = self.shared.state();
        (state.fault, state.once) = (fault, false);
    }

    /// This fault the next time it can strike, and [`Fault::Pass`] after that.
    pub fn set_once(&self, fault: Fault) {
        let mut state = self.shared.state();
        (state.fault, state.once) = (fault, true);
    }

    /// Requests that are held.
    pub fn held(&self) -> usize {
        self.shared.held().len()
    }

    /// Sends the requests that were held, oldest first, each on a connection of its own; the answers.
    pub fn deliver(&self, target_port: u16) -> Vec<String> {
        let held = self.shared.held().clone();
        held.iter().map(|request| answer(request, target_port).expect("the target answers")).collect()
    }

    /// How often a fault has struck (a delayed, swallowed or cut piece of traffic).
    pub fn hits(&self) -> usize {
        self.shared.hits.load(Ordering::SeqCst)
    }

    /// Closes every open connection, as a restarting load balancer would.
    pub fn drop_connections(&self) {
        self.shared.state().drop_connections();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        state.drop_connections();
        drop(state);
        // Wakes the listener, which then sees that it is closed.
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok();
    }
}

impl State {
    fn drop_connections(&mut self) {
        for connection in self.connections.drain(..).filter_map(|open| open.upgrade()) {
            connection.close();
        }
    }
}

impl Connection {
    fn close(&self) {
        self.client.shutdown(Shutdown::Both).ok();
        self.target.shutdown(Shutdown::Both).ok();
    }
}

/// Which way the bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Out,
    Back,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault that strikes a piece of traffic going this way.
    fn strike(&self, way: Way) -> Fault {
        let mut state = self.state();
        let fault = match (state.fault, way) {
            (Fault::CutBeforeSend | Fault::HoldWrite, Way::Back) | (Fault::CutAfterSend, Way::Out) => Fault::Pass,
            (fault, _) => fault,
        };
        if fault != Fault::Pass {
            self.hits.fetch_add(1, Ordering::SeqCst);
            if state.once && fault != Fault::HoldWrite {
                state.fault = Fault::Pass;
            }
        }
        fault
    }
}

/// The answer to a request as it was written, up to the end of its connection or a second of silence.
fn answer(request: &[u8], port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(request)?;
    let (mut answer, mut bytes) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(count) = stream.read(&mut bytes) {
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&bytes[..count]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What only a request that writes a batch has in it.
const BATCH: &[u8] = b"INTO _pgflume_ledger";

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Whether these bytes are a whole HTTP request with a `content-length`.
fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    request.len() >= end + 4 + length.unwrap_or(0)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.state().closed {
            return;
        }
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        // A target that is down shows as a closed connection.
        let target_port = shared.target_port.load(Ordering::SeqCst);
        if let Ok(target) = TcpStream::connect((Ipv4Addr::LOCALHOST, target_port)) {
            connect(client, target, shared).ok();
        }
    }
}

fn connect(client: TcpStream, target: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    client.set_nodelay(true)?;
    target.set_nodelay(true)?;
    let connection = Arc::new(Connection { client, target });
    let mut state = shared.state();
    state.connections.retain(|open| open.strong_count() > 0);
    state.connections.push(Arc::downgrade(&connection));
    for way in [Way::Out, Way::Back] {
        let (connection, shared) = (Arc::clone(&connection), Arc::clone(shared));
        thread::spawn(move || pump(&connection, way, &shared));
    }
    Ok(())
}

/// Forwards until either side ends or a fault cuts the connection.
fn pump(connection: &Connection, way: Way, shared: &Shared) {
    let (mut from, mut to) = match way {
        Way::Out => (&connection.client, &connection.target),
        Way::Back => (&connection.target, &connection.client),
    };
    let mut bytes = vec![0; 64 << 10];
    let mut held = Vec::new();
    while let Ok(count) = from.read(&mut bytes) {
        if count == 0 {
            // Half closed: the other way may still have something to say.
            to.shutdown(Shutdown::Write).ok();
            return;
        }
        match shared.strike(way) {
            Fault::Pass => {}
            Fault::Delay(time) => thread::sleep(time),
            Fault::Blackhole => continue,
            Fault::HoldWrite => {
                held.extend_from_slice(&bytes[..count]);
                if !is_whole(&held) {
                    continue;
                }
                if contains(&held, BATCH) {
                    shared.held().push(held);
                    break;
                }
                if to.write_all(&std::mem::take(&mut held)).is_err() {
                    break;
                }
                continue;
            }
            Fault::CutBeforeSend | Fault::CutAfterSend => break,
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    connection.close();
}
