//! How long is waited: for an answer, and before the next try.

use crate::core::backoff::Backoff;
use crate::core::chance::Chance;
use crate::core::error::{Error, Result};
use std::time::Duration;

/// Time for Postgres and the replica to answer before and after the steps.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Wait between tries.
pub(super) const BACK_OFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(6));

/// Longest time that a server may ask for and that a call still waits.
const MOST_WAIT: Duration = Duration::from_secs(5);

/// A short wait of random length, so that two who wait do not meet again and again.
pub(super) fn gap(chance: &Chance) -> Duration {
    Duration::from_millis(2) + Duration::from_millis(15).mul_f64(chance.fraction())
}

/// How long to wait before the next try; `None` where none is worth it: somebody has to act first, no time is
/// left, or the other side wants to be left alone for longer than a caller should wait.
pub(super) fn wait_after(error: &Error, attempt: u32, left: Duration, chance: &Chance) -> Option<Duration> {
    if !error.is_passing() || left.is_zero() {
        return None;
    }
    let asked = error.retry_after().unwrap_or_default();
    (asked <= MOST_WAIT.min(left)).then(|| BACK_OFF.wait(attempt, chance.fraction()).max(asked).min(left))
}

/// Gives up on what does not answer.
pub(super) async fn answered<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || {
        Error::retry(format!(
            "Postgres or the replica gives no answer within {} s; it will be tried again",
            ANSWER_TIMEOUT.as_secs()
        ))
    };
    tokio::time::timeout(ANSWER_TIMEOUT, work).await.unwrap_or_else(|_| Err(late()))
}
