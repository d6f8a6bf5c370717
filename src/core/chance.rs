//! Where random numbers come from: the operating system, or for a simulator a seed, so that a run can be had again.

use std::sync::{Arc, Mutex, PoisonError};

/// Random numbers and names.
#[derive(Debug, Clone, Default)]
pub struct Chance(Option<Arc<Mutex<u64>>>);

impl Chance {
    /// Always the same ones, for this seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(Mutex::new(seed))))
    }

    /// A number from 0 to 1.
    pub(crate) fn fraction(&self) -> f64 {
        // The low bits of a UUID: the upper ones hold the version.
        f64::from(self.bits() as u16 & 0xfff) / f64::from(0xfff_u16)
    }

    /// A name for an epoch, a batch or a step, which nobody else has.
    pub fn token(&self) -> String {
        match &self.0 {
            None => uuid::Uuid::new_v4().simple().to_string(),
            Some(_) => format!("{:016x}{:016x}", self.bits(), self.bits()),
        }
    }

    fn bits(&self) -> u64 {
        match &self.0 {
            None => uuid::Uuid::new_v4().as_u64_pair().0,
            Some(state) => next(&mut state.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_spread_between_nothing_and_one() {
        for chance in [Chance::default(), Chance::seeded(1)] {
            let all: Vec<f64> = (0..10_000).map(|_| chance.fraction()).collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            assert!(all.iter().all(|f| (0.0..=1.0).contains(f)) && (0.45..0.55).contains(&mean), "{mean}");
        }
    }

    #[test]
    fn numbers_are_those_of_split_mix_64() {
        let mut state = 0;
        assert_eq!([next(&mut state), next(&mut state)], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn a_seed_gives_the_same_names_again_and_nothing_else_does() {
        let tokens = |chance: &Chance| [chance.token(), chance.token()];
        assert_eq!(tokens(&Chance::seeded(7)), tokens(&Chance::seeded(7)));
        assert_ne!(tokens(&Chance::seeded(7)), tokens(&Chance::seeded(8)));
        assert_ne!(tokens(&Chance::default()), tokens(&Chance::default()));
        let [a, b] = tokens(&Chance::default());
        assert!(a != b && a.len() == 32);
    }
}
