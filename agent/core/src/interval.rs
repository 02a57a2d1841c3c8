//! How sure a predicted time is: intervals from how far earlier predictions of the same kind were off (split conformal
//! prediction over a sliding window, on the ratio of actual and predicted time, so that it holds for short and long
//! waits), and by what chance a deadline is met. Invariant: low ≤ mid ≤ high.

use std::collections::VecDeque;

/// Predictions that are remembered: enough for a 95 % quantile, few enough to follow a change of speed.
const WINDOW: usize = 120;
/// Fewest from which quantiles are taken; before, the interval is wide.
const LEAST: usize = 20;
/// Factor of the interval before anything was measured.
const WIDE: f64 = 3.0;
/// The same where a place is chosen by it: a bare prediction is no certainty, and prompts that it took for safe by a few
/// milliseconds were the late ones. At 2 and more, nothing would ever run here that the cloud can do, and nothing be
/// measured (in the simulation of the rig `deadline` on validation prompts).
const UNMEASURED: f64 = 1.5;
/// How much better the chance elsewhere must be before a prompt changes its place: predictions this near are equal.
const MARGIN: f64 = 0.01;

/// A predicted time, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// One in twenty is shorter.
    pub low_ms: f64,
    /// Half are shorter.
    pub mid_ms: f64,
    /// One in twenty is longer.
    pub high_ms: f64,
}

impl Interval {
    /// A time without spread.
    #[must_use]
    pub fn exactly(ms: f64) -> Self {
        Self { low_ms: ms, mid_ms: ms, high_ms: ms }
    }

    /// From a factor under to a factor over a prediction.
    fn within(factor: f64, ms: f64) -> Self {
        Self { low_ms: ms / factor, mid_ms: ms, high_ms: ms * factor }
    }

    /// Probability that it is over within `left_ms`: between the three known quantiles the logarithm of time is taken
    /// as linear in the probability, beyond them the chance falls off to 0 and 1 over as much again.
    #[must_use]
    pub fn chance(&self, left_ms: f64) -> f64 {
        let (low, mid, high) = (self.low_ms.max(1e-3), self.mid_ms.max(1e-3), self.high_ms.max(1e-3));
        let at = |from: f64, to: f64| {
            let span = (to / from).ln();
            if span > 1e-9 { ((left_ms.max(1e-3) / from).ln() / span).clamp(0.0, 1.0) } else { step(left_ms >= to) }
        };
        match left_ms {
            left if left >= high => 0.95 + 0.05 * at(high, high * high / mid),
            left if left >= mid => 0.5 + 0.45 * at(mid, high),
            left if left >= low => 0.05 + 0.45 * at(low, mid),
            _ => 0.05 * at(low * low / mid, low),
        }
    }
}

fn step(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

/// How far predictions of one kind were off.
#[derive(Debug, Clone, Default)]
pub struct Spread {
    /// Logarithms of actual over predicted time.
    ratios: VecDeque<f64>,
}

impl Spread {
    /// What was predicted took so long, both in milliseconds.
    pub fn add(&mut self, predicted_ms: f64, actual_ms: f64) {
        let ratio = (actual_ms.max(1.0) / predicted_ms.max(1.0)).ln();
        if !ratio.is_finite() {
            return;
        }
        if self.ratios.len() == WINDOW {
            self.ratios.pop_front();
        }
        self.ratios.push_back(ratio);
    }

    /// The interval by which a place is chosen: before enough was measured the prediction is taken to hold roughly.
    #[must_use]
    pub fn around_or_near(&self, predicted_ms: f64) -> Interval {
        match self.ratios.len() < LEAST {
            true => Interval::within(UNMEASURED, predicted_ms),
            false => self.around(predicted_ms),
        }
    }

    /// The interval around a prediction, its middle moved by what is usual.
    #[must_use]
    pub fn around(&self, predicted_ms: f64) -> Interval {
        if self.ratios.len() < LEAST {
            return Interval::within(WIDE, predicted_ms);
        }
        let mut sorted: Vec<f64> = self.ratios.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        // The conformal rank: (n + 1) × share, so that the next one falls inside as often as said.
        let at = |share: f64| {
            let rank = (share * (sorted.len() + 1) as f64).round() as usize;
            sorted[rank.clamp(1, sorted.len()) - 1].exp()
        };
        let scaled = |share: f64| predicted_ms * at(share);
        Interval { low_ms: scaled(0.05), mid_ms: scaled(0.5), high_ms: scaled(0.95) }
    }
}

/// Where a prompt has the better chance to be in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this gateway.
    Here,
    /// In the cloud, before any work here.
    Cloud,
}

/// Chooses by slack: here, unless the cloud's chance to be in time is better by a margin. Without a deadline, or without
/// a way to the cloud, here.
#[must_use]
pub fn place(here: Interval, cloud: Option<Interval>, left_ms: Option<f64>) -> Place {
    match (cloud, left_ms) {
        (Some(cloud), Some(left)) if cloud.chance(left) > here.chance(left) + MARGIN => Place::Cloud,
        _ => Place::Here,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    #[test]
    fn the_interval_holds_nine_in_ten() {
        let mut random = StdRng::seed_from_u64(1);
        let mut spread = Spread::default();
        let mut inside = 0;
        for number in 0..4_000 {
            let predicted = random.random_range(50.0..5_000.0);
            let actual = predicted * random.random_range(0.7..1.9_f64);
            let interval = spread.around(predicted);
            inside += i32::from(number >= 500 && (interval.low_ms..=interval.high_ms).contains(&actual));
            spread.add(predicted, actual);
        }
        let share = f64::from(inside) / 3_500.0;
        assert!((0.87..=0.93).contains(&share), "{share}");
    }

    #[test]
    fn before_anything_was_measured_a_near_deadline_is_not_taken_for_safe() {
        let unmeasured = Spread::default().around_or_near(950.0);
        assert!(unmeasured.chance(986.0) < 0.7 && unmeasured.chance(2_500.0) > 0.99, "{unmeasured:?}");
        let mut measured = Spread::default();
        (0..LEAST).for_each(|_| measured.add(100.0, 101.0));
        assert!(measured.around_or_near(950.0).chance(986.0) > 0.99);
    }

    #[test]
    fn the_place_follows_the_slack_with_a_margin() {
        let around = |mid: f64| Interval { low_ms: mid * 0.8, mid_ms: mid, high_ms: mid * 1.25 };
        let check = |here: f64, cloud: Option<f64>, left: Option<f64>, expect: Place| {
            assert_eq!(place(around(here), cloud.map(around), left), expect, "{here} {cloud:?} {left:?}");
        };
        check(5_000.0, Some(300.0), Some(1_000.0), Place::Cloud);
        check(5_000.0, None, Some(1_000.0), Place::Here);
        check(5_000.0, Some(300.0), None, Place::Here);
        check(500.0, Some(300.0), Some(1_000.0), Place::Here);
        check(5_000.0, Some(6_000.0), Some(1_000.0), Place::Here);
        check(1_000.0, Some(998.0), Some(1_000.0), Place::Here);
        check(1_000.0, Some(900.0), Some(1_000.0), Place::Cloud);
    }

    proptest! {
        #[test]
        fn chances_grow_with_time(mid in 1.0..10_000.0_f64, a in 1.0..4.0_f64, b in 1.0..4.0_f64, left in 0.0..20_000.0_f64, more in 0.0..5_000.0_f64) {
            let interval = Interval { low_ms: mid / a, mid_ms: mid, high_ms: mid * b };
            let (first, second) = (interval.chance(left), interval.chance(left + more));
            prop_assert!((0.0..=1.0).contains(&first) && second >= first - 1e-9, "{first} {second}");
        }

        #[test]
        fn low_mid_high_stand_in_order(pairs in prop::collection::vec((1.0..9e3_f64, 1.0..9e3_f64), 0..200)) {
            let mut spread = Spread::default();
            pairs.iter().for_each(|(predicted, actual)| spread.add(*predicted, *actual));
            let interval = spread.around(100.0);
            prop_assert!(interval.low_ms <= interval.mid_ms && interval.mid_ms <= interval.high_ms);
        }
    }
}
