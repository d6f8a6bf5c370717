//! A token bucket: so many passes in a time, shared by all syncs of one connection.

use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// One connection's.
#[derive(Debug)]
pub struct Limiter {
    most: f64,
    per_second: f64,
    /// Tokens that are left, and as of when.
    left: Mutex<(f64, Instant)>,
}

impl Limiter {
    /// So many in this time.
    pub fn new(requests: u32, per: Duration) -> Self {
        let most = f64::from(requests.max(1));
        Self { most, per_second: most / per.as_secs_f64(), left: Mutex::new((most, Instant::now())) }
    }

    /// Waits for a token. Whoever asked first is served first.
    pub(super) async fn take(&self) {
        let mut left = self.left.lock().await;
        let now = Instant::now();
        let tokens = (left.0 + (now - left.1).as_secs_f64() * self.per_second).min(self.most);
        if tokens < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - tokens) / self.per_second);
            tokio::time::sleep(wait).await;
            *left = (0.0, now + wait);
        } else {
            *left = (tokens - 1.0, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_pass_at_once_and_the_rest_at_their_pace() {
        let limiter = Limiter::new(3, Duration::from_secs(3));
        let began = Instant::now();
        let mut times = Vec::new();
        for _ in 0..6 {
            limiter.take().await;
            times.push(began.elapsed().as_secs());
        }
        assert_eq!(times, [0, 0, 0, 1, 2, 3]);
        tokio::time::sleep(Duration::from_secs(100)).await;
        for _ in 0..3 {
            limiter.take().await;
        }
        assert_eq!(began.elapsed().as_secs(), 103, "no more than the bucket holds is saved up");
    }
}
