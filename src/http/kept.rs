//! An answer that takes work and that anybody may ask for: made by one caller at a time, for all who ask
//! meanwhile, so that a crowd costs no more than one.

use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The last answer and when it was begun.
pub(super) struct Kept<T> {
    last: Mutex<Option<(Instant, T)>>,
    age: Duration,
}

impl<T: Clone> Kept<T> {
    /// Answers are given again until `age` has passed since they were begun. With none, only to those who
    /// asked before that.
    pub(super) fn new(age: Duration) -> Self {
        Self { last: Mutex::new(None), age }
    }

    /// The last answer if it is good enough, else a new one.
    pub(super) async fn get(&self, make: impl Future<Output = T>) -> T {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((begun, answer)) = last.as_ref()
            && *begun + self.age >= asked
        {
            return answer.clone();
        }
        let begun = Instant::now();
        let answer = make.await;
        *last = Some((begun, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::time::sleep;

    #[tokio::test]
    async fn a_crowd_shares_an_answer_that_was_begun_after_it_asked() {
        let (kept, made) = (Kept::new(Duration::ZERO), AtomicU32::new(0));
        let ask = || {
            kept.get(async {
                sleep(Duration::from_millis(20)).await;
                made.fetch_add(1, Ordering::Relaxed) + 1
            })
        };
        let crowd = futures_util::future::join_all((0..100).map(|_| ask())).await;
        assert!(crowd[1..].iter().all(|answer| *answer == 2), "the first asked for itself: {crowd:?}");
        assert_eq!(ask().await, 3, "later, it is asked anew");
    }
}
