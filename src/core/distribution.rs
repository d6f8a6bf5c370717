//! How long things took: counts by upper bounds, as Prometheus' histograms have them.

/// Upper bounds in seconds; beyond the last is everything else.
pub const BOUNDS: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0];

/// Durations in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Distribution {
    /// How many were no longer than each bound, and longer than the one before; beyond the last bound.
    pub counts: [u64; BOUNDS.len() + 1],
    /// Their sum.
    pub sum: f64,
}

impl Distribution {
    /// One more.
    pub fn observe(&mut self, seconds: f64) {
        let seconds = seconds.max(0.0);
        self.counts[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += seconds;
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What came since an earlier state.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut new = *self;
        new.counts.iter_mut().zip(before.counts).for_each(|(now, then)| *now = now.saturating_sub(then));
        new.sum = (self.sum - before.sum).max(0.0);
        new
    }

    /// The bound that so large a share was within; `None` of nothing, and beyond the last bound that one.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = self.count() as f64 * share;
        let mut sum = 0.0;
        let within = self.counts.iter().position(|count| {
            sum += *count as f64;
            sum > 0.0 && sum >= wanted
        })?;
        BOUNDS.get(within).or(BOUNDS.last()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_counts_below_the_first_bound_that_holds_it() {
        let mut all = Distribution::default();
        for seconds in [0.0005, 0.001, 0.002, 4.0, 7200.0, -1.0] {
            all.observe(seconds);
        }
        assert_eq!((all.counts[0], all.counts[1], all.counts[11], all.counts[17], all.count()), (3, 1, 1, 1, 6));
        assert_eq!(
            (all.quantile(0.5), all.quantile(0.6), all.quantile(1.0)),
            (Some(0.001), Some(0.0025), Some(3600.0))
        );
        assert_eq!((Distribution::default().quantile(0.5), all.since(&all).count()), (None, 0));
    }
}
