//! Paired bootstrap intervals of figures that are means over splits: the prompts of the test pool are drawn again, with
//! replacement, and each figure is computed anew over all splits from the same draw. Two ways to rank see the same
//! prompts in each draw, so that what is hard for both cancels. Invariant: draws keep the mixture; they follow from the
//! seed.

use super::pool::{Sample, interval};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::collections::BTreeMap;

/// Draws of the long version: the 2.5th percentile lies between the fifth and the sixth.
pub(crate) const DRAWS: usize = 200;
/// Draws of the short version.
pub(crate) const DRAWS_SHORT: usize = 40;

/// How often each prompt of a pool counts, per draw; the first counts each once: the pool as it is.
pub(crate) struct Draws(Vec<Vec<u32>>);

impl Draws {
    /// So many draws from a pool, within each task and within and without its scope.
    pub(crate) fn of(pool: &[Sample], draws: usize) -> Self {
        let mut random = StdRng::seed_from_u64(23);
        let mut strata: BTreeMap<(&str, bool), Vec<usize>> = BTreeMap::new();
        for sample in pool {
            strata.entry((&sample.row.task, sample.row.oos)).or_default().push(sample.number);
        }
        let mut all = vec![vec![1; pool.len()]];
        for _ in 0..draws {
            let mut counts = vec![0; pool.len()];
            for stratum in strata.values() {
                (0..stratum.len()).for_each(|_| counts[stratum[random.random_range(0..stratum.len())]] += 1);
            }
            all.push(counts);
        }
        Self(all)
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = &[u32]> {
        self.0.iter().map(Vec::as_slice)
    }
}

/// A figure over the splits: per draw the sum of what each split gave, and per split what the pool as it is gave.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figure {
    sums: Vec<f64>,
    splits: Vec<f64>,
}

impl Figure {
    /// One split: its figure per draw, in the draws' order.
    pub(crate) fn add(&mut self, per_draw: &[f64]) {
        self.sums.resize(per_draw.len(), 0.0);
        self.sums.iter_mut().zip(per_draw).for_each(|(sum, value)| *sum += value);
        self.splits.extend(per_draw.first());
    }

    /// Mean over the splits, with the 2.5th and 97.5th percentile over the draws.
    pub(crate) fn interval(&self) -> (f64, f64, f64) {
        let means: Vec<f64> = self.sums.iter().map(|sum| sum / self.splits.len() as f64).collect();
        let Some((mean, draws)) = means.split_first() else { return (f64::NAN, f64::NAN, f64::NAN) };
        let (_, low, high) = interval(draws);
        (*mean, low, high)
    }

    /// The 2.5th and 97.5th percentile over the splits of the pool as it is: how much one half differs from another.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let (_, low, high) = interval(&self.splits);
        (low, high)
    }
}

/// Prompts from the surest to the least sure, each with what it is worth; equal scores stand together.
pub(crate) struct Ranking(Vec<Vec<(usize, f64)>>);

impl Ranking {
    /// From (score, prompt, worth).
    pub(crate) fn of(mut scored: Vec<(f64, usize, f64)>) -> Self {
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut groups: Vec<Vec<(usize, f64)>> = Vec::new();
        let mut last = f64::NAN;
        for (score, number, worth) in scored {
            if score != last {
                groups.push(Vec::new());
            }
            last = score;
            if let Some(group) = groups.last_mut() {
                group.push((number, worth));
            }
        }
        Self(groups)
    }

    /// Walks groups of equal scores: (prompts before, prompts of it, worth before, worth of it), each as often as it
    /// counts.
    fn walk(&self, counts: &[u32], mut each: impl FnMut(f64, u32, f64, f64)) -> f64 {
        let (mut before, mut worth_before) = (0.0, 0.0);
        for group in &self.0 {
            let count: u32 = group.iter().map(|(number, _)| counts[*number]).sum();
            if count == 0 {
                continue;
            }
            let worth: f64 = group.iter().map(|(number, worth)| f64::from(counts[*number]) * worth).sum();
            each(before, count, worth_before, worth);
            before += f64::from(count);
            worth_before += worth;
        }
        before
    }

    /// Mean worth of a prompt.
    pub(crate) fn mean(&self, counts: &[u32]) -> f64 {
        let mut sum = 0.0;
        let total = self.walk(counts, |_, _, _, worth| sum += worth);
        sum / total
    }

    /// Mean over all kept shares of the worth per kept prompt: with errors as worth, the area under the risk-coverage
    /// curve, as `judge::risk_area`.
    pub(crate) fn risk_area(&self, counts: &[u32]) -> f64 {
        let mut sum = 0.0;
        let total = self.walk(counts, |before, count, worth_before, worth| {
            let share = worth / f64::from(count);
            sum += (1..=count).map(f64::from).map(|k| (worth_before + share * k) / (before + k)).sum::<f64>();
        });
        sum / total
    }

    /// Mean over all kept shares of the worth so far per prompt of all: with what keeping changes as worth, the area of
    /// the deferral curve above the cloud's accuracy, as `judge::deferral_area`.
    pub(crate) fn deferral_area(&self, counts: &[u32]) -> f64 {
        let mut sum = 0.0;
        let total = self.walk(counts, |_, count, worth_before, worth| {
            sum += f64::from(count) * worth_before + worth * f64::from(count + 1) / 2.0;
        });
        sum / (total + 1.0) / total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::judge::{Pair, deferral_area, risk_area};

    /// Scores with ties, and counts that leave some out and repeat others.
    fn scored() -> (Vec<(f64, bool, bool)>, Vec<u32>) {
        let mut random = StdRng::seed_from_u64(3);
        let one = |_| (f64::from(random.random_range(0..12)), random.random_bool(0.8), random.random_bool(0.85));
        let rows: Vec<(f64, bool, bool)> = (0..200).map(one).collect();
        let counts = (0..200).map(|_| random.random_range(0..4)).collect();
        (rows, counts)
    }

    #[test]
    fn areas_are_those_of_the_prompts_written_out_as_often_as_they_count() {
        let (rows, counts) = scored();
        let out: Vec<&(f64, bool, bool)> =
            rows.iter().zip(&counts).flat_map(|(row, count)| (0..*count).map(move |_| row)).collect();
        let risk = risk_area(&out.iter().map(|r| (r.0, r.1)).collect::<Vec<_>>());
        let pairs: Vec<Pair> = out.iter().map(|r| Pair { score: r.0, edge: r.1, cloud: r.2 }).collect();
        let cloud = pairs.iter().filter(|p| p.cloud).count() as f64 / pairs.len() as f64;
        let ranking = |worth: fn(&(f64, bool, bool)) -> f64| {
            Ranking::of(rows.iter().enumerate().map(|(i, r)| (r.0, i, worth(r))).collect())
        };
        let errors = ranking(|r| f64::from(u8::from(!r.1)));
        let changes = ranking(|r| f64::from(u8::from(r.1)) - f64::from(u8::from(r.2)));
        assert!((errors.risk_area(&counts) - risk).abs() < 1e-12);
        assert!((changes.deferral_area(&counts) + cloud - deferral_area(&pairs)).abs() < 1e-9);
    }

    #[test]
    fn an_interval_holds_the_mean_of_all_splits() {
        let mut figure = Figure::default();
        figure.add(&[1.0, 0.5, 1.5]);
        figure.add(&[3.0, 2.5, 3.5]);
        let (mean, low, high) = figure.interval();
        assert!((mean - 2.0).abs() < 1e-12 && (1.5..2.0).contains(&low) && high > 2.0 && high <= 2.5, "{low} {high}");
        assert!(figure.spread().0 < 1.1 && figure.spread().1 > 2.9);
    }
}
