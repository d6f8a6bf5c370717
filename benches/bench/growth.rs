//! Whether a long queue drains as fast as a short one: after churn, beside an old snapshot, in bounded memory.

use crate::ground::{Format, Ground, Home, Kind, Table, connect};
use crate::report::{Section, median, thousands};
use pgflume::core::queue_name::DEFAULT_QUEUE;
use pgflume::replica::target::Target;
use std::process::{Command, Stdio};
use std::time::Duration;

const SHORT: i64 = 10_000;

/// Rows of the table: longer queues name them again and again.
const ROWS: i64 = 200_000;

/// Drains by `pgflume sync` to a file, in a process of its own, whose memory is read.
pub async fn run(ground: &Ground) -> Section {
    let long: &[i64] = if ground.is_quick { &[200_000, 500_000] } else { &[1_000_000, 5_000_000] };
    ground.fill(Table::Narrow, ROWS).await;
    let mut measured: Vec<(String, f64, u64)> = Vec::new();
    let mut short = Vec::new();
    let mut peak = 0;
    for _ in 0..2 * ground.runs() {
        let (rate, memory) = sync(ground, SHORT).await;
        short.push(rate);
        peak = peak.max(memory);
    }
    measured.push((format!("{} queued", thousands(SHORT as f64)), median(short), peak));
    for queued in long {
        let (rate, memory) = sync(ground, *queued).await;
        measured.push((format!("{} queued", thousands(*queued as f64)), rate, memory));
    }
    let queue = format!("pgmq.q_{DEFAULT_QUEUE}");
    ground.sql(&format!("alter table {queue} set (autovacuum_enabled = off)")).await;
    for is_held in [false, true] {
        let other = connect(&ground.url).await;
        if is_held {
            other.batch_execute("begin isolation level repeatable read; select count(*) from pg_class").await.unwrap();
        }
        ground.forget().await;
        ground.sql(&format!("insert into {queue} (vt, message) select now(), '{{}}' from generate_series(1, {}) i;\ndelete from {queue} where message = '{{}}'", long[0])).await;
        let (rate, memory) =
            measure(ground, ROWS, || async { ground.queue(Table::Narrow, Format::OneKey, ROWS).await }).await;
        let beside = if is_held { ", beside a snapshot that is older" } else { "" };
        let name = format!("{} queued, after {} dead ones{beside}", thousands(ROWS as f64), thousands(long[0] as f64));
        measured.push((name, rate, memory));
    }
    ground.sql(&format!("alter table {queue} reset (autovacuum_enabled);\nvacuum {queue}")).await;
    let base = measured[0].1;
    Section {
        name: "growth",
        what: format!(
            "Messages of one key drained to a file by `pgflume sync`, messages a second without the start of the process; the first is the median of {} runs.",
            2 * ground.runs()
        ),
        head: vec!["queue", "messages/s", "of the first", "peak memory, MB"],
        rows: measured
            .iter()
            .map(|(name, rate, memory)| vec![name.clone(), thousands(*rate), format!("{:.2}", rate / base), memory.to_string()])
            .collect(),
        plot: ("Drain by length of the queue, messages a second".into(), measured.into_iter().map(|(name, rate, _)| (name, rate)).collect()),
    }
    .print()
}

async fn sync(ground: &Ground, queued: i64) -> (f64, u64) {
    measure(ground, queued, || async {
        ground.forget().await;
        ground.queue(Table::Narrow, Format::OneKey, queued).await;
    })
    .await
}

/// Messages a second, and the megabytes that the process had at its peak.
async fn measure<F: Future<Output = ()>>(ground: &Ground, queued: i64, fill: impl FnOnce() -> F) -> (f64, u64) {
    let home = Home::new(Kind::File);
    let target = home.target();
    fill().await;
    let Target::File(path) = &target else { unreachable!() };
    let schema = path.with_extension("json");
    std::fs::write(&schema, Table::Narrow.json()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pgflume"))
        .arg("sync")
        .env("PGMQ_URL", &ground.url)
        .env("LIBSQL_URL", path)
        .env("SCHEMA_FILE", &schema)
        .env("RUST_LOG", "error")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut peak_kb = 0;
    loop {
        let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        peak_kb = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0).max(peak_kb);
        if child.try_wait().unwrap().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(done["processed"].as_i64().unwrap() >= queued && done["queued"] == 0, "{done}");
    (done["processed"].as_f64().unwrap() / done["elapsed_ms"].as_f64().unwrap() * 1e3, peak_kb / 1024)
}
