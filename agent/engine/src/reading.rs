//! What one row of logits says: the best token, the runner-up, log-sum-exp and entropy, in one pass.
//!
//! The row is walked in blocks that stay in the first-level cache, with sums kept relative to the largest logit so far;
//! the exponential is a polynomial that compilers turn into vector code, exact to about 1e-7.

use llguidance::toktrie::SimpleVob;

/// Logits per block, in elements: 1 KiB, well inside the smallest first-level cache.
const BLOCK: usize = 256;
/// Sums that run beside each other, so that they fit vector registers.
const LANES: usize = 16;
/// Below this distance from the largest logit a token counts as this unlikely: e^-87 is the least normal f32.
const FLOOR: f32 = -87.0;

/// What the choice of a token left beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Beside {
    /// By how much its logit is larger than that of the next allowed one, at least.
    pub(crate) lead: f32,
    /// Probability of what was forbidden, 0 to 1.
    pub(crate) removed: f64,
}

/// What a row of logits says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reading {
    /// The most likely token, the first of equals.
    pub(crate) best: usize,
    best_logit: f32,
    second_logit: f32,
    log_sum_exp: f64,
    /// Entropy of the distribution, in nats.
    pub(crate) entropy: f64,
}

impl Reading {
    /// Reads a row; none when it holds a NaN or an infinity, or fewer than two tokens.
    pub(crate) fn of(logits: &[f32]) -> Option<Self> {
        let mut sums = Sums::new();
        for (index, block) in logits.chunks(BLOCK).enumerate() {
            sums.add(index * BLOCK, block);
        }
        sums.finish()
    }

    /// Natural logarithm of the probability of a token with this logit.
    pub(crate) fn logprob(&self, logit: f32) -> f64 {
        (f64::from(logit) - self.log_sum_exp).min(0.0)
    }

    /// The largest logit less the second: the log-odds of the best token against the next.
    pub(crate) fn lead(&self) -> f32 {
        self.best_logit - self.second_logit
    }

    /// Log-sum-exp of the raw logits.
    pub(crate) fn energy(&self) -> f64 {
        self.log_sum_exp
    }

    /// Probability of all tokens that a mask forbids, 0 to 1.
    pub(crate) fn removed(&self, logits: &[f32], mask: &SimpleVob) -> f64 {
        let mut mass = 0.0_f64;
        let mut add = |token: usize| {
            mass += logits.get(token).map_or(0.0, |logit| f64::from(exp(floored(logit - self.best_logit))));
        };
        // Whichever side has fewer tokens is walked.
        let allowed = mask.num_set();
        if 2 * allowed > logits.len() {
            mask.iter_unset_entries(&mut add)
        } else {
            mask.iter_set_entries(&mut add)
        }
        let walked = mass * (f64::from(self.best_logit) - self.log_sum_exp).exp();
        if 2 * allowed > logits.len() { walked.clamp(0.0, 1.0) } else { (1.0 - walked).clamp(0.0, 1.0) }
    }

    /// Probability of the best token less that of the second.
    pub(crate) fn margin(&self) -> f64 {
        self.logprob(self.best_logit).exp() - self.logprob(self.second_logit).exp()
    }
}

/// The state of the pass.
struct Sums {
    best: usize,
    best_logit: f32,
    second_logit: f32,
    /// Sum of e^(logit - best_logit).
    mass: f64,
    /// Sum of e^(logit - best_logit) × (logit - best_logit).
    weighted: f64,
}

impl Sums {
    fn new() -> Self {
        let none = f32::NEG_INFINITY;
        Self { best: 0, best_logit: none, second_logit: none, mass: 0.0, weighted: 0.0 }
    }

    fn add(&mut self, offset: usize, block: &[f32]) {
        let largest = block.iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
        if largest > self.second_logit {
            self.rank(offset, block);
        }
        let (mass, weighted) = masses(block, self.best_logit);
        self.mass += mass;
        self.weighted += weighted;
    }

    /// Looks for a new best or second, and moves the sums to the new reference.
    fn rank(&mut self, offset: usize, block: &[f32]) {
        let before = self.best_logit;
        for (i, logit) in block.iter().enumerate() {
            if *logit > self.best_logit {
                self.second_logit = self.best_logit;
                self.best_logit = *logit;
                self.best = offset + i;
            } else if *logit > self.second_logit {
                self.second_logit = *logit;
            }
        }
        if self.best_logit > before && self.mass > 0.0 {
            let rise = f64::from(self.best_logit) - f64::from(before);
            self.weighted = (-rise).exp() * (self.weighted - rise * self.mass);
            self.mass *= (-rise).exp();
        }
    }

    fn finish(self) -> Option<Reading> {
        let finite = self.best_logit.is_finite() && self.second_logit.is_finite() && self.mass.is_finite();
        if !finite || self.mass <= 0.0 {
            return None;
        }
        let log_mass = self.mass.ln();
        Some(Reading {
            best: self.best,
            best_logit: self.best_logit,
            second_logit: self.second_logit,
            log_sum_exp: f64::from(self.best_logit) + log_mass,
            entropy: (log_mass - self.weighted / self.mass).max(0.0),
        })
    }
}

/// Sums of e^x and of x e^x over a block, x being the distance from the reference.
fn masses(block: &[f32], reference: f32) -> (f64, f64) {
    let mut mass = [0.0_f32; LANES];
    let mut weighted = [0.0_f32; LANES];
    let mut lanes = block.chunks_exact(LANES);
    for chunk in &mut lanes {
        for i in 0..LANES {
            let x = floored(chunk[i] - reference);
            let e = exp(x);
            mass[i] += e;
            weighted[i] += e * x;
        }
    }
    for (i, logit) in lanes.remainder().iter().enumerate() {
        let x = floored(logit - reference);
        mass[i] += exp(x);
        weighted[i] += exp(x) * x;
    }
    (mass.iter().map(|v| f64::from(*v)).sum(), weighted.iter().map(|v| f64::from(*v)).sum())
}

/// Keeps a NaN, so that the sums show it; `f32::max` would hide it.
fn floored(x: f32) -> f32 {
    if x < FLOOR { FLOOR } else { x }
}

/// e^x for x in FLOOR..=0.
fn exp(x: f32) -> f32 {
    // Adding 1.5 × 2^23 + 127 rounds to an integer and leaves it, biased as an exponent, in the low bits.
    const ROUND: f32 = 12_582_912.0 + 127.0;
    let t = x * std::f32::consts::LOG2_E;
    let rounded = t + ROUND;
    let f = (t - (rounded - ROUND)) * std::f32::consts::LN_2;
    let power = f32::from_bits(rounded.to_bits() << 23);
    let series = 1.0 / 120.0 + f * (1.0 / 720.0);
    let series = 1.0 / 6.0 + f * (1.0 / 24.0 + f * series);
    power * (1.0 + f * (1.0 + f * (0.5 + f * series)))
}

/// The allowed token with the largest logit, the first of equals, and how much larger it is than the next one; none
/// when nothing is allowed.
pub(crate) fn best_allowed(logits: &[f32], mask: &SimpleVob) -> Option<(usize, f32)> {
    let mut best: Option<usize> = None;
    let mut second = f32::NEG_INFINITY;
    mask.iter_set_entries(|token| {
        if token >= logits.len() {
            return;
        }
        match best {
            Some(b) if logits[token] <= logits[b] => second = second.max(logits[token]),
            _ => {
                second = best.map_or(second, |b| logits[b]);
                best = Some(token);
            }
        }
    });
    best.map(|b| (b, logits[b] - second))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same by the book, in f64.
    fn by_the_book(logits: &[f32]) -> (usize, f64, f64, f64) {
        let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        let max = f64::from(logits[best]);
        let lse = max + logits.iter().map(|l| (f64::from(*l) - max).exp()).sum::<f64>().ln();
        let p = |l: f32| (f64::from(l) - lse).exp();
        let entropy = -logits.iter().map(|l| p(*l) * (f64::from(*l) - lse)).sum::<f64>();
        let second = (0..logits.len()).filter(|i| *i != best).map(|i| p(logits[i])).fold(0.0, f64::max);
        (best, lse, entropy, p(logits[best]) - second)
    }

    proptest! {
        #[test]
        fn agrees_with_the_book(logits in prop::collection::vec(-30.0_f32..30.0, 2..1_200)) {
            let reading = Reading::of(&logits).unwrap();
            let (best, lse, entropy, margin) = by_the_book(&logits);
            prop_assert_eq!(reading.best, best);
            prop_assert!((reading.log_sum_exp - lse).abs() < 1e-5, "{} {}", reading.log_sum_exp, lse);
            prop_assert!((reading.entropy - entropy).abs() < 1e-4, "{} {}", reading.entropy, entropy);
            prop_assert!((reading.margin() - margin).abs() < 1e-5);
        }
    }

    #[test]
    fn a_number_that_is_none_is_seen_wherever_it_stands() {
        for at in [0, 1, 255, 256, 999] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut logits = vec![0.5; 1_000];
                logits[at] = bad;
                assert_eq!(Reading::of(&logits), None, "{bad} at {at}");
            }
        }
        assert_eq!(Reading::of(&[]), None);
        assert_eq!(Reading::of(&[1.0]), None);
    }

    #[test]
    fn a_token_that_cannot_come_does_no_harm() {
        let mut logits = vec![f32::NEG_INFINITY; 600];
        logits[3] = 1.0;
        logits[300] = 1.0;
        let reading = Reading::of(&logits).unwrap();
        assert_eq!(reading.best, 3);
        assert!((reading.logprob(1.0) - 0.5_f64.ln()).abs() < 1e-6);
        assert!(reading.margin().abs() < 1e-9);
    }

    #[test]
    fn the_mask_decides_among_the_rest() {
        let mut mask = SimpleVob::alloc(6);
        assert_eq!(best_allowed(&[0.0; 6], &mask), None);
        mask.allow_token(2);
        mask.allow_token(4);
        mask.allow_token(5);
        assert_eq!(best_allowed(&[9.0, 8.0, 1.0, 7.0, 3.0, 3.0], &mask), Some((4, 0.0)));
    }

    #[test]
    fn removed_mass_is_what_the_mask_forbids() {
        let logits = [2.0_f32, 1.0, 0.0, -1.0, 3.0];
        let reading = Reading::of(&logits).unwrap();
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        for allowed in [vec![0], vec![0, 4], vec![1, 2, 3, 4], vec![0, 1, 2, 3, 4]] {
            let mut mask = SimpleVob::alloc(logits.len());
            allowed.iter().for_each(|i| mask.set(*i, true));
            let kept: f64 = allowed.iter().map(|i| f64::from(logits[*i]).exp()).sum();
            let got = reading.removed(&logits, &mask);
            assert!((got - (1.0 - kept / total)).abs() < 1e-5, "{allowed:?}: {got}");
        }
    }
}
