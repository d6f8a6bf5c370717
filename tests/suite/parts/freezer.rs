//! A proxy in front of Postgres that freezes one connection: the first that has a certain name, from the moment at
//! which it sends a certain text. Nothing passes any more, in either direction, and both ends stay open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Bytes that are remembered, to find a text in them that came in two pieces.
const REMEMBERED: usize = 256;

pub struct Freezer {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    name: Vec<u8>,
    text: Vec<u8>,
    is_frozen: AtomicBool,
}

impl Freezer {
    /// In front of `target_port`, for the connection whose application name ends in `name`, once it sends `text`.
    pub async fn start(target_port: u16, name: &str, text: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = format!(" {name}\0").into_bytes();
        let shared = Arc::new(Shared { name, text: text.into(), is_frozen: AtomicBool::new(false) });
        let theirs = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", target_port)).await.unwrap();
                tokio::spawn(pass(client, server, theirs.clone()));
            }
        });
        Self { port, shared }
    }

    /// The same URL, by way of this proxy.
    pub fn url(&self, url: &str, target_port: u16) -> String {
        url.replace(&format!(":{target_port}/"), &format!(":{}/", self.port))
    }

    /// Whether it has happened.
    pub fn has_frozen(&self) -> bool {
        self.shared.is_frozen.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, server: TcpStream, shared: Arc<Shared>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let freeze = tokio::sync::Notify::new();
    let upwards = async {
        let (mut seen, mut bytes, mut is_named) = (Vec::new(), vec![0; 65536], false);
        loop {
            let length = from_client.read(&mut bytes).await.unwrap_or(0);
            if length == 0 {
                return;
            }
            seen.extend_from_slice(&bytes[..length]);
            is_named |= contains(&seen, &shared.name);
            if to_server.write_all(&bytes[..length]).await.is_err() {
                return;
            }
            if is_named && contains(&seen, &shared.text) && !shared.is_frozen.swap(true, Ordering::SeqCst) {
                freeze.notify_one();
                std::future::pending::<()>().await;
            }
            seen.drain(..seen.len().saturating_sub(REMEMBERED));
        }
    };
    let downwards = async {
        let mut bytes = vec![0; 65536];
        loop {
            let length = tokio::select! {
                biased;
                () = freeze.notified() => return std::future::pending::<()>().await,
                length = from_server.read(&mut bytes) => length.unwrap_or(0),
            };
            if length == 0 || to_client.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = upwards => {}
        () = downwards => {}
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}
