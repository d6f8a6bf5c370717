//! A small generator (splitmix64): the same schedule for the same seed, everywhere.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Shared by all that runs in one schedule: who asks first, gets the next number.
pub struct Dice(Mutex<u64>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// True in one of `n` cases; never for zero.
    pub fn one_in(&self, n: u64) -> bool {
        n != 0 && self.next().is_multiple_of(n)
    }

    /// One of these.
    pub fn of<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Any time up to `most`, short ones as often as long ones.
    pub fn time(&self, most: Duration) -> Duration {
        let bits = self.below(16) as u32;
        most.mul_f64((self.next() as u16) as f64 / 65536.0) / 2_u32.pow(bits / 2)
    }
}
