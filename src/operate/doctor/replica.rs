//! The replica: whose it is, what others have added to it, and the disk that it lies on.

use super::feed;
use super::finding::{Finding, Fix};
use crate::core::codes;
use crate::core::error::Result;
use crate::core::value::Cell;
use crate::postgres::Client;
use crate::postgres::books::progress;
use crate::replica::inventory::Inventory;
use crate::replica::target::Target;
use crate::replica::{Replica, address};
use crate::sync::{Worker, pairing};
use rustix::fs::{Access, access, statvfs};
use std::path::Path;
use std::time::{Duration, Instant};

/// A round trip of this length is slow.
const SLOW: Duration = Duration::from_millis(300);

/// What sqld takes as one value, at most; and SQLite as it is compiled, with room for the row around it.
const MOST_REMOTE_BYTES: i64 = 5 * 1024 * 1024;

/// See [`MOST_REMOTE_BYTES`].
const MOST_FILE_BYTES: i64 = 900_000_000;

/// Looks at it; with Postgres' books, also whose it is.
pub(super) async fn examine(worker: &Worker, client: Option<&Client>, least_room: u64) -> Vec<Finding> {
    let mut found = limits(worker);
    if let Target::File(path) = worker.target() {
        found.extend(file(path, least_room));
    }
    match open(worker).await {
        Ok(None) => {}
        Ok(Some((replica, there))) => match look(worker, client, &replica, &there).await {
            Ok(more) => found.extend(more),
            Err(e) => found.push(down(worker.target(), &e)),
        },
        Err(_) if found.iter().any(|finding| finding.code == &codes::FILE) => {}
        Err(e) => found.push(down(worker.target(), &e)),
    }
    found
}

fn down(target: &Target, error: &impl std::fmt::Display) -> Finding {
    Finding::new(&codes::TARGET_DOWN, "LIBSQL_URL", error.to_string()).mended_by(seen_by("-i", target))
}

/// What shows how the replica answers.
fn seen_by(options: &str, target: &Target) -> String {
    match target {
        Target::Remote { url, .. } => format!("curl {options} {}", quoted(&format!("{url}/health"))),
        Target::File(path) => format!("ls -l {}", quoted(&path.display().to_string())),
        Target::Given(_) => "pgflume status".into(),
    }
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Runs SQL that mends it.
pub(super) async fn run(worker: &Worker, sql: &str) -> Result<()> {
    let Some(replica) = Replica::existing(worker.target()).await? else { return Ok(()) };
    replica.query(sql, Vec::new()).await.map(drop)
}

async fn open(worker: &Worker) -> Result<Option<(Replica, Inventory)>> {
    let Some(replica) = Replica::existing(worker.target()).await? else { return Ok(None) };
    let there = replica.inventory_read().await?;
    Ok(Some((replica, there)))
}

fn limits(worker: &Worker) -> Vec<Finding> {
    let most = match worker.target() {
        Target::Remote { .. } => MOST_REMOTE_BYTES,
        Target::File(_) | Target::Given(_) => MOST_FILE_BYTES,
    };
    // The default is meant for both, and a row may have many values: only what somebody has raised is told.
    let is_raised = worker.row_bytes() > crate::postgres::catalog::DEFAULT_ROW_BYTES;
    let found = || format!("it is {} bytes, and one value of the replica holds {most} at most", worker.row_bytes());
    let finding = || Finding::new(&codes::TARGET_LIMITS, "MAX_ROW_BYTES", found()).mended_by("MAX_ROW_BYTES=64MiB");
    (is_raised && worker.row_bytes() > most).then(finding).into_iter().collect()
}

pub(super) fn file(path: &Path, least_room: u64) -> Vec<Finding> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let shown = path.display().to_string();
    if !folder.is_dir() {
        let command = format!("mkdir -p {}", folder.display());
        return vec![Finding::new(&codes::FILE, shown, "its folder does not exist").mended_by(command)];
    }
    let mut found = Vec::new();
    let is_denied = |place: &Path| access(place, Access::WRITE_OK).is_err();
    if is_denied(folder) || path.exists() && is_denied(path) {
        let command = format!("chown \"$(id -u)\" {} {shown}", folder.display());
        found.push(
            Finding::new(&codes::FILE, shown.clone(), "this user may not write to it or its folder").mended_by(command),
        );
    }
    if let Ok(room) = statvfs(folder).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
        && room < least_room
    {
        found.push(
            Finding::new(&codes::DISK, shown, format!("{} MiB are left", room >> 20))
                .mended_by(format!("df -h {}", folder.display())),
        );
    }
    found
}

async fn look(worker: &Worker, client: Option<&Client>, replica: &Replica, there: &Inventory) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let began = Instant::now();
    replica.ping().await?;
    if began.elapsed() > SLOW {
        let took = began.elapsed().as_millis();
        let command = seen_by("-s -o /dev/null -w '%{time_connect} %{time_total}\\n'", worker.target());
        let said = format!("an empty question took {took} ms");
        found.push(Finding::new(&codes::SLOW_TARGET, "LIBSQL_URL", said).mended_by(command));
    }
    if let Err(e) = there.check(worker.schema()) {
        found.push(Finding::new(&codes::REPLICA_DIFFERS, "schema.json", e.to_string()).mended_by("pgflume setup"));
    }
    for stranger in replica.strangers(worker.schema(), there).await? {
        found.push(match stranger.drop {
            Some(sql) if stranger.code == &codes::REPLICA_UNIQUE => {
                Finding::new(stranger.code, stranger.table, stranger.what).fixed_by(Fix::Replica(sql))
            }
            Some(sql) => Finding::new(stranger.code, stranger.table, stranger.what).mended_by(sql),
            None => Finding::new(stranger.code, stranger.table, stranger.what).mended_by("pgflume nuke"),
        });
    }
    found.extend(feed::tables(worker.schema(), there));
    if matches!(worker.target(), Target::File(_)) {
        found.extend(journal(replica).await?);
    }
    if let Some(client) = client {
        found.extend(owner(worker, client, replica, there).await);
    }
    Ok(found)
}

async fn journal(replica: &Replica) -> Result<Option<Finding>> {
    let rows = replica.query("PRAGMA journal_mode", Vec::new()).await?;
    let mode = match rows.first().map(Vec::as_slice) {
        Some([Cell::Text(mode)]) => mode.clone(),
        _ => return Ok(None),
    };
    let finding = || {
        Finding::new(&codes::REPLICA_JOURNAL, "LIBSQL_URL", format!("its journal mode is {mode}"))
            .fixed_by(Fix::Replica("PRAGMA journal_mode = WAL".into()))
    };
    Ok((mode != "wal").then(finding))
}

/// Whose it is, by what Postgres remembers.
async fn owner(worker: &Worker, client: &Client, replica: &Replica, there: &Inventory) -> Option<Finding> {
    // Where the queue is not there, that was told.
    let snapshot = progress::look(client, worker.queue()).await.ok()?;
    let looked = pairing::look(&snapshot, &address::of(worker.target()), Some((replica, there))).await;
    looked.err().map(|e| {
        Finding::new(&codes::REPLICA_OTHERS, "LIBSQL_URL", e.to_string())
            .mended_by("LIBSQL_URL=file:another.db pgflume sync")
    })
}
