//! What a comparison costs those who wait for changes, and they it: commits to a row of another table, with
//! `serve --follow`, alone and while `pgflume verify` goes through a large one.

use crate::freshness::{self, WRITERS};
use crate::ground::{Ground, Home, Kind};
use crate::report::{Section, thousands};
use pgflume::core::schema::Schema;
use pgflume::replica::target::Target;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SCHEMA: &str = r#"{"fresh":{"primaryKey":"id","columns":{"id":"INTEGER","version":"INTEGER"}},
    "large":{"primaryKey":"id","columns":{"id":"INTEGER","a":"TEXT","b":"INTEGER","c":"TEXT"}}}"#;

/// Commits a second.
const COMMITS: u64 = 20;

pub async fn run(ground: &Ground) -> Section {
    let rows = if ground.is_quick { 100_000 } else { 1_000_000 };
    let make = format!(
        "drop table if exists fresh, large;\ncreate table fresh (id int primary key, version int);\ninsert into fresh select i, 0 from generate_series(1, {WRITERS}) i;\ncreate table large (id bigint primary key, a text, b int, c timestamptz);\ninsert into large select i, 'text ' || i, i, now() from generate_series(1, {rows}) i"
    );
    ground.sql(&make).await;
    freshness::set_up(ground, &Arc::new(Schema::parse(SCHEMA).unwrap())).await;
    let home = Home::new(Kind::File);
    let _following = freshness::follow_by(ground, &home.target(), SCHEMA).await;
    let replica = freshness::reader(&home.target()).await;
    freshness::copied(ground).await;
    let alone = verify(ground, &home.target()).await;
    let during = Duration::from_secs_f64((alone * 1.5).max(4.0));
    let (calm, _) = freshness::measure(ground, &*replica, COMMITS, during).await;
    let target = home.target();
    // Again and again while it is measured, so that no commit is made without it.
    let verifying = async {
        let (began, mut took) = (Instant::now(), Vec::new());
        while began.elapsed() < during {
            took.push(verify(ground, &target).await);
        }
        took.iter().sum::<f64>() / took.len() as f64
    };
    let ((late, _), beside) = tokio::join!(freshness::measure(ground, &*replica, COMMITS, during), verifying);
    let ms = |late: &[Duration], share: f64| late[((late.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let row = |name: &str, late: &[Duration], seconds: String| {
        vec![name.to_owned(), format!("{:.1}", ms(late, 0.5)), format!("{:.1}", ms(late, 0.99)), seconds]
    };
    Section {
        name: "beside",
        what: format!(
            "Milliseconds from a commit ({COMMITS} a second) until it is readable with `serve --follow`, alone and while `pgflume verify` goes through {} rows of another table; and the seconds that each `verify` took without commits and with them.",
            thousands(f64::from(rows))
        ),
        head: vec!["", "p50", "p99", "verify, s"],
        rows: vec![
            row("without the other", &calm, format!("{alone:.1}")),
            row("side by side", &late, format!("{beside:.1}")),
        ],
        plot: ("From commit to readable, p99 ms".into(), vec![("alone".into(), ms(&calm, 0.99)), ("beside verify".into(), ms(&late, 0.99))]),
    }
    .print()
}

/// Seconds of one whole comparison by a process of its own.
async fn verify(ground: &Ground, target: &Target) -> f64 {
    let Target::File(path) = target else { unreachable!() };
    let directory = tempfile::tempdir().unwrap();
    let schema = directory.path().join("schema.json");
    std::fs::write(&schema, SCHEMA).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgflume"));
    command.args(["verify", "large"]).env("PGMQ_URL", &ground.url).env("LIBSQL_URL", path);
    command.env("SCHEMA_FILE", &schema).env("RUST_LOG", "warn");
    let began = Instant::now();
    let done = tokio::task::spawn_blocking(move || {
        let done = command.output().unwrap();
        drop(directory);
        done
    });
    let done = done.await.unwrap();
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    began.elapsed().as_secs_f64()
}
