//! The rig `budget`: is an escalated share held, whatever comes?

use super::pool::{Files, Mixture, Pools, Sample, learned};
use crate::report::{Check, Common, finish, table};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::process::ExitCode;
use tidegate_core::share::{Share, Verdict};

/// Shares that are held.
const SHARES: [f64; 3] = [0.05, 0.2, 0.35];
/// Prompts of a stream before and after the change.
const PROMPTS: usize = 10_000;
/// Prompts of the short version.
const PROMPTS_SHORT: usize = 3_000;
/// Streams, each with its own seed.
const SEEDS: u64 = 20;
/// Prompts over which the share is to hold.
const WINDOW: usize = 1_000;
/// How far it may be off in each of these, in points.
const OFF_MAX: f64 = 1.0;
/// Prompts within which it is back after a change.
const BACK: usize = 500;
/// How far off it may be in these, in points.
const BACK_OFF_MAX: f64 = 2.0;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    files: Files,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let pools = options.files.read()?;
    let prompts = if options.common.short { PROMPTS_SHORT } else { PROMPTS };
    println!(
        "Measured: confidences of {} on the test prompts. Modelled: their order, drawn with replacement; after {prompts} \
         prompts the out-of-scope share jumps from 5 to 40 %. {SEEDS} streams per share; every window of {WINDOW}.",
        pools.edge
    );
    let streams = Streams::of(&pools)?;
    let (mut rows, mut worst, mut worst_back) = (Vec::new(), 0.0_f64, 0.0_f64);
    for share in SHARES {
        let (mut off, mut off_after, mut back) = (0.0_f64, 0.0_f64, 0.0_f64);
        for seed in 0..SEEDS {
            let decisions = streams.decide(share, prompts, seed);
            let (before, after) = decisions.split_at(prompts);
            off = off.max(farthest(before, WINDOW, share));
            off_after = off_after.max(farthest(after, WINDOW, share));
            back = back.max(farthest(&after[..BACK], BACK, share));
        }
        let numbers = [off, off_after, back].map(|v| format!("{v:.2}"));
        rows.push(std::iter::once(format!("{:.0} %", 100.0 * share)).chain(numbers).collect());
        worst = worst.max(off).max(off_after);
        worst_back = worst_back.max(back);
    }
    let header = ["share", "farthest off, points", "after the jump", "first 500 after it"];
    println!("{}", table(&header, &rows));
    let checks = [
        Check::at_most("off in any window of 1,000", worst, OFF_MAX, "points"),
        Check::at_most("off in the 500 after the jump", worst_back, BACK_OFF_MAX, "points"),
    ];
    finish("budget", &options.common, &checks, &serde_json::json!({ "rows": rows }))
}

/// How far the escalated share of any window is off, in points.
fn farthest(decisions: &[bool], window: usize, share: f64) -> f64 {
    let mut count = decisions[..window].iter().filter(|d| **d).count();
    let off = |count: usize| 100.0 * (count as f64 / window as f64 - share).abs();
    let mut worst = off(count);
    for next in window..decisions.len() {
        count = count + usize::from(decisions[next]) - usize::from(decisions[next - window]);
        worst = worst.max(off(count));
    }
    worst
}

/// Confidences in scope and out of scope.
struct Streams {
    inside: Vec<f64>,
    outside: Vec<f64>,
}

impl Streams {
    fn of(pools: &Pools) -> anyhow::Result<Self> {
        let calibration = learned(&Mixture::Intent(0.03).of(&pools.validation, 0))?;
        let of = |oos: bool| {
            let chosen = pools.test.iter().filter(|s: &&Sample| s.row.task == "intent" && s.row.oos == oos);
            chosen.map(|s| calibration.confidence(&s.signals).get()).collect()
        };
        Ok(Self { inside: of(false), outside: of(true) })
    }

    fn decide(&self, share: f64, prompts: usize, seed: u64) -> Vec<bool> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut holder = Share::new(share);
        let mut decide = |number: usize| {
            let outside = random.random_bool(if number < prompts { 0.05 } else { 0.4 });
            let from = if outside { &self.outside } else { &self.inside };
            let confidence = from[random.random_range(0..from.len())];
            holder.decide(confidence, random.random()) == Verdict::Escalate
        };
        (0..2 * prompts).map(&mut decide).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farthest_window_is_found() {
        let decisions: Vec<bool> = (0..100).map(|i| i < 10 || i % 10 == 0).collect();
        assert!((farthest(&decisions, 10, 0.1) - 90.0).abs() < 1e-9);
        assert!(farthest(&decisions[20..], 10, 0.1) < 1e-9);
    }
}
