//! How many sequences decode in one step: as many as run, unless steps of fewer tokens were measured to bring more per
//! second. On two cores some sizes of a batch have no fast way through the kernels.
//!
//! Invariant: pure. Who decodes when changes no answer.

use std::time::Duration;

/// Weight of a new measurement in the running means.
const WEIGHT: f64 = 0.1;
/// A group that costs more per token than the best one by no more than this stays together: all of it moves on.
const SLACK: f64 = 0.05;
/// After so many steps apart the whole group is tried again: machines and depths change.
const RETRY_STEPS: u32 = 256;
/// Measurements of a group before it is judged: the first step of a size builds llama.cpp's graph.
const TRIALS: u32 = 4;

/// What steps cost by the number of sequences in them.
#[derive(Debug, Default)]
pub(crate) struct Gain {
    /// Of one sequence, of two, and so on.
    sizes: Vec<Size>,
    steps_apart: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    /// Seconds of a step, a running mean.
    step_s: f64,
    trials: u32,
}

impl Gain {
    /// How many of so many sequences take part in the next step.
    pub(crate) fn together(&mut self, running: usize) -> usize {
        // Kernels take rows by fours.
        let fours = running / 4 * 4;
        let tried = [running, 1, fours.max(1)].into_iter().find(|size| self.per_token(*size).is_none());
        if let Some(size) = tried.filter(|_| running > 1) {
            return size;
        }
        let Some(all) = self.per_token(running) else { return running };
        let sizes = (1..running).filter_map(|size| self.per_token(size).map(|cost| (size, cost)));
        let best = sizes.min_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, cost)| all > cost * (1.0 + SLACK));
        let Some((size, _)) = best else { return running };
        self.steps_apart += 1;
        if self.steps_apart >= RETRY_STEPS {
            self.steps_apart = 0;
            self.sizes[running - 1] = Size::default();
            return running;
        }
        size
    }

    /// A step that fed one token of each of so many sequences and nothing else.
    pub(crate) fn step(&mut self, sequences: usize, took: Duration) {
        if sequences == 0 {
            return;
        }
        if self.sizes.len() < sequences {
            self.sizes.resize(sequences, Size::default());
        }
        let (size, took) = (&mut self.sizes[sequences - 1], took.as_secs_f64());
        // The first step is left out of the mean.
        size.step_s = if size.trials < 2 { took } else { size.step_s + WEIGHT * (took - size.step_s) };
        size.trials = size.trials.saturating_add(1);
    }

    /// Seconds that a token costs in a step of this size; none while it was not tried.
    fn per_token(&self, size: usize) -> Option<f64> {
        let known = self.sizes.get(size.checked_sub(1)?).filter(|known| known.trials >= TRIALS);
        known.map(|known| known.step_s / size as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(steps: &[(usize, u64)]) -> Gain {
        let mut gain = Gain::default();
        for (size, ms) in steps {
            (0..TRIALS).for_each(|_| gain.step(*size, Duration::from_millis(*ms)));
        }
        gain
    }

    #[test]
    fn what_was_not_measured_is_tried() {
        assert_eq!(Gain::default().together(6), 6);
        assert_eq!(learned(&[(6, 60)]).together(6), 1);
        assert_eq!(learned(&[(6, 60), (1, 10)]).together(6), 4);
        assert_eq!(learned(&[(6, 60), (1, 10), (4, 40)]).together(6), 6);
        assert_eq!((Gain::default().together(0), Gain::default().together(1)), (0, 1));
    }

    #[test]
    fn a_batch_that_pays_stays_together_and_one_that_does_not_is_split() {
        // Four at once cost what two cost by themselves; five cost more per token than four.
        let mut gain = learned(&[(1, 10), (4, 20), (5, 36)]);
        assert_eq!((gain.together(1), gain.together(4), gain.together(5)), (1, 4, 4));
        let mut none = learned(&[(1, 10), (2, 30)]);
        assert_eq!(none.together(2), 1);
        let mut even = learned(&[(1, 10), (2, 20)]);
        assert_eq!(even.together(2), 2);
    }

    #[test]
    fn a_split_group_is_tried_again() {
        let mut gain = learned(&[(1, 10), (2, 30)]);
        let apart = (0..RETRY_STEPS).take_while(|_| gain.together(2) == 1).count();
        assert_eq!(apart + 1, RETRY_STEPS as usize);
        assert_eq!(gain.together(2), 2);
    }

    #[test]
    fn the_first_step_of_a_size_does_not_count() {
        let mut gain = learned(&[(1, 10)]);
        gain.step(2, Duration::from_secs(5));
        (0..TRIALS).for_each(|_| gain.step(2, Duration::from_millis(12)));
        assert_eq!((gain.together(2), gain.steps_apart), (2, 0));
    }
}
