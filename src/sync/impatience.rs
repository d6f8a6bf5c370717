//! When clients are told of what a step brought though more is on the queue (`FEED_PATIENCE`): what they hold then is no
//! moment of the source. No IO.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// For how long clients have heard nothing.
#[derive(Debug, Default)]
pub(super) struct Impatience {
    /// After which time; `None`: never.
    after: Option<Duration>,
    /// Since the first step that was no cut.
    since: Mutex<Option<Instant>>,
}

impl Impatience {
    /// After so long.
    pub fn new(after: Option<Duration>) -> Self {
        Self { after, since: Mutex::default() }
    }

    /// Clients were told.
    pub fn calm(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A step ended that left something: whether they have waited for too long.
    pub fn is_at_end(&self) -> bool {
        let Some(after) = self.after else { return false };
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now).elapsed() >= after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_after_its_time_and_begins_anew_with_each_cut() {
        let (never, some) = (Impatience::default(), Impatience::new(Some(Duration::from_secs(5))));
        assert!(!some.is_at_end() && !never.is_at_end());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(some.is_at_end() && !never.is_at_end());
        some.calm();
        assert!(!some.is_at_end());
    }
}
