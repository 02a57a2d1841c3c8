//! Times of millions of messages in a fixed room: buckets that grow by a 32nd of an octave, so that a percentile is at
//! most 2.2 % above the truth.

/// Buckets per doubling.
const PER_OCTAVE: f64 = 32.0;
/// Up to 2^40 microseconds, twelve days.
const BUCKETS: usize = 40 * 32;

/// Times in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0 }
    }
}

impl Histogram {
    /// Counts a time.
    pub(crate) fn add(&mut self, us: u64) {
        let bucket = (PER_OCTAVE * (us.max(1) as f64).log2()).ceil() as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.count += 1;
    }

    /// The upper end of the bucket in which the nearest rank lies, in microseconds; no number of nothing.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let rank = ((percent / 100.0 * self.count as f64).ceil() as u64).max(1);
        let mut below = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= rank {
                return (bucket as f64 / PER_OCTAVE).exp2();
            }
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_a_little_above_the_truth() {
        let mut histogram = Histogram::default();
        assert!(histogram.percentile(50.0).is_nan());
        (1..=10_000).for_each(|us| histogram.add(us));
        for (percent, truth) in [(50.0, 5_000.0), (99.0, 9_900.0), (100.0, 10_000.0), (0.0, 1.0)] {
            let got = histogram.percentile(percent);
            assert!(got >= truth * 0.9999 && got <= truth * 1.022, "p{percent} is {got}, {truth} is true");
        }
    }
}
