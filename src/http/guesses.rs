//! How often a secret may be guessed.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Wrong secrets in a row, by whomsoever, after which each further one waits.
const FREE_TRIES: u32 = 5;

/// So many tries are spared a minute at most.
const TRIES_A_MINUTE: f64 = 10.0;

/// Slows down who guesses the secret: some tries are free, then there are few a minute, for everybody together. Whoever
/// is signed in is not concerned.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<Option<(f64, Instant)>>);

impl Guesses {
    /// Whether one more may be tried now.
    pub(super) fn may_try(&self) -> bool {
        self.left() >= 1.0
    }

    /// One was wrong.
    pub(super) fn was_wrong(&self) {
        let left = self.left();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((left - 1.0, Instant::now()));
    }

    fn left(&self) -> f64 {
        let guesses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let most = f64::from(FREE_TRIES);
        guesses.map_or(most, |(left, at)| (left + at.elapsed().as_secs_f64() * TRIES_A_MINUTE / 60.0).min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_few() {
        let guesses = Guesses::default();
        let tried = (0..1_000).filter(|_| {
            let may = guesses.may_try();
            if may {
                guesses.was_wrong();
            }
            may
        });
        assert!((5..8).contains(&tried.count()));
    }
}
