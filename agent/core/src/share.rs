//! Holding an escalated share online: the threshold follows a quantile of recent confidences, corrected by what was
//! escalated too much or too little so far (quantile tracking with an integral term, after Angelopoulos, Candès and
//! Tibshirani, *Conformal PID control*, 2023), and a token bucket is the hard cap. Nothing is assumed about how prompts
//! are distributed. Invariant: of any `n` prompts in a row at most `share × n` and a burst of [`BURST`] are escalated.

use std::collections::VecDeque;

/// Confidences from which the quantile is taken: some hundred show a change within as many prompts.
const WINDOW: usize = 200;
/// Prompts over which a debt is worked off.
const HORIZON: f64 = 40.0;
/// Largest debt that is remembered, in escalations: a long outage is not made up for in a flood.
const DEBT_MAX: f64 = 10.0;
/// Escalations that the bucket holds.
pub const BURST: f64 = 8.0;

/// What the budget says to one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Sure enough for the share.
    Keep,
    /// Among the least sure.
    Escalate,
    /// Among the least sure, and the budget is spent.
    Spent,
}

/// Holds one share.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    share: f64,
    recent: VecDeque<f64>,
    /// Escalations over the share so far, within [`DEBT_MAX`].
    debt: f64,
    tokens: f64,
}

impl Share {
    /// Holds this share, 0 to 1.
    #[must_use]
    pub fn new(share: f64) -> Self {
        Self { share: share.clamp(0.0, 1.0), recent: VecDeque::new(), debt: 0.0, tokens: BURST / 2.0 }
    }

    /// The share that is held.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.share
    }

    /// Confidence below which a prompt is escalated now.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        let wanted = (self.share - self.debt / HORIZON).clamp(0.0, 1.0);
        if wanted <= 0.0 {
            return f64::NEG_INFINITY;
        }
        let mut sorted: Vec<f64> = self.recent.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let at = wanted * sorted.len() as f64;
        match sorted.get(at as usize) {
            Some(above) => *above,
            None => f64::INFINITY,
        }
    }

    /// Decides about the next prompt, and remembers it. `unit` is a number in 0..1, drawn by the caller: it breaks ties
    /// where many answers are equally sure.
    pub fn decide(&mut self, confidence: f64, unit: f64) -> Verdict {
        // A tie of a whole share cannot be told apart by confidence; less than anything a confidence means.
        let value = confidence + unit * 1e-6;
        let below = if self.recent.len() < 2 { unit < self.share } else { value < self.threshold() };
        self.tokens = (self.tokens + self.share).min(BURST);
        let verdict = match (below, self.tokens >= 1.0) {
            (false, _) => Verdict::Keep,
            (true, true) => Verdict::Escalate,
            (true, false) => Verdict::Spent,
        };
        let escalated = if verdict == Verdict::Escalate { 1.0 } else { 0.0 };
        self.tokens -= escalated;
        self.debt = (self.debt + escalated - self.share).clamp(-DEBT_MAX, DEBT_MAX);
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(value);
        verdict
    }

    /// Escalations over the share so far; under it where negative.
    #[must_use]
    pub fn debt(&self) -> f64 {
        self.debt
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn escalated(share: &mut Share, count: usize, random: &mut StdRng, draw: fn(f64) -> f64) -> Vec<bool> {
        let mut decide = |_| share.decide(draw(random.random()), random.random()) == Verdict::Escalate;
        (0..count).map(&mut decide).collect()
    }

    fn rate(decisions: &[bool]) -> f64 {
        decisions.iter().filter(|d| **d).count() as f64 / decisions.len() as f64
    }

    #[test]
    fn every_thousand_prompts_are_within_a_point() {
        for (seed, target) in [(1, 0.05), (2, 0.2), (3, 0.5)] {
            let mut random = StdRng::seed_from_u64(seed);
            let mut share = Share::new(target);
            let decisions = escalated(&mut share, 6_000, &mut random, |u| 1.0 - u.powi(3));
            for begin in 0..5_000 {
                let got = rate(&decisions[begin..begin + 1_000]);
                assert!((got - target).abs() <= 0.0101, "share {target}, from {begin}: {got}");
            }
        }
    }

    #[test]
    fn it_is_back_soon_after_the_prompts_became_harder() {
        let mut random = StdRng::seed_from_u64(4);
        let mut share = Share::new(0.2);
        escalated(&mut share, 2_000, &mut random, |u| 1.0 - u.powi(3));
        let hard = escalated(&mut share, 500, &mut random, |u| 0.4 - 0.4 * u);
        assert!((rate(&hard) - 0.2).abs() <= 0.02, "{}", rate(&hard));
    }

    #[test]
    fn equal_confidences_are_told_apart_by_lot() {
        let mut random = StdRng::seed_from_u64(5);
        let mut share = Share::new(0.3);
        let decisions = escalated(&mut share, 2_000, &mut random, |_| 0.9);
        assert!((rate(&decisions) - 0.3).abs() <= 0.01, "{}", rate(&decisions));
    }

    #[test]
    fn nothing_and_everything_are_shares_too() {
        let mut random = StdRng::seed_from_u64(6);
        assert_eq!(rate(&escalated(&mut Share::new(0.0), 500, &mut random, |u| u)), 0.0);
        assert!(rate(&escalated(&mut Share::new(1.0), 500, &mut random, |u| u)) > 0.98);
    }

    proptest! {
        /// Whatever comes, in whatever order, the cap holds in every stretch.
        #[test]
        fn the_cap_holds_in_every_stretch(values in prop::collection::vec((0.0..1.0_f64, 0.0..1.0_f64), 1..600), target in 0.0..1.0_f64) {
            let mut share = Share::new(target);
            let spent: Vec<u32> = values.iter().map(|(c, u)| u32::from(share.decide(*c, *u) == Verdict::Escalate)).collect();
            for begin in (0..spent.len()).step_by(7) {
                let mut sum = 0;
                for (length, one) in spent[begin..].iter().enumerate() {
                    sum += one;
                    prop_assert!(f64::from(sum) <= target * (length + 1) as f64 + BURST + 1e-6);
                }
            }
        }
    }
}
