//! What the logits said, token by token, until it becomes the [`Signals`] of an answer. Invariants: forced tokens are
//! counted and nothing else; at most [`LOGPROBS_MAX`] log-probabilities are held, sums run over all tokens.

use crate::protocol::{FLOOR_STEPS, Floor, LOGPROBS_MAX, Signals};
use crate::reading::{Beside, Reading};

/// Share of the tokens below the low quantile.
const LOW_SHARE: f64 = 0.1;

/// The signals of an answer that is being written.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    signals: Signals,
    logprobs: Vec<f32>,
    margins: f64,
    entropies: f64,
    removed: f64,
}

impl Tally {
    /// A token that was chosen among several.
    pub(crate) fn free(&mut self, reading: &Reading, chosen: f32, beside: Beside) {
        let (lead, removed) = (f64::from(beside.lead), beside.removed);
        let (logprob, margin) = (reading.logprob(chosen), reading.margin());
        let signals = &mut self.signals;
        match signals.tokens {
            0 => {
                signals.first_margin = margin;
                signals.first_entropy = reading.entropy;
                signals.first_energy = reading.energy();
                signals.min_margin = margin;
                signals.second_margin = margin;
                signals.least_lead = lead;
            }
            1 => signals.second_margin = margin,
            _ => {}
        }
        signals.tokens += 1;
        signals.sum_logprob += logprob;
        signals.min_logprob = signals.min_logprob.min(logprob);
        signals.least_lead = signals.least_lead.min(lead);
        signals.min_margin = signals.min_margin.min(margin);
        signals.max_entropy = signals.max_entropy.max(reading.entropy);
        signals.max_removed = signals.max_removed.max(removed);
        self.margins += margin;
        self.entropies += reading.entropy;
        self.removed += removed;
        if self.logprobs.len() < LOGPROBS_MAX {
            self.logprobs.push(logprob as f32);
        }
    }

    /// A token that the schema left no choice about.
    pub(crate) fn forced(&mut self) {
        self.signals.forced += 1;
    }

    /// Whether what was written so far is under the floor of its length.
    pub(crate) fn is_under(&self, floor: &Floor) -> bool {
        let last = (self.signals.tokens as usize).min(FLOOR_STEPS).checked_sub(1);
        last.is_some_and(|last| self.signals.sum_logprob < floor.sums[last])
    }

    /// The signals of the whole answer, and the log-probabilities of its first tokens.
    pub(crate) fn finish(self) -> (Signals, Vec<f32>) {
        let mut signals = self.signals;
        if signals.tokens > 0 {
            let tokens = f64::from(signals.tokens);
            signals.mean_logprob = signals.sum_logprob / tokens;
            signals.mean_margin = self.margins / tokens;
            signals.mean_entropy = self.entropies / tokens;
            signals.mean_removed = self.removed / tokens;
            signals.low_logprob = quantile(&self.logprobs, LOW_SHARE);
            signals.median_logprob = quantile(&self.logprobs, 0.5);
        }
        (signals, self.logprobs)
    }
}

/// Nearest rank; 0 of nothing.
fn quantile(values: &[f32], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).map_or(0.0, |value| f64::from(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(logits: &[f32]) -> Reading {
        Reading::of(logits).expect("finite logits")
    }

    fn beside(lead: f32, removed: f64) -> Beside {
        Beside { lead, removed }
    }

    #[test]
    fn sums_minima_means_and_quantiles_are_of_the_free_tokens() {
        let mut tally = Tally::default();
        let even = reading(&[1.0, 1.0]);
        let sure = reading(&[9.0, -9.0]);
        tally.free(&sure, 9.0, beside(18.0, 0.0));
        tally.forced();
        tally.free(&even, 1.0, beside(0.5, 0.25));
        let (signals, logprobs) = tally.finish();
        let half = 0.5_f64.ln();
        let check = |what: &str, got: f64, expect: f64| assert!((got - expect).abs() < 1e-5, "{what}: {got}");
        check("sum", signals.sum_logprob, half);
        check("min", signals.min_logprob, half);
        check("mean", signals.mean_logprob, half / 2.0);
        check("low", signals.low_logprob, half);
        check("median", signals.median_logprob, half);
        check("first margin", signals.first_margin, 1.0);
        check("second margin", signals.second_margin, 0.0);
        check("mean margin", signals.mean_margin, 0.5);
        check("lead", signals.least_lead, 0.5);
        check("energy", signals.first_energy, 9.0);
        check("entropy", signals.max_entropy, -half);
        check("removed", signals.mean_removed, 0.125);
        check("most removed", signals.max_removed, 0.25);
        assert_eq!((signals.tokens, signals.forced, logprobs.len()), (2, 1, 2));
    }

    #[test]
    fn nothing_free_says_nothing() {
        let mut tally = Tally::default();
        tally.forced();
        let (signals, logprobs) = tally.finish();
        assert_eq!(signals, Signals { forced: 1, ..Signals::default() });
        assert!(logprobs.is_empty());
    }

    #[test]
    fn the_floor_looks_at_the_sum_after_so_many_tokens() {
        let mut tally = Tally::default();
        let mut floor = Floor { sums: [-1.0; FLOOR_STEPS] };
        floor.sums[0] = -0.6;
        assert!(!tally.is_under(&Floor { sums: [0.0; FLOOR_STEPS] }), "nothing was written");
        let half = |tally: &mut Tally| tally.free(&reading(&[1.0, 1.0]), 1.0, beside(0.0, 0.0));
        half(&mut tally);
        assert!(tally.is_under(&floor));
        floor.sums[0] = -0.7;
        assert!(!tally.is_under(&floor));
        half(&mut tally);
        assert!(tally.is_under(&floor));
        floor.sums = [-5.0; FLOOR_STEPS];
        (2..7).for_each(|_| half(&mut tally));
        assert!(!tally.is_under(&floor));
        (7..FLOOR_STEPS + 1).for_each(|_| half(&mut tally));
        assert!(tally.is_under(&floor), "the last value holds from there on");
    }
}
