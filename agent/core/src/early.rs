//! When to stop writing an answer that will not be kept. The sum of the log-probabilities only falls while an answer is
//! written, so a low sum after few tokens is the worse sign the fewer they are: a [`Floor`] has one value per token.
//! Invariant: a floor is fitted so that it takes at most the stated share of the answers that would have been kept, and
//! none where the labels cannot show that.

/// Tokens after which a floor has a value of its own; the last holds for all later ones.
pub const STEPS: usize = 8;
/// Share of the kept answers that a floor may take. Chosen on the validation prompts, cross-validated: from 0.5 to 1 % the
/// deferral curve lies nowhere lower by 0.2 points and on average not at all, at 1.5 % it does.
pub const LOST_SHARE_MAX: f64 = 0.01;
/// Fewest kept answers from which a floor is fitted: fewer say nothing about a share of 1 in 100.
pub const KEPT_MIN: usize = 200;

/// The sum of an answer's log-probabilities after each of its first tokens; the last place holds the whole sum, as do
/// the places after the end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trail([f64; STEPS]);

impl Trail {
    /// Of the log-probabilities of an answer's first tokens, and the sum over all of them.
    #[must_use]
    pub fn of(logprobs: &[f32], whole: f64) -> Self {
        let mut sum = 0.0;
        let mut first = logprobs.iter();
        let mut trail = std::array::from_fn(|_| {
            sum += first.next().map_or(0.0, |logprob| f64::from(*logprob));
            sum
        });
        // The parts are rounded: it must not rise at the end.
        trail[STEPS - 1] = whole.min(trail[STEPS - 2]);
        Self(trail)
    }

    /// Of an answer of which only the whole sum is known: it may have fallen at the first token.
    #[must_use]
    pub fn flat(sum: f64) -> Self {
        Self([sum; STEPS])
    }

    /// From a file; none where these are no sums: not finite, over zero, or rising.
    #[must_use]
    pub fn from_parts(sums: [f64; STEPS]) -> Option<Self> {
        let falls = sums.windows(2).all(|pair| pair[1] <= pair[0]);
        (falls && sums[0] <= 0.0 && sums.iter().all(|sum| sum.is_finite())).then_some(Self(sums))
    }

    /// The sums.
    #[must_use]
    pub fn get(&self) -> &[f64; STEPS] {
        &self.0
    }

    fn is_under(&self, floor: &Floor) -> bool {
        self.0.iter().zip(floor.sums).any(|(sum, least)| *sum < least)
    }
}

/// Sums under which an answer is hopeless, after each of its first tokens. Minus infinity never ends one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    /// By token; the last holds for all later ones.
    pub sums: [f64; STEPS],
}

impl Floor {
    /// Ends nothing.
    pub const NONE: Self = Self { sums: [f64::NEG_INFINITY; STEPS] };

    /// The highest floor that at most [`LOST_SHARE_MAX`] of the answers that were kept fall under: at each token the
    /// same number of answers lies under it, as many as that share allows over all tokens. None with fewer than
    /// [`KEPT_MIN`] answers, or where a sum is not finite.
    #[must_use]
    pub fn fitted(kept: &[Trail]) -> Option<Self> {
        let finite = kept.iter().all(|trail| trail.0.iter().all(|sum| sum.is_finite()));
        if kept.len() < KEPT_MIN || !finite {
            return None;
        }
        let sorted: [Vec<f64>; STEPS] = std::array::from_fn(|step| {
            let mut sums: Vec<f64> = kept.iter().map(|trail| trail.0[step]).collect();
            sums.sort_by(f64::total_cmp);
            sums
        });
        let allowed = (LOST_SHARE_MAX * kept.len() as f64) as usize;
        let lost = |floor: &Self| kept.iter().filter(|trail| trail.is_under(floor)).count();
        let floors = (0..=allowed).map(|under| Self::with(&sorted, under));
        // More under it at each token is never fewer under it in all.
        floors.take_while(|floor| lost(floor) <= allowed).last()
    }

    /// At each token so many lie under it, and it never rises.
    fn with(sorted: &[Vec<f64>; STEPS], under: usize) -> Self {
        let mut least = 0.0_f64;
        let sums = std::array::from_fn(|step| {
            least = least.min(sorted[step].get(under).copied().unwrap_or(f64::NEG_INFINITY));
            least
        });
        Self { sums }
    }

    /// After how many tokens an answer with these log-probabilities falls under the floor; none if it never does.
    #[must_use]
    pub fn stops_after(&self, logprobs: &[f32]) -> Option<usize> {
        let mut sum = 0.0;
        let under = |(number, logprob): (usize, &f32)| {
            sum += f64::from(*logprob);
            (sum < self.sums[number.min(STEPS - 1)]).then_some(number + 1)
        };
        logprobs.iter().enumerate().find_map(under)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand answers that fall evenly over ten tokens, each a little further than the one before.
    fn kept() -> Vec<Trail> {
        (0..1_000).map(|i| Trail::of(&[-(i as f32) / 10_000.0; 10], -f64::from(i) / 1_000.0)).collect()
    }

    #[test]
    fn a_floor_lies_under_the_answers_that_were_kept() {
        let floor = Floor::fitted(&kept()).unwrap_or(Floor::NONE);
        let lost = kept().iter().filter(|trail| trail.is_under(&floor)).count();
        assert!((8..=10).contains(&lost), "{lost} of 1000 lost to {floor:?}");
        assert!(floor.sums[0] > -0.1 && floor.sums[STEPS - 1] < -0.9, "{floor:?}");
    }

    #[test]
    fn an_early_fall_ends_what_a_late_one_does_not() {
        let floor = Floor::fitted(&kept()).unwrap_or(Floor::NONE);
        let mut logprobs = [0.0_f32; 10];
        logprobs[0] = -0.5;
        assert_eq!(floor.stops_after(&logprobs), Some(1));
        logprobs.swap(0, 9);
        assert_eq!(floor.stops_after(&logprobs), None);
        assert_eq!(Floor::NONE.stops_after(&[-900.0]), None);
        assert_eq!(floor.stops_after(&[]), None);
    }

    #[test]
    fn too_few_answers_or_broken_ones_give_no_floor() {
        assert_eq!(Floor::fitted(&vec![Trail::flat(-0.2); KEPT_MIN - 1]), None);
        let mut kept = vec![Trail::flat(-0.2); KEPT_MIN];
        assert!(Floor::fitted(&kept).is_some());
        kept[7] = Trail::flat(f64::NAN);
        assert_eq!(Floor::fitted(&kept), None);
    }

    #[test]
    fn a_trail_is_the_sums_and_stays_at_the_end() {
        assert_eq!(Trail::of(&[-0.5, -0.25], -0.75).get()[..3], [-0.5, -0.75, -0.75]);
        assert_eq!(Trail::of(&[-1.0; 20], -20.0).get()[STEPS - 2..], [-7.0, -20.0]);
        let check = |sums: [f64; STEPS]| Trail::from_parts(sums);
        assert!(check([-1.0; STEPS]).is_some());
        let mut rising = [-1.0; STEPS];
        rising[3] = -0.5;
        assert_eq!(check(rising), None);
        assert_eq!(check([f64::NAN; STEPS]), None);
        assert_eq!(check([0.5; STEPS]), None);
    }
}
