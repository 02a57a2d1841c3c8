//! The rig `confidence`: is a stated confidence true, and does it rank better than each single signal?

use super::pool::{Files, Mixture, Pools, Sample, interval, learned, resampled};
use crate::report::{Check, Common, finish, table};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use std::process::ExitCode;
use std::time::Instant;
use tidegate_core::Calibration;
use tidegate_core::features::single_signals;
use tidegate_core::judge::{BINS, Verdict, brier, calibration_error, risk_area};

/// Splits of the long version.
const SPLITS: usize = 200;
/// Splits of the short version.
const SPLITS_SHORT: usize = 10;
/// Mixtures and the bar of their calibration error in percent; none where the noise of so few prompts hides any.
const MIXTURES: [(Mixture, Option<f64>); 4] = [
    (Mixture::Intent(0.0), Some(3.0)),
    (Mixture::Intent(0.05), Some(3.0)),
    (Mixture::Intent(0.25), Some(4.0)),
    (Mixture::Action, None),
];
/// Longest time of one confidence, in microseconds.
const TIME_BAR_US: f64 = 20.0;
/// Confidences that are timed.
const TIMED: usize = 20_000;

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
    let splits = if options.common.short { SPLITS_SHORT } else { SPLITS };
    println!("Measured: answers of {} on the test prompts; no part is modelled. {splits} splits.", pools.edge);
    let (mut checks, mut errors, mut areas) = (Vec::new(), Vec::new(), Vec::new());
    for (mixture, bar) in MIXTURES {
        let result = Outcome::of(&pools, mixture, splits)?;
        checks.extend(bar.map(|bar| {
            Check::at_most(format!("calibration error, {}", mixture.name()), 100.0 * result.error.0, bar, "%")
        }));
        errors.push(result.error_row(mixture));
        areas.extend(result.area_rows(mixture));
    }
    for ((name, area), lead) in together(&pools, splits)? {
        let numbers = [area, area - lead.0, lead.0, lead.1, lead.2].map(|v| format!("{:.2}", 1e3 * v));
        areas.push(std::iter::once(format!("both tasks: {name}")).chain(numbers).collect());
        checks.push(Check::at_least(format!("lead over {name}, lower end × 1000"), 1e3 * lead.1, 0.0, ""));
    }
    errors.push(foreign(&pools, splits)?);
    checks.push(Check::at_most("time of one confidence", time_us(&pools)?, TIME_BAR_US, "us"));
    let header = ["fitted and tested on", "prompts", "error", "2.5 %", "97.5 %", "perfect score's", "Brier"];
    println!("Expected calibration error, 15 bins of equal mass:\n{}", table(&header, &errors));
    let header = ["risk-coverage area × 1000", "signal", "combined", "lead", "2.5 %", "97.5 %"];
    println!("Leads are held on both tasks together, which is what a gateway serves; each mixture is reported.");
    println!("{}", table(&header, &areas));
    finish("confidence", &options.common, &checks, &serde_json::json!({ "errors": errors, "areas": areas }))
}

/// A signal with its mean area, and our lead over it with its interval.
type Lead = ((&'static str, f64), (f64, f64, f64));

struct Outcome {
    prompts: usize,
    error: (f64, f64, f64),
    floor: f64,
    brier: f64,
    combined: f64,
    /// Per signal: its mean area, and the lead of the combined one with its interval.
    lead: Vec<Lead>,
}

impl Outcome {
    fn of(pools: &Pools, mixture: Mixture, splits: usize) -> anyhow::Result<Self> {
        let mut random = StdRng::seed_from_u64(7);
        let names: Vec<&'static str> = single_signals(&tidegate_core::Signals::default()).map(|s| s.0).to_vec();
        let (mut errors, mut floors, mut briers, mut combined) = (vec![], vec![], vec![], vec![]);
        let mut singles = vec![(Vec::new(), Vec::new()); names.len()];
        let mut prompts = 0;
        for split in 0..splits {
            let mut pool = mixture.of(&pools.test, split as u64);
            pool.shuffle(&mut random);
            prompts = pool.len();
            let (fit, report) = pool.split_at(pool.len() / 2);
            let calibration = learned(fit)?;
            let verdicts = verdicts(report, &calibration);
            errors.push(calibration_error(&verdicts, BINS));
            floors.push(calibration_error(&perfect(&verdicts, &mut random), BINS));
            briers.push(brier(&verdicts));
            let drawn = resampled(report, report.len(), &mut random);
            let ours = risk_area(&ranked(&drawn, &calibration));
            combined.push(ours);
            for (number, (areas, leads)) in singles.iter_mut().enumerate() {
                let one: Vec<Verdict> = drawn.iter().map(|s| s.verdict(single_signals(&s.signals)[number].1)).collect();
                let theirs = risk_area(&one);
                areas.push(theirs);
                leads.push(theirs - ours);
            }
        }
        let mean = |values: &[f64]| interval(values).0;
        let lead = names.iter().zip(&singles).map(|(name, (areas, leads))| ((*name, mean(areas)), interval(leads)));
        Ok(Self {
            prompts,
            error: interval(&errors),
            floor: mean(&floors),
            brier: mean(&briers),
            combined: mean(&combined),
            lead: lead.collect(),
        })
    }

    fn error_row(&self, mixture: Mixture) -> Vec<String> {
        let (mean, low, high) = self.error;
        let numbers = [mean, low, high, self.floor, self.brier].map(|v| format!("{v:.4}"));
        [mixture.name(), self.prompts.to_string()].into_iter().chain(numbers).collect()
    }

    fn area_rows(&self, mixture: Mixture) -> Vec<Vec<String>> {
        let row = |((name, area), lead): &Lead| {
            let numbers = [*area, self.combined, lead.0, lead.1, lead.2].map(|v| format!("{:.2}", 1e3 * v));
            std::iter::once(format!("{}: {name}", mixture.name())).chain(numbers).collect()
        };
        self.lead.iter().map(row).collect()
    }
}

/// Risk-coverage areas over intents with 5 % out of scope and actions together: per signal its area and our lead.
fn together(pools: &Pools, splits: usize) -> anyhow::Result<Vec<Lead>> {
    let mut random = StdRng::seed_from_u64(9);
    let names = single_signals(&tidegate_core::Signals::default()).map(|s| s.0);
    let mut collected = vec![(Vec::new(), Vec::new()); names.len()];
    for split in 0..splits {
        let (mut ours, mut singles) = (Vec::new(), vec![Vec::new(); names.len()]);
        for mixture in [Mixture::Intent(0.05), Mixture::Action] {
            let mut pool = mixture.of(&pools.test, split as u64);
            pool.shuffle(&mut random);
            let (fit, report) = pool.split_at(pool.len() / 2);
            let calibration = learned(fit)?;
            for sample in resampled(report, report.len(), &mut random) {
                // The order within a step of the isotonic map is the score's.
                let confidence = calibration.confidence(&sample.signals).get();
                ours.push(sample.verdict(confidence + 1e-6 * calibration.rank(&sample.signals).max(-1.0)));
                let scores = single_signals(&sample.signals);
                singles.iter_mut().zip(scores).for_each(|(list, (_, score))| list.push(sample.verdict(score)));
            }
        }
        let area = risk_area(&ours);
        for ((areas, leads), single) in collected.iter_mut().zip(&singles) {
            let theirs = risk_area(single);
            areas.push(theirs);
            leads.push(theirs - area);
        }
    }
    let lead =
        |(name, (areas, leads)): (&'static str, &(Vec<f64>, Vec<f64>))| ((name, interval(areas).0), interval(leads));
    Ok(names.into_iter().zip(&collected).map(lead).collect())
}

fn verdicts(samples: &[&Sample], calibration: &Calibration) -> Vec<Verdict> {
    samples.iter().map(|s| s.verdict(calibration.confidence(&s.signals).get())).collect()
}

/// The combined score before the isotonic map, whose steps would be ties.
fn ranked(samples: &[&Sample], calibration: &Calibration) -> Vec<Verdict> {
    samples.iter().map(|s| s.verdict(calibration.rank(&s.signals))).collect()
}

/// Labels drawn by the confidences themselves: the error that is left is chance.
fn perfect(verdicts: &[Verdict], random: &mut StdRng) -> Vec<Verdict> {
    verdicts.iter().map(|v| (v.0, random.random_bool(v.0))).collect()
}

/// Fitted without out-of-scope utterances, tested with 25 % of them: what a gateway meets that was calibrated at a desk.
fn foreign(pools: &Pools, splits: usize) -> anyhow::Result<Vec<String>> {
    let (mut errors, mut briers, mut prompts) = (Vec::new(), Vec::new(), 0);
    for split in 0..splits {
        let pool = Mixture::Intent(0.25).of(&pools.test, split as u64);
        let (fit, report) = pool.split_at(pool.len() / 2);
        let inside: Vec<&Sample> = fit.iter().filter(|s| !s.row.oos).copied().collect();
        let verdicts = verdicts(report, &learned(&inside)?);
        errors.push(calibration_error(&verdicts, BINS));
        briers.push(brier(&verdicts));
        prompts = pool.len();
    }
    let (mean, low, high) = interval(&errors);
    let numbers = [mean, low, high].map(|v| format!("{v:.4}"));
    let name = "in scope, then 25 % out of scope (no bar)".to_owned();
    let rest = ["-".to_owned(), format!("{:.4}", interval(&briers).0)];
    Ok([name, prompts.to_string()].into_iter().chain(numbers).chain(rest).collect())
}

fn time_us(pools: &Pools) -> anyhow::Result<f64> {
    let pool = Mixture::Intent(0.05).of(&pools.test, 0);
    let calibration = learned(&pool)?;
    let begin = Instant::now();
    let mut sum = 0.0;
    for number in 0..TIMED {
        sum += calibration.confidence(&pool[number % pool.len()].signals).get();
    }
    let spent = begin.elapsed().as_secs_f64() * 1e6 / TIMED as f64;
    Ok(if sum.is_finite() { spent } else { f64::NAN })
}
