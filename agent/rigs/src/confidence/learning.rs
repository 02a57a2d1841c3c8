//! The rig `learning`: a gateway that learns from what the cloud answers, against every fixed threshold in hindsight.

use super::pool::{Files, Mixture, Pools, Sample, learned};
use crate::report::{Check, Common, finish, table};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::process::ExitCode;
use tidegate_core::Confidence;
use tidegate_core::learn::{Drift, Learner, audit_chance};

/// Streams, each with its own seed.
const SEEDS: u64 = 20;
/// Streams of the short version.
const SEEDS_SHORT: u64 = 4;
/// Prompts of each part of a stream.
const PART: usize = 3_000;
/// Out-of-scope share of each part: calm, drifted, calm again.
const PARTS: [f64; 3] = [0.05, 0.4, 0.1];
/// What an escalation costs; a kept answer that differs from the cloud's costs 1.
const PRICE: f64 = 0.3;
/// Share of kept answers that are audited.
const AUDIT: f64 = 0.01;
/// How much dearer than the best fixed threshold learning may be, in percent.
const DEARER_MAX: f64 = 5.0;
/// Fixed thresholds that are tried.
const THRESHOLDS: u32 = 200;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    files: Files,
}

/// One prompt of a stream: the shipped confidence, and whether the cloud says the same.
type Step = (Confidence, bool);

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let pools = options.files.read()?;
    let seeds = if options.common.short { SEEDS_SHORT } else { SEEDS };
    println!(
        "Measured: answers of {} and {} to the test prompts; confidence fitted in scope on validation. Modelled: the \
         order of prompts, parts of {PART} with 5, 40 and 10 % out of scope; an escalation costs {PRICE}, a kept answer \
         that the cloud would not have given 1; up to {:.0} % of kept answers are audited at the price of an escalation.",
        pools.edge,
        pools.cloud,
        100.0 * AUDIT
    );
    let calibration = learned(&Mixture::Intent(0.0).of(&pools.validation, 0))?;
    let (mut rows, mut dearer, mut frozen_dearer) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..seeds {
        let stream = stream(&pools, seed, |s| calibration.confidence(&s.signals));
        let (best, threshold) = hindsight(&stream);
        let (cost, alarms) = learning(&stream, seed);
        let frozen = fixed(&stream, 1.0 - PRICE);
        dearer.push(100.0 * (cost / best - 1.0));
        frozen_dearer.push(100.0 * (frozen / best - 1.0));
        let numbers = [threshold, best, frozen, cost, 100.0 * (cost / best - 1.0)].map(|v| format!("{v:.2}"));
        rows.push([seed.to_string()].into_iter().chain(numbers).chain([alarms.to_string()]).collect());
    }
    let header =
        ["seed", "best fixed threshold", "its cost", "shipped, unlearned", "learning", "dearer %", "under alarm"];
    println!("{}", table(&header, &rows));
    let worst = dearer.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    let mean = crate::figures::mean(&dearer).unwrap_or(f64::NAN);
    let unlearned = crate::figures::mean(&frozen_dearer).unwrap_or(f64::NAN);
    println!("Mean over the seeds: {mean:.2} % dearer with learning, {unlearned:.2} % without.");
    let checks = [
        Check::at_most("dearer than the best fixed threshold, mean of seeds", mean, DEARER_MAX, "%"),
        Check::at_most("dearer than the best fixed threshold, worst seed", worst, DEARER_MAX, "%"),
    ];
    finish("learning", &options.common, &checks, &serde_json::json!({ "rows": rows }))
}

fn stream(pools: &Pools, seed: u64, confidence: impl Fn(&Sample) -> Confidence) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let of = |oos: bool| -> Vec<Step> {
        let chosen = pools.test.iter().filter(|s| s.row.task == "intent" && s.row.oos == oos);
        chosen.map(|s| (confidence(s), s.agree)).collect()
    };
    let (inside, outside) = (of(false), of(true));
    let mut steps = Vec::with_capacity(PARTS.len() * PART);
    for share in PARTS {
        for _ in 0..PART {
            let from = if random.random_bool(share) { &outside } else { &inside };
            steps.push(from[random.random_range(0..from.len())]);
        }
    }
    steps
}

fn fixed(stream: &[Step], threshold: f64) -> f64 {
    stream.iter().map(|(c, agree)| if c.get() < threshold { PRICE } else { loss(*agree) }).sum()
}

fn loss(agree: bool) -> f64 {
    if agree { 0.0 } else { 1.0 }
}

/// Cost of the best fixed threshold, and which it is.
fn hindsight(stream: &[Step]) -> (f64, f64) {
    let tried = (0..=THRESHOLDS).map(|i| f64::from(i) * 1.005 / f64::from(THRESHOLDS));
    let costs = tried.map(|threshold| (fixed(stream, threshold), threshold));
    costs.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::NAN, f64::NAN))
}

/// Cost of the gateway that learns, and for how many prompts it was under alarm.
fn learning(stream: &[Step], seed: u64) -> (f64, usize) {
    let mut random = StdRng::seed_from_u64(1_000 + seed);
    let mut learner = Learner::default();
    let (mut cost, mut alarms) = (0.0, 0);
    for (shipped, agree) in stream {
        alarms += usize::from(learner.drift() == Drift::Alarm);
        let confidence = learner.correct(*shipped);
        let escalated = confidence.get() < 1.0 - PRICE;
        let chance = audit_chance(confidence, AUDIT);
        let audited = !escalated && random.random_bool(chance);
        cost += if escalated || audited { PRICE } else { loss(*agree) };
        if escalated || audited {
            learner.learn(*shipped, *agree, if audited { 1.0 / chance } else { 1.0 });
        }
    }
    (cost, alarms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hindsight_finds_the_cheapest_threshold() {
        let stream: Vec<Step> = (0..100).map(|i| (Confidence::new(f64::from(i) / 100.0), i >= 30)).collect();
        let (cost, threshold) = hindsight(&stream);
        assert!((cost - 30.0 * PRICE).abs() < 1e-9, "{cost}");
        assert!((0.29..=0.31).contains(&threshold), "{threshold}");
    }
}
