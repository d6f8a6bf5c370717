//! What `status` knows already, as findings.

use super::feed;
use super::finding::Finding;
use super::process::Process;
use crate::core::codes::{self, Code};
use crate::operate::status::{self, Status, USUAL_LAG};
use crate::postgres::Purpose;
use crate::postgres::books::progress;
use crate::postgres::books::rebuilds::Phase;
use crate::postgres::drift::{Drift, DriftKind};
use crate::sync::Worker;

/// How the chain stands. Where the queue or its books are missing there is nothing to say beside what was `found`.
pub(super) async fn examine(worker: &Worker, process: &Process, found: &[Finding]) -> Vec<Finding> {
    if found.iter().any(|finding| [&codes::PGMQ_MISSING, &codes::SERVER_OLD].contains(&finding.code)) {
        return Vec::new();
    }
    let mut all = losses(worker).await;
    match status::status(worker).await {
        Ok(status) => {
            all.extend(of(&status, found));
            let is_copied = |name: &str| {
                let resync = status.tables.get(name).and_then(|table| table.resync.as_ref());
                resync.is_some_and(|resync| resync.phase != Phase::Done)
            };
            all.extend(feed::log(status.feed.as_ref(), is_copied, process));
            all
        }
        Err(e) => vec![Finding::new(&codes::DRAIN, worker.queue().as_str(), e.to_string()).mended_by("pgflume status")],
    }
}

/// Messages that went, and that no worker of ours has taken.
async fn losses(worker: &Worker) -> Vec<Finding> {
    let looked = async {
        let client = worker.postgres().pinned(Purpose::Doctor).await?;
        progress::look(&client, worker.queue()).await
    };
    // Where the books cannot be read, `status` says why.
    let has_losses = looked.await.is_ok_and(|snapshot| snapshot.has_losses);
    let finding = || {
        let found = "messages were removed that no worker of pgflume has taken; the next drain copies their tables";
        Finding::new(&codes::OTHER_WORKER, worker.queue().as_str(), found).mended_by("pgflume sync")
    };
    has_losses.then(finding).into_iter().collect()
}

fn of(status: &Status, found: &[Finding]) -> Vec<Finding> {
    let is_told =
        |table: &str| found.iter().any(|finding| finding.subject == table || finding.code == &codes::SCHEMA_STRANGE);
    let mut all: Vec<Finding> =
        status.drift.iter().filter(|drift| drift.kind.is_fault() && !is_told(&drift.table)).map(drifted).collect();
    for (name, table) in &status.tables {
        let is_drifted = status.drift.iter().any(|drift| drift.table == *name && drift.kind.is_fault());
        if !table.captured && !is_drifted && !is_told(name) {
            all.push(Finding::new(&codes::NOT_SET_UP, name, "no trigger marks its changes").mended_by("pgflume setup"));
        }
        let stuck = table.resync.as_ref().and_then(|resync| resync.problem.clone());
        all.extend(stuck.map(|problem| {
            Finding::new(&codes::STUCK_COPY, name, problem).mended_by(format!("pgflume resync {name}"))
        }));
    }
    if status.dead > 0 {
        let found = format!("{} of them", status.dead);
        all.push(Finding::new(&codes::DEAD_LETTERS, &status.queue, found).mended_by("pgflume dead list"));
    }
    if let Some(lag) = status.lag_seconds.filter(|lag| *lag > USUAL_LAG.as_secs_f64()) {
        all.push(Finding::new(&codes::BEHIND, &status.queue, format!("for {lag:.0} s")).mended_by("pgflume sync"));
    }
    all
}

fn drifted(drift: &Drift) -> Finding {
    let code: &'static Code = match drift.kind {
        DriftKind::CaptureMissing => &codes::TRIGGERS,
        DriftKind::TableMissing | DriftKind::TableRenamed => &codes::TABLE_MISSING,
        DriftKind::ColumnMissing => &codes::COLUMN_MISSING,
        DriftKind::KeyChanged => &codes::NO_KEY,
        DriftKind::Queue => &codes::QUEUE_UNSAFE,
        DriftKind::ReplicaDiffers => &codes::REPLICA_DIFFERS,
        _ => &codes::DRIFT,
    };
    let column = drift.column.as_ref().map(|column| format!("column {column}: ")).unwrap_or_default();
    Finding::new(code, &drift.table, format!("{column}{}", drift.problem)).mended_by(&drift.remedy)
}
