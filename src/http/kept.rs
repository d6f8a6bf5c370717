//! An answer that takes work and that anybody may ask for: made once for all who ask meanwhile and kept for a
//! while, so that a crowd costs no more than one caller.

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// An answer and when it was ready; `None` if the task that made it broke off.
type Making<T> = Shared<BoxFuture<'static, Option<(Instant, T)>>>;

/// The last answer, or the one that is being made.
pub(super) struct Kept<T> {
    last: Mutex<Option<Making<T>>>,
    /// The one before, for [`get_within`](Self::get_within).
    before: Mutex<Option<(Instant, T)>>,
    age: Duration,
}

/// What there is to say within a short time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Soon<T> {
    /// An answer.
    Known(T),
    /// It is being made still.
    Making,
    /// The task that made it broke off.
    Broken,
}

impl<T: Clone + Send + Sync + 'static> Kept<T> {
    /// Answers are given again until `age` has passed since they were ready.
    pub(super) fn new(age: Duration) -> Self {
        Self { last: Mutex::new(None), before: Mutex::new(None), age }
    }

    /// The last answer if it is good enough, else a new one. Who goes away while it is made stops nothing, so that
    /// those who ask and hang up cost no more either.
    pub(super) async fn get<F>(&self, make: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let making = self.making(make);
        making.await.map(|(_, answer)| answer)
    }

    /// The answer, waited for so long; then the one before, if that is no older than three times what it should be.
    pub(super) async fn get_within<F>(&self, patience: Duration, make: impl FnOnce() -> F) -> Soon<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let known = self.known();
        match tokio::time::timeout(patience, self.making(make)).await {
            Ok(Some((_, answer))) => Soon::Known(answer),
            Ok(None) => Soon::Broken,
            Err(_) => match known.filter(|(ready, _)| ready.elapsed() <= 3 * self.age) {
                Some((_, answer)) => Soon::Known(answer),
                None => Soon::Making,
            },
        }
    }

    /// The last answer that was ready, and when.
    fn known(&self) -> Option<(Instant, T)> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = last.as_ref().and_then(made).flatten();
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_some() {
            *before = ready;
        }
        before.clone()
    }

    /// The next one who asks gets a new answer.
    pub(super) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn making<F>(&self, make: impl FnOnce() -> F) -> Making<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(making) = last.as_ref()
            && self.is_good(making)
        {
            return making.clone();
        }
        let answer = make();
        let task = tokio::spawn(async move {
            let answer = answer.await;
            (Instant::now(), answer)
        });
        let making = task.map(Result::ok).boxed().shared();
        *last = Some(making.clone());
        making
    }

    fn is_good(&self, making: &Making<T>) -> bool {
        match made(making) {
            None => true,
            Some(done) => done.is_some_and(|(ready, _)| ready.elapsed() < self.age),
        }
    }
}

/// The answer, if it is ready: by asking, because nobody else may wait for it.
fn made<T: Clone>(making: &Making<T>) -> Option<Option<(Instant, T)>> {
    making.peek().cloned().or_else(|| making.clone().now_or_never())
}

/// Answers by a name, such as a sync's.
pub(super) struct KeptBy<T>(Mutex<BTreeMap<String, Arc<Kept<T>>>>);

impl<T> Default for KeptBy<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> KeptBy<T> {
    /// The answer of that name, which is kept for `age`.
    pub(super) fn of(&self, name: &str, age: Duration) -> Arc<Kept<T>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(name.to_owned()).or_insert_with(|| Arc::new(Kept::new(age))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    struct Slow {
        kept: Kept<u32>,
        made: Arc<AtomicU32>,
        go: Arc<Notify>,
    }

    impl Slow {
        fn new(age: Duration) -> Self {
            Self { kept: Kept::new(age), made: Arc::default(), go: Arc::default() }
        }

        async fn ask(&self) -> Option<u32> {
            let (made, go) = (self.made.clone(), self.go.clone());
            let make = async move {
                go.notified().await;
                made.fetch_add(1, Ordering::Relaxed) + 1
            };
            self.kept.get(|| make).await
        }
    }

    #[tokio::test]
    async fn a_crowd_shares_an_answer_which_is_kept() {
        let slow = Slow::new(Duration::from_secs(3600));
        let crowd = futures_util::future::join_all((0..100).map(|_| slow.ask()));
        let (crowd, ()) = tokio::join!(crowd, async { slow.go.notify_one() });
        assert!(crowd.iter().all(|answer| *answer == Some(1)), "{crowd:?}");
        assert_eq!(slow.ask().await, Some(1), "kept");
        let fresh = Slow::new(Duration::ZERO);
        for expected in 1..3 {
            fresh.go.notify_one();
            assert_eq!(fresh.ask().await, Some(expected), "not kept");
        }
    }

    #[tokio::test]
    async fn callers_who_go_away_neither_stop_it_nor_begin_it_anew() {
        let slow = Slow::new(Duration::from_secs(3600));
        for _ in 0..100 {
            assert!(slow.ask().now_or_never().is_none());
        }
        slow.go.notify_one();
        assert_eq!(slow.ask().await, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_slow_to_make_is_answered_by_the_one_before_while_that_is_young() {
        let (age, patience) = (Duration::from_secs(4), Duration::from_millis(25));
        let (kept, go) = (Arc::new(Kept::new(age)), Arc::new(Notify::new()));
        let slow = || {
            let go = go.clone();
            async move {
                go.notified().await;
                2
            }
        };
        assert_eq!(kept.get_within(patience, slow).await, Soon::Making, "nothing is known");
        kept.forget();
        assert_eq!(kept.get_within(patience, || async { 1 }).await, Soon::Known(1));
        tokio::time::advance(age).await;
        for _ in 0..3 {
            assert_eq!(kept.get_within(patience, slow).await, Soon::Known(1), "the one before");
        }
        tokio::time::advance(3 * age).await;
        assert_eq!(kept.get_within(patience, slow).await, Soon::Making, "as of long ago");
        go.notify_waiters(); // the one that is forgotten, too
        assert_eq!(kept.get(|| async { panic!("it is being made") }).await, Some(2));
        // After a night the first look is no older than the others.
        tokio::time::advance(1000 * age).await;
        assert_eq!(kept.get_within(patience, || async { 3 }).await, Soon::Known(3));
        kept.forget();
        assert_eq!(kept.get_within(patience, || async { panic!("as a fault would") }).await, Soon::Broken);
    }

    #[tokio::test]
    async fn one_that_breaks_off_is_made_anew() {
        let kept = Kept::new(Duration::from_secs(3600));
        assert_eq!(kept.get(|| async { panic!("as a fault would") }).await, None);
        assert_eq!(kept.get(|| async { 7 }).await, Some(7));
    }
}
