//! When to stop writing an answer that will not be kept. Sum and least log-probability only fall while an answer is
//! written, so an answer that is under a [`Floor`] once stays under it. Invariant: a floor is fitted so that it takes at
//! most the stated share of the answers that would have been kept, and none where the labels cannot show that.

/// Share of the kept answers that a floor may take: under the resolution of any deferral curve that is drawn from a
/// few thousand prompts.
pub const LOST_SHARE_MAX: f64 = 0.002;
/// Fewest kept answers from which a floor is fitted: fewer say nothing about a share of 1 in 500.
pub const KEPT_MIN: usize = 200;

/// Running values under which an answer is hopeless. Minus infinity never ends one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    /// For the least log-probability so far.
    pub min_logprob: f64,
    /// For the sum so far.
    pub sum_logprob: f64,
}

impl Floor {
    /// Ends nothing.
    pub const NONE: Self = Self { min_logprob: f64::NEG_INFINITY, sum_logprob: f64::NEG_INFINITY };

    /// The highest floor that at most `LOST_SHARE_MAX` of the kept answers fall under, from (least, sum) of answers
    /// that were kept: half of the allowance goes to each value. None with fewer than [`KEPT_MIN`] answers, or where a
    /// value is not finite.
    #[must_use]
    pub fn fitted(kept: &[(f64, f64)]) -> Option<Self> {
        let finite = kept.iter().all(|(least, sum)| least.is_finite() && sum.is_finite());
        if kept.len() < KEPT_MIN || !finite {
            return None;
        }
        let allowed = (LOST_SHARE_MAX * kept.len() as f64 / 2.0) as usize;
        let nth = |of: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = kept.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(allowed).copied().unwrap_or(f64::NEG_INFINITY)
        };
        Some(Self { min_logprob: nth(|k| k.0), sum_logprob: nth(|k| k.1) })
    }

    /// After how many tokens an answer with these log-probabilities falls under the floor; none if it never does.
    #[must_use]
    pub fn stops_after(&self, logprobs: &[f32]) -> Option<usize> {
        let (mut least, mut sum) = (0.0_f64, 0.0_f64);
        for (number, logprob) in logprobs.iter().enumerate() {
            least = least.min(f64::from(*logprob));
            sum += f64::from(*logprob);
            if least < self.min_logprob || sum < self.sum_logprob {
                return Some(number + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_lies_under_the_answers_that_were_kept() {
        let kept: Vec<(f64, f64)> = (0..1_000).map(|i| (-f64::from(i) / 1_000.0, -f64::from(i) / 100.0)).collect();
        let floor = Floor::fitted(&kept).unwrap_or(Floor::NONE);
        let under = |(least, sum): &&(f64, f64)| *least < floor.min_logprob || *sum < floor.sum_logprob;
        let lost = kept.iter().filter(under).count();
        assert!(lost <= 2, "{lost} of 1000 lost to {floor:?}");
        assert!(floor.min_logprob > -1.0 && floor.sum_logprob > -10.0, "{floor:?}");
    }

    #[test]
    fn too_few_answers_or_broken_ones_give_no_floor() {
        assert_eq!(Floor::fitted(&vec![(-0.1, -0.2); KEPT_MIN - 1]), None);
        let mut kept = vec![(-0.1, -0.2); KEPT_MIN];
        assert!(Floor::fitted(&kept).is_some());
        kept[7].1 = f64::NAN;
        assert_eq!(Floor::fitted(&kept), None);
    }

    #[test]
    fn it_stops_at_the_first_token_under_it() {
        let floor = Floor { min_logprob: -2.0, sum_logprob: -3.0 };
        let check = |logprobs: &[f32], expect: Option<usize>| assert_eq!(floor.stops_after(logprobs), expect);
        check(&[], None);
        check(&[-0.1, -2.5, -0.1], Some(2));
        check(&[-1.5, -1.4, -0.2, -0.1], Some(3));
        check(&[-1.5, -1.4], None);
        assert_eq!(Floor::NONE.stops_after(&[-900.0]), None);
    }
}
