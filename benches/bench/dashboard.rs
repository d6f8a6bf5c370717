//! The dashboard while much is drained: how soon it answers, and what open ones cost the drain.

use crate::ground::{Format, Ground, Home, Kind, Table, check};
use crate::parts::http;
use crate::report::Section;
use pgflume::config::Signatures;
use pgflume::core::secret::Secret;
use pgflume::http::auth::Auth;
use pgflume::http::{self as served, App};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SECRET: &str = "a-secret-of-the-benchmark";

/// Dashboards that are open.
const OPEN: usize = 20;

/// How often each asks, as the page does.
const EVERY: Duration = Duration::from_secs(5);

pub async fn run(ground: &Ground) -> Section {
    let changes: i64 = if ground.is_quick { 100_000 } else { 1_000_000 };
    let (mut alone, mut beside, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    ground.fill(Table::Narrow, changes / 10).await;
    for _ in 0..ground.runs() {
        alone.push(drain(ground, changes, 0, &mut Vec::new()).await);
        beside.push(drain(ground, changes, OPEN, &mut answers).await);
    }
    // Side by side, run by run: the machine is shared.
    let mut ratios: Vec<f64> = alone.iter().zip(&beside).map(|(alone, beside)| beside / alone).collect();
    ratios.sort_by(f64::total_cmp);
    answers.sort_by(f64::total_cmp);
    let at = |share: f64| answers[((answers.len() - 1) as f64 * share) as usize] * 1e3;
    let ratio = ratios[ratios.len() / 2];
    let rows = vec![
        vec!["time of the drain beside 20 dashboards, to that of one without".into(), format!("{ratio:.3} ×")],
        vec!["an answer of the dashboard meanwhile, median".into(), format!("{:.1} ms", at(0.5))],
        vec!["the same, 99 %".into(), format!("{:.1} ms", at(0.99))],
    ];
    Section {
        name: "dashboard",
        what: format!(
            "{changes} messages of one key each, drained into a file by `POST /sync` in one process with the dashboard; {OPEN} dashboards ask as the page does, every {} s. {} pairs of drains, the median of their ratios; {} answers.",
            EVERY.as_secs(),
            ground.runs(),
            answers.len()
        ),
        head: vec!["", "measured"],
        rows,
        plot: ("Time of a drain beside 20 dashboards, to that of one without".into(), vec![("without".into(), 1.0), ("with".into(), ratio)]),
    }
    .print()
}

/// Seconds of one drain, with so many dashboards open.
async fn drain(ground: &Ground, changes: i64, open: usize, answers: &mut Vec<f64>) -> f64 {
    let home = Home::new(Kind::File);
    ground.forget().await;
    let worker = ground.worker(Table::Narrow, &home.target());
    worker.drain(Duration::from_secs(60)).await.unwrap();
    ground.queue(Table::Narrow, Format::OneKey, changes).await;
    let secrets = || vec![Secret::new(SECRET)];
    let app = Arc::new(App::new(worker, Auth::new(Signatures { webhook: secrets(), nuke: secrets() })));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(served::serve(listener, app, async { drop(stopped.await) }));
    let is_done = Arc::new(AtomicBool::new(false));
    let cookie = sign_in(&address).await;
    let dashboards: Vec<_> = (0..open)
        .map(|i| {
            let (address, cookie, is_done) = (address.clone(), cookie.clone(), is_done.clone());
            tokio::task::spawn_blocking(move || {
                std::thread::sleep(EVERY.mul_f64(i as f64 / open as f64));
                let mut times = Vec::new();
                while !is_done.load(Ordering::Relaxed) {
                    let (path, began) = (format!("{address}/dashboard/data"), Instant::now());
                    let headers = [("cookie".to_owned(), cookie.clone())];
                    let answer = http::request("GET", &path, &headers, &[], Duration::from_secs(60)).unwrap();
                    assert_eq!(answer.status, 200);
                    times.push(began.elapsed().as_secs_f64());
                    let next = began + EVERY;
                    while Instant::now() < next && !is_done.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
                times
            })
        })
        .collect();
    let began = Instant::now();
    let called = address.clone();
    let calls = tokio::task::spawn_blocking(move || {
        let headers = [("x-webhook-signature".to_owned(), SECRET.to_owned())];
        loop {
            let path = format!("{called}/sync");
            let answer = http::request("POST", &path, &headers, &[], Duration::from_secs(60)).unwrap();
            if answer.status == 200 && answer.json()["queued"] == 0 {
                return;
            }
        }
    });
    calls.await.unwrap();
    let elapsed = began.elapsed().as_secs_f64();
    is_done.store(true, Ordering::Relaxed);
    for dashboard in dashboards {
        answers.extend(dashboard.await.unwrap());
    }
    drop(stop);
    serving.await.unwrap().unwrap();
    check(Table::Narrow, &home.target(), changes / 10).await;
    elapsed
}

async fn sign_in(address: &str) -> String {
    let path = format!("{address}/session");
    let answer = tokio::task::spawn_blocking(move || {
        let form = format!("secret={SECRET}");
        http::request("POST", &path, &[], form.as_bytes(), Duration::from_secs(60)).unwrap()
    });
    let answer = answer.await.unwrap();
    answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}
