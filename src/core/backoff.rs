//! How long to wait before something is tried again: longer with each failure, up to a bound, and of random
//! length, so that those who failed together do not come back together. Takes the random number as an
//! argument and gives a time; never waits itself.

use std::time::Duration;

/// Waits that double.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// The longest wait after the first failure, and after any number of them.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most }
    }

    /// Full jitter: anything up to the bound of so many failures. For tries that somebody waits for.
    pub fn wait(&self, failures: u32, fraction: f64) -> Duration {
        self.bound(failures).mul_f64(fraction)
    }

    /// From half of that bound to all of it: for a rest that has to be one.
    pub fn rest(&self, failures: u32, fraction: f64) -> Duration {
        self.bound(failures).mul_f64(0.5 + fraction / 2.0)
    }

    fn bound(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.first.saturating_mul(doubled).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

    #[test]
    fn waits_double_up_to_the_bound_and_begin_at_nothing() {
        for (failures, millis) in [(0, 100), (1, 100), (2, 200), (3, 400), (6, 3200), (7, 5000), (u32::MAX, 5000)] {
            let bound = Duration::from_millis(millis);
            assert_eq!(BACKOFF.wait(failures, 1.0), bound, "{failures}");
            assert_eq!(BACKOFF.wait(failures, 0.0), Duration::ZERO);
            assert_eq!((BACKOFF.rest(failures, 0.0), BACKOFF.rest(failures, 1.0)), (bound / 2, bound));
        }
    }
}
