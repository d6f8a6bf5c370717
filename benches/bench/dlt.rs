//! The same table pulled by pgflume and by dlt, the library that most scripts of this kind stand on: a process a run, as
//! cron would start it. Needs `DLT_PYTHON`, a Python that has it (`make bench-dlt`).

use crate::ground::Ground;
use crate::report::{Section, median, thousands};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Changed rows.
const CHANGED: u32 = 10_000;

const RUNS: u32 = 3;

pub async fn run(ground: &Ground) -> Section {
    let rows: u32 = if ground.is_quick { 50_000 } else { 200_000 };
    ground
        .sql(&format!(
            "drop table if exists stamped;\ncreate table stamped as select i::bigint as id, 'name ' || i as name, 'user' || i || '@example.org' as email, i / 8.0::double precision as amount, i % 2 = 0 as flag, 0 as version, timestamptz '2024-01-01' + i * interval '1 s' as created_at, timestamptz '2024-02-01' + i * interval '1 s' as updated_at from generate_series(1, {rows}) i;\nalter table stamped add primary key (id);\nvacuum analyze stamped"
        ))
        .await;
    let (mut first, mut changed): ([Vec<f64>; 3], [Vec<f64>; 3]) = Default::default();
    for i in 0..RUNS {
        let home = tempfile::tempdir().unwrap();
        let file = serde_json::json!({
            "connections": {"source": {"url": ground.url}, "copy": {"url": "file:pgflume.db"}},
            "syncs": {"bench": {"from": "source", "to": "copy", "tables": ["stamped"]}},
        });
        std::fs::write(home.path().join("pgflume.json"), file.to_string()).unwrap();
        let commands =
            || [ours(home.path()), theirs(ground, home.path(), "sqlalchemy"), theirs(ground, home.path(), "pyarrow")];
        for (times, command) in first.iter_mut().zip(commands()) {
            times.push(timed(command));
        }
        let step = rows / CHANGED;
        let update = "update stamped set version = version + 1, updated_at = clock_timestamp() where id %";
        ground.sql(&format!("{update} {step} = {i}")).await;
        for (times, command) in changed.iter_mut().zip(commands()) {
            times.push(timed(command));
        }
    }
    ground.sql("drop table stamped").await;
    let row = |what: &str, times: [Vec<f64>; 3]| {
        let [ours, plain, arrow] = times.map(median);
        let ratio = |theirs: f64| format!("{theirs:.2} ({:.0} ×)", theirs / ours);
        (ours, plain, arrow, vec![what.to_owned(), format!("{ours:.2}"), ratio(plain), ratio(arrow)])
    };
    let (ours, plain, arrow, copied) = row("first copy", first);
    let (.., brought) = row(&format!("{} changed rows", thousands(f64::from(CHANGED))), changed);
    let plot = vec![
        ("first copy, pgflume".into(), ours),
        ("first copy, dlt".into(), plain),
        ("first copy, dlt by pyarrow".into(), arrow),
    ];
    Section {
        name: "dlt",
        what: format!(
            "Seconds of whole processes that pull a table of {} rows of eight columns into SQLite, medians of {RUNS}: `pgflume sync`, and dlt 1.31.0 by `updated_at`, merging by key, which its replica has (`create_primary_keys`), by its own way to read and by its `pyarrow` backend (`benches/dlt/pull.py`). dlt learns of no deletes.",
            thousands(f64::from(rows))
        ),
        head: vec!["", "pgflume", "dlt", "dlt, pyarrow"],
        rows: vec![copied, brought],
        plot: ("A table pulled, s".into(), plot),
    }
    .print()
}

fn ours(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.args(["sync", "bench"]).current_dir(home).env("RUST_LOG", "warn");
    command
}

fn theirs(ground: &Ground, home: &Path, backend: &str) -> Command {
    let python = std::env::var("DLT_PYTHON")
        .map_err(|_| "DLT_PYTHON names a Python that has dlt: use `make bench-dlt`")
        .unwrap();
    let mut command = Command::new(python);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/dlt/pull.py");
    let state = home.join(backend);
    std::fs::create_dir_all(&state).unwrap();
    command.arg(script).arg(&ground.url).arg(state).args(["stamped", "updated_at", backend]);
    command.env("RUNTIME__DLTHUB_TELEMETRY", "false").env("RUNTIME__LOG_LEVEL", "ERROR");
    command
}

fn timed(mut command: Command) -> f64 {
    let began = Instant::now();
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    began.elapsed().as_secs_f64()
}
