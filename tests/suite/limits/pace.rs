//! Slow targets, and targets that take no large request: batches become smaller and the drain goes on.

use super::{assert_equal, drained};
use crate::parts::{Fault, Proxy};
use crate::support::{Db, Home, Path, Rig, config, schema};
use crate::volume::set_up;
use pgflume::replica::target::Target;
use pgflume::sync::Worker;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const TABLE: &str = r#"{"rows":{"primaryKey":"id","columns":{"id":"INTEGER","v":"TEXT"}}}"#;

/// A rig whose worker reaches sqld on another port.
async fn through(port_of: impl FnOnce(u16) -> u16) -> Rig {
    let home = Home::new(Path::Sqld);
    let Target::Remote { url, token } = home.target() else { unreachable!() };
    let port = port_of(url.rsplit(':').next().unwrap().parse().unwrap());
    let db = Db::new().await;
    let target = Target::Remote { url: format!("http://127.0.0.1:{port}"), token };
    let worker = Arc::new(Worker::new(config(&db.url(), target, schema(TABLE))));
    let rig = Rig { db, home, worker };
    rig.db.sql("create table rows (id int primary key, v text)").await;
    set_up(&rig.db.url(), rig.worker.schema()).await;
    drained(&rig).await;
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_target_gets_smaller_batches_and_a_step_gives_back_what_it_has_no_time_for() {
    let mut proxy = None;
    let rig = through(|port| proxy.insert(Proxy::start(port)).port()).await;
    let proxy = proxy.unwrap();
    proxy.set(Fault::Delay(Duration::from_millis(30))); // for each 64 KiB at most: two megabytes a second
    let insert = |from: i32, to: i32| {
        format!("insert into rows select i, repeat('x', 10000) from generate_series({from}, {to}) i")
    };
    rig.db.sql(&insert(1, 500)).await;
    assert_eq!(rig.worker.drain(Duration::ZERO).await.unwrap().rows, 500, "the first batch teaches");
    rig.db.sql(&insert(501, 3500)).await;
    let begun = Instant::now();
    let done = rig.worker.drain(Duration::ZERO).await.unwrap();
    println!("one step: {done:?} in {:?}", begun.elapsed());
    assert!(done.processed > 0 && done.queued > 0, "a part is acknowledged, the rest is back: {done:?}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(done.rows / done.batches < 800, "800 rows are 8 MB: {done:?}");
    proxy.set(Fault::Pass);
    assert_eq!(drained(&rig).await, 0);
    assert_eq!(rig.rows("SELECT count(*), sum(length(v)) FROM rows").await, ["3500|35000000"]);
}

/// An HTTP relay that takes no request longer than `most_bytes`: with an answer, or by hanging up.
struct Gatekeeper {
    port: u16,
    refused: Arc<AtomicUsize>,
}

impl Gatekeeper {
    fn start(target: u16, most_bytes: usize, answers: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused = Arc::new(AtomicUsize::new(0));
        let count = refused.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let count = count.clone();
                std::thread::spawn(move || relay(client, target, most_bytes, answers, &count).ok());
            }
        });
        Self { port, refused }
    }
}

/// One request a connection.
fn relay(
    mut client: TcpStream,
    target: u16,
    most_bytes: usize,
    answers: bool,
    refused: &AtomicUsize,
) -> std::io::Result<()> {
    let (mut request, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let head = loop {
        let count = client.read(&mut buffer)?;
        request.extend_from_slice(&buffer[..count]);
        match request.windows(4).position(|w| w == b"\r\n\r\n") {
            Some(end) => break String::from_utf8_lossy(&request[..end]).to_lowercase(),
            None if count == 0 => return Ok(()),
            None => {}
        }
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let whole = head.len() + 4 + length;
    while request.len() < whole {
        let count = client.read(&mut buffer)?;
        request.extend_from_slice(&buffer[..count]);
    }
    if length > most_bytes {
        refused.fetch_add(1, Ordering::SeqCst);
        if answers {
            client.write_all(b"HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
        }
        return Ok(());
    }
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    let closing = String::from_utf8_lossy(&request[..head.len()]).into_owned() + "\r\nconnection: close\r\n\r\n";
    server.write_all(closing.as_bytes())?;
    server.write_all(&request[head.len() + 4..])?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    // Otherwise the client sends its next request on a connection that is about to be closed.
    let status = answer.windows(2).position(|w| w == b"\r\n").unwrap_or(answer.len());
    client.write_all(&answer[..status])?;
    client.write_all(b"\r\nconnection: close")?;
    client.write_all(&answer[status..])
}

async fn drains_past_a_gatekeeper(answers: bool) {
    let mut keeper = None;
    let rig = through(|port| keeper.insert(Gatekeeper::start(port, 300_000, answers)).port).await;
    let keeper = keeper.unwrap();
    rig.db.sql("insert into rows select i, repeat('x', 100) from generate_series(1, 30000) i").await;
    let done = rig.worker.drain(Duration::from_secs(60)).await.unwrap();
    let refused = keeper.refused.load(Ordering::SeqCst);
    println!("answers {answers}: {done:?}, {refused} refused");
    assert_eq!((done.queued, done.dead), (0, 0));
    assert!((1..20).contains(&refused), "it learns: {refused} requests were too large");
    assert_equal(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_large_requests_gets_smaller_ones() {
    drains_past_a_gatekeeper(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_hangs_up_on_large_requests_gets_smaller_ones() {
    drains_past_a_gatekeeper(false).await;
}
