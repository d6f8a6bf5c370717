//! Follows a source that tells of changes as they come: a pass for each, over connections that are kept.

use super::passed::Passed;
use super::session::Session;
use super::settings::Pull;
use crate::core::error::Result;
use std::time::Duration;
use tokio::time::Instant;

/// After so long the connections are opened anew: what is asked of new ones only is asked again.
const KEPT: Duration = Duration::from_secs(300);

/// Why following has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It had its time.
    Over,
    /// Somebody asks for a pass.
    Asked,
    /// This source does not tell.
    Silent,
}

/// What a follower is between two passes.
pub(super) struct Follower<'a> {
    session: Session<'a>,
    opened: Instant,
}

impl Pull {
    /// Connects to both sides.
    pub(super) async fn follower(&self) -> Result<Follower<'_>> {
        let session = Session { is_following: true, ..Session::open(self).await? };
        Ok(Follower { session, opened: Instant::now() })
    }
}

impl Follower<'_> {
    /// Brings what has changed.
    pub async fn pass(&mut self) -> Result<Passed> {
        let passed = self.session.pass().await;
        let done = self.session.take_done();
        passed.map(|()| done)
    }

    /// Waits until something has changed, or why there is nothing to wait for. May be given up at any moment.
    pub async fn changed(&mut self, until: Instant) -> Result<Option<Ended>> {
        let until = until.min(self.opened + KEPT);
        if Instant::now() >= until {
            return Ok(Some(Ended::Over)); // also where something has changed: others have their turn
        }
        let left = until.saturating_duration_since(Instant::now());
        Ok(match self.session.source.changed(left).await? {
            None => Some(Ended::Silent),
            Some(false) => Some(Ended::Over),
            Some(true) => None,
        })
    }
}
