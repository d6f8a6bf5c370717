//! The same drain when sqld is far away: each byte arrives later, in each direction by half the round trip.

use crate::ground::{Format, Ground, Home, Kind, Table};
use crate::report::{Section, median, thousands};
use pgflume::replica::target::Target;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const ROUND_TRIPS_MS: [u64; 4] = [0, 1, 10, 50];

/// Drains marks over each distance, side by side.
pub async fn run(ground: &Ground) -> Section {
    let changes: i64 = if ground.is_quick { 50_000 } else { 200_000 };
    ground.fill(Table::Narrow, changes).await;
    let mut seconds = vec![Vec::new(); ROUND_TRIPS_MS.len()];
    for _ in 0..ground.runs() {
        for (at, ms) in ROUND_TRIPS_MS.into_iter().enumerate() {
            seconds[at].push(drain(ground, changes, Duration::from_millis(ms)).await);
        }
    }
    let rates: Vec<f64> = seconds.into_iter().map(|taken| changes as f64 / median(taken)).collect();
    let measured: Vec<(String, f64)> = ROUND_TRIPS_MS.iter().map(|ms| format!("{ms} ms")).zip(rates).collect();
    let near = measured[0].1;
    Section {
        name: "roundtrip",
        what: format!(
            "{} changes, 500 keys a message, drained to sqld over a connection with so much round trip, changes a second, medians of {} runs side by side.",
            thousands(changes as f64),
            ground.runs()
        ),
        head: vec!["round trip", "changes/s", "of that at 0 ms"],
        rows: measured
            .iter()
            .map(|(name, rate)| vec![name.clone(), thousands(*rate), format!("{:.2}", rate / near)])
            .collect(),
        plot: ("Drain over a distance, changes a second".into(), measured),
    }
    .print()
}

async fn drain(ground: &Ground, changes: i64, round_trip: Duration) -> f64 {
    let home = Home::new(Kind::Sqld);
    let Target::Remote { url, token } = home.target() else { unreachable!() };
    let near = url.rsplit(':').next().unwrap().parse().unwrap();
    let far = distance(near, round_trip / 2).await;
    let target = Target::Remote { url: format!("http://127.0.0.1:{far}"), token };
    ground.drain(Table::Narrow, Format::ManyKeys, &target, changes, changes).await
}

/// The port of a relay to `port` that delivers everything so much later, at full speed.
async fn distance(port: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { continue };
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(relay(near_in, far_out, delay));
            tokio::spawn(relay(far_in, near_out, delay));
        }
    });
    own
}

async fn relay(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin + Send + 'static,
    delay: Duration,
) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((due, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(due.into()).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        to.shutdown().await.ok();
    });
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if sender.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
            return;
        }
    }
}
