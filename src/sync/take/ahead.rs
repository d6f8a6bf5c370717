//! What is taken when a step opens, before it is known whether it may.

use super::intake::{Parsed, parse};
use crate::core::error::Result;
use crate::postgres::books::progress::Snapshot;
use crate::postgres::link::Opened;
use crate::postgres::queue::{self, Taken};
use crate::sync::session::Session;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// What was taken, and what it says.
pub(in crate::sync) struct Ahead {
    pub(super) parsed: Vec<(i64, Parsed)>,
    /// Most messages that were asked for.
    pub(super) limit: i64,
    pub(super) began: Instant,
    pub(super) taken: Result<queue::TakenMessages>,
    pub(super) measured: Result<()>,
}

impl Ahead {
    /// Whether something failed, so that the transaction can be asked nothing more.
    pub fn has_failed(&self) -> bool {
        self.taken.is_err() || self.measured.is_err()
    }
}

/// What a step takes first.
pub(super) fn first_take<'a>(session: &Session<'_>, paused: &'a queue::Paused<'a>) -> queue::Take<'a> {
    let worker = session.worker;
    queue::Take {
        after: i64::MIN,
        paused,
        limit: worker.take_messages.load(Ordering::Relaxed),
        keeps: worker.keeps(),
        as_bytes: false,
        most_bytes: worker.row_bytes,
    }
}

/// A step that begins with what it takes first.
pub(in crate::sync) struct OpenedAhead {
    pub snapshot: Snapshot,
    pub fingerprint: Option<Result<String>>,
    pub ahead: Ahead,
}

/// Opens a step, asks for the fingerprint if it `looks`, and takes at once; `None` where somebody has one of its locks.
pub(in crate::sync) async fn open_ahead(session: &Session<'_>, looks: bool) -> Result<Option<OpenedAhead>> {
    let paused = session.waiting();
    let (take, began) = (first_take(session, &paused), Instant::now());
    let (limit, mut parsed) = (take.limit, Vec::new());
    let mut read = |message: &Taken| parsed.push((message.msg_id, parse(session, message)));
    let opened = session.link.open(&session.wanted_sources(), looks, take, &mut read).await?;
    Ok(opened.map(|Opened { snapshot, fingerprint, taken, measured }| OpenedAhead {
        snapshot,
        fingerprint,
        ahead: Ahead { parsed, limit, began, taken, measured },
    }))
}
