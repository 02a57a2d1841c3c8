//! A threshold that keeps a promise: the share of wrong answers among kept ones stays at or under a level, with a stated
//! probability over the draw of the calibration rows. Learn-then-Test (Angelopoulos, Bates, Candès, Jordan, Lei 2021)
//! with fixed sequences: thresholds from a grid that was fixed beforehand are tested from the strictest down, each by an
//! exact binomial test; a sequence ends at its first failure. Several starts share the error probability.
//!
//! Invariant: no threshold is returned that no test supports; rows must not have been used to fit the confidence.

use crate::judge::Verdict;

/// Thresholds of the grid; they lie closer the nearer they are to 1, where the surest answers are.
const GRID: u32 = 400;
/// Where the sequences start: thresholds at which an answer's own probability of being wrong is so many times the
/// level. The first suits few sure answers, the last many.
const STARTS: [f64; 3] = [0.25, 1.0, 3.0];

/// A threshold, and what supports it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guarantee {
    /// Confidence from which answers are kept.
    pub threshold: f64,
    /// Calibration rows that it keeps.
    pub kept: usize,
    /// Wrong ones among them.
    pub wrong: usize,
}

/// Why there is no such threshold.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Unsupported {
    /// The level or the probability lies outside of 0 to 1, ends excluded.
    #[error("wrong_at_most is {level} and sure is {sure}, both must lie between 0 and 1")]
    Range {
        /// Share of wrong answers.
        level: f64,
        /// Probability of the promise.
        sure: f64,
    },
    /// Even answers without a single error would be too few.
    #[error("{rows} labelled answers, {needed} without an error are the least that can support this promise")]
    TooFew {
        /// Rows there are.
        rows: usize,
        /// Rows it takes.
        needed: usize,
    },
    /// No threshold passed its test.
    #[error("{rows} labelled answers do not support this promise at any confidence")]
    NoThreshold {
        /// Rows there are.
        rows: usize,
    },
}

/// The lowest threshold that the rows support: among answers at or above it at most `level` are wrong, and this holds
/// with probability `sure` over the draw of the rows.
///
/// # Errors
/// [`Unsupported`] where the rows cannot show it: then nothing may be kept on this promise.
pub fn guaranteed(rows: &[Verdict], level: f64, sure: f64) -> Result<Guarantee, Unsupported> {
    let inside = |x: f64| x > 0.0 && x < 1.0;
    if !inside(level) || !inside(sure) {
        return Err(Unsupported::Range { level, sure });
    }
    let error = (1.0 - sure) / STARTS.len() as f64;
    let needed = (error.ln() / (1.0 - level).ln()).ceil() as usize;
    let mut sorted: Vec<Verdict> = rows.iter().filter(|row| row.0.is_finite()).copied().collect();
    if sorted.len() < needed {
        return Err(Unsupported::TooFew { rows: sorted.len(), needed });
    }
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let wrong_until: Vec<usize> = std::iter::once(0)
        .chain(sorted.iter().scan(0, |sum, row| {
            *sum += usize::from(!row.1);
            Some(*sum)
        }))
        .collect();
    let passes = |threshold: f64| {
        let kept = sorted.partition_point(|row| row.0 >= threshold);
        let wrong = wrong_until[kept];
        (binomial_cdf(wrong, kept, level) <= error).then_some(Guarantee { threshold, kept, wrong })
    };
    let sequence = |start: &f64| grid().skip_while(|t| *t > 1.0 - start * level).map_while(passes).last();
    let best = STARTS.iter().filter_map(sequence).min_by(|a, b| a.threshold.total_cmp(&b.threshold));
    best.ok_or(Unsupported::NoThreshold { rows: sorted.len() })
}

/// The thresholds, strictest first.
fn grid() -> impl Iterator<Item = f64> {
    (1..=GRID).map(|i| 1.0 - (f64::from(i) / f64::from(GRID)).powi(2))
}

/// Probability of at most `wrong` events in `count` draws with probability `level` each, exact in the logarithm.
#[must_use]
pub fn binomial_cdf(wrong: usize, count: usize, level: f64) -> f64 {
    if wrong >= count {
        return 1.0;
    }
    let (yes, no) = (level.ln(), (1.0 - level).ln());
    let mut log_term = count as f64 * no;
    let mut log_sum = log_term;
    for k in 1..=wrong {
        log_term += ((count - k + 1) as f64 / k as f64).ln() + yes - no;
        let (high, low) = if log_term > log_sum { (log_term, log_sum) } else { (log_sum, log_term) };
        log_sum = high + (low - high).exp().ln_1p();
    }
    log_sum.exp().min(1.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    #[test]
    fn the_binomial_tail_is_exact() {
        let check = |wrong: usize, count: usize, level: f64, expect: f64| {
            let got = binomial_cdf(wrong, count, level);
            assert!((got - expect).abs() < 1e-9, "({wrong}, {count}, {level}): {got}, expected {expect}");
        };
        check(0, 10, 0.5, 0.000_976_562_5);
        check(5, 10, 0.5, 0.623_046_875);
        check(10, 10, 0.5, 1.0);
        check(0, 0, 0.1, 1.0);
        check(0, 50_000, 0.05, 0.0);
        check(2, 4, 0.25, 0.949_218_75);
    }

    #[test]
    fn what_the_rows_cannot_show_is_not_promised() {
        let right = |n: usize| vec![(1.0, true); n];
        assert!(matches!(guaranteed(&right(20), 0.05, 0.95), Err(Unsupported::TooFew { rows: 20, .. })));
        assert!(guaranteed(&right(200), 0.05, 0.95).is_ok());
        let wrong = vec![(0.9, false); 500];
        assert_eq!(guaranteed(&wrong, 0.05, 0.95), Err(Unsupported::NoThreshold { rows: 500 }));
        assert!(matches!(guaranteed(&right(200), 0.0, 0.95), Err(Unsupported::Range { .. })));
        assert!(matches!(guaranteed(&right(200), 0.05, 1.0), Err(Unsupported::Range { .. })));
        let broken = vec![(f64::NAN, true); 500];
        assert!(matches!(guaranteed(&broken, 0.05, 0.95), Err(Unsupported::TooFew { rows: 0, .. })));
    }

    /// Of a population whose confidence is true, the promise is broken in no more than its share of the draws.
    #[test]
    fn the_promise_holds_over_many_draws() {
        let mut random = StdRng::seed_from_u64(11);
        let (level, sure, trials) = (0.1, 0.95, 400);
        let mut broken = 0;
        for _ in 0..trials {
            let rows: Vec<Verdict> = (0..500)
                .map(|_| {
                    let p: f64 = random.random_range(0.5..1.0);
                    (p, random.random_bool(p))
                })
                .collect();
            // Kept at t, the answers are right with (1 + t) / 2 on average.
            if let Ok(found) = guaranteed(&rows, level, sure) {
                let risk = 1.0 - f64::midpoint(1.0, found.threshold.max(0.5));
                broken += usize::from(risk > level);
            }
        }
        // Three standard errors of a binomial over 5 %.
        assert!(broken as f64 <= 0.05 * 400.0 + 3.0 * (400.0_f64 * 0.05 * 0.95).sqrt(), "{broken} of {trials}");
    }

    proptest! {
        #[test]
        fn a_laxer_promise_never_keeps_less(raw in prop::collection::vec((0.0..1.0_f64, 0.0..1.0_f64), 100..500)) {
            let rows: Vec<Verdict> = raw.iter().map(|(p, u)| (*p, u < p)).collect();
            if let (Ok(strict), Ok(lax)) = (guaranteed(&rows, 0.1, 0.95), guaranteed(&rows, 0.1, 0.8)) {
                prop_assert!(lax.threshold <= strict.threshold);
                prop_assert!(strict.wrong as f64 <= 0.1 * strict.kept as f64);
            }
        }
    }
}
