//! How a step begins that follows another of its session: with what it takes first, in one round trip. Where something
//! is not as the step before left it, all of that is rolled back, and the step begins as the first one did.

use super::session::Session;
use super::step::Begun;
use super::take::ahead::{OpenedAhead, open_ahead};
use crate::core::error::Result;
use crate::core::failpoint::{self, Rule};
use crate::core::position::Head;
use crate::core::token::Seen;
use futures_util::FutureExt as _;
use futures_util::future::{self, Either};
use std::time::Duration;
use tokio::time::Instant;

/// Time for a look at the catalog on the second connection: the step holds locks meanwhile.
const LOOK_TIME: Duration = Duration::from_millis(300);

/// What the catalog's fingerprint was beside a step, and which transactions that has seen.
type Beside = Option<(String, Seen)>;

impl Session<'_> {
    /// Opens the transaction and takes; `None`, with nothing begun, where it has to begin otherwise.
    pub(super) async fn begin_ahead(&mut self) -> Result<Option<Begun>> {
        let is_likely = !self.was_busy && !self.tables.is_any_aside() && Rule::SingleFlight.holds();
        let Some(head) = self.head.clone().filter(|_| is_likely) else { return Ok(None) };
        let looks_beside = self.lookout.looks();
        let look = async { if looks_beside { self.look_beside().await } else { None } };
        // The replica is looked at meanwhile: whatever happens to it later, the batch says.
        let still_at = async {
            tokio::task::yield_now().await; // what was sent goes on its way first
            self.still_at(&head).await
        };
        let looks = future::select(Box::pin(open_ahead(self, !looks_beside)), Box::pin(future::join(look, still_at)));
        let others = self.beside.clone();
        let (opened, (beside, seen)) = match looks.await {
            Either::Left((opened, looking)) => {
                let Some(opened) = opened? else { return Ok(None) };
                others.begin();
                let looked = others.unless_waited_for(&opened.snapshot.xid, looking.map(Ok)).await?;
                (opened, looked)
            }
            Either::Right((looked, opening)) => {
                let Some(opened) = opening.await? else { return Ok(None) };
                others.begin();
                (opened, looked)
            }
        };
        failpoint::reach(failpoint::LOCKED);
        let xid = opened.snapshot.xid.clone();
        others.unless_waited_for(&xid, Box::pin(self.go_ahead_at(opened, beside, seen, head))).await
    }

    async fn look_beside(&self) -> Beside {
        let looked = async { self.other().await?.fingerprint_beside().await };
        let looked = tokio::time::timeout(LOOK_TIME, looked).await.unwrap_or(Ok(None));
        looked.unwrap_or_else(|e| {
            tracing::debug!(error = %e, "the catalog cannot be looked at on the second connection");
            None
        })
    }

    /// Goes on where nothing speaks against it.
    async fn go_ahead_at(
        &mut self,
        opened: OpenedAhead,
        beside: Beside,
        seen: Result<Option<Instant>>,
        head: Head,
    ) -> Result<Option<Begun>> {
        let OpenedAhead { snapshot, fingerprint, ahead } = opened;
        let holds = |(_, looked): &(_, Seen)| snapshot.seen.as_ref().is_some_and(|seen| looked.covers(seen));
        let fingerprint = match (fingerprint, beside.filter(holds)) {
            (Some(fingerprint), _) => Some(fingerprint?),
            (None, Some((fingerprint, _))) => Some(fingerprint),
            (None, None) => {
                self.lookout.came_too_early();
                if ahead.has_failed() { None } else { Some(self.link.fingerprint().await?) }
            }
        };
        let is_as_before = !ahead.has_failed() // which has remedies of its own
            && fingerprint.as_ref() == Some(&self.fingerprint)
            && !snapshot.has_losses
            && self.is_acknowledged(&snapshot, &head)
            && !self.is_outgrown(&snapshot);
        let Some(seen) = seen?.filter(|_| is_as_before) else {
            self.link.rollback().await?;
            return Ok(None);
        };
        (self.seen, self.notes) = (seen, snapshot.calls);
        self.read_books(&snapshot).await?;
        self.head = None; // until this step has ended well
        Ok(Some(Begun::At(Box::new(snapshot), head, Some(Box::new(ahead)))))
    }

    /// Both connections have sessions of their own: what recurs may be prepared there, and the second one looks ahead.
    pub(super) async fn claim(&mut self) -> Result<()> {
        self.link.claim();
        self.other().await?.claim();
        self.lookout.begin();
        Ok(())
    }

    /// Prepares what has recurred, on both connections. Outside of a step.
    pub(super) async fn prepare(&self) -> Result<()> {
        self.link.prepare().await?;
        if self.lookout.is_on() { self.other().await?.prepare().await } else { Ok(()) }
    }
}
