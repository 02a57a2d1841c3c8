//! Figures of paired turns: how far they spread, and what the machine's memory gave meanwhile.

use crate::figures::percentile;
use crate::report::Check;
use serde::Serialize;
use std::hint::black_box;
use std::time::Instant;

/// Turns of a comparison at least.
pub(crate) const PAIRS_MIN: usize = 5;
/// Bytes that the probe reads: more than any last-level cache of a gateway.
const PROBE_BYTES: usize = 128 << 20;

/// Least, median and largest of some figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of these figures; not-a-number of none.
    pub(crate) fn of(figures: &[f64]) -> Self {
        let at = |percent| percentile(figures, percent).unwrap_or(f64::NAN);
        Self { min: at(0.0), median: at(50.0), max: at(100.0) }
    }

    /// `median (min to max)`.
    pub(crate) fn shown(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$} to {:.digits$})", self.median, self.min, self.max)
    }
}

/// Figures of both sides, turn by turn.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Pairs {
    pub(crate) ours: Vec<f64>,
    pub(crate) theirs: Vec<f64>,
}

impl Pairs {
    pub(crate) fn push(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// Ours by theirs, turn by turn.
    pub(crate) fn ratios(&self) -> Spread {
        let ratios: Vec<f64> = self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect();
        Spread::of(&ratios)
    }

    /// Cells of a table: ours, theirs, ratio.
    pub(crate) fn cells(&self, digits: usize) -> [String; 3] {
        let median = |figures: &[f64]| format!("{:.digits$}", Spread::of(figures).median);
        [median(&self.ours), median(&self.theirs), self.ratios().shown(3)]
    }

    /// The median of the ratios has to reach the bar.
    pub(crate) fn at_least(&self, what: impl Into<String>, bar: f64) -> Check {
        Check::at_least(what, self.ratios().median, bar, "×")
    }

    /// The median of the ratios may not exceed the bar.
    pub(crate) fn at_most(&self, what: impl Into<String>, bar: f64) -> Check {
        Check::at_most(what, self.ratios().median, bar, "×")
    }
}

/// What memory gives now, read in one stream by so many threads, in GB/s: the ceiling of every decode.
pub(crate) fn bandwidth(threads: usize) -> f64 {
    let share = PROBE_BYTES / threads.max(1) / 8;
    let blocks: Vec<Vec<u64>> = (0..threads.max(1)).map(|n| vec![n as u64; share]).collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for block in &blocks {
            scope.spawn(move || black_box(block.iter().fold(0_u64, |sum, number| sum.wrapping_add(*number))));
        }
    });
    (blocks.len() * share * 8) as f64 / began.elapsed().as_secs_f64() / 1e9
}

/// Cores that this process may use.
pub(crate) fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_turn_by_turn() {
        let mut pairs = Pairs::default();
        for (ours, theirs) in [(10.0, 10.0), (30.0, 20.0), (5.0, 10.0), (9.0, 10.0), (22.0, 20.0)] {
            pairs.push(ours, theirs);
        }
        assert_eq!(pairs.ratios(), Spread { min: 0.5, median: 1.0, max: 1.5 });
        assert_eq!(pairs.ratios().shown(2), "1.00 (0.50 to 1.50)");
        assert!(pairs.at_least("rate", 0.97).passes() && !pairs.at_least("rate", 1.01).passes());
        assert!(pairs.at_most("time", 1.0).passes() && !pairs.at_most("time", 0.9).passes());
    }

    #[test]
    fn no_figures_pass_no_bar() {
        assert!(!Pairs::default().at_least("rate", 0.0).passes());
        assert!(!Pairs::default().at_most("time", 9.0).passes());
    }

    #[test]
    fn memory_gives_something() {
        assert!((0.1..10_000.0).contains(&bandwidth(2)));
    }
}
