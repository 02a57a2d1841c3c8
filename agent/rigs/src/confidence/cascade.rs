//! The rig `cascade`: how near does the gateway with a cloud behind it come to the cloud alone, at how many escalations,
//! and how much better does it choose than other routers?

use super::pool::{Files, Mixture, Pools, Sample, interval, learned, resampled};
use crate::report::{Check, Common, finish, table};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use std::process::ExitCode;
use tidegate_core::gain::Gain;
use tidegate_core::isotonic::isotonic;
use tidegate_core::judge::{Pair, deferral, deferral_area, routing_efficiency};
use tidegate_core::{Calibration, Confidence};

/// Splits of the long version.
const SPLITS: usize = 200;
/// Splits of the short version.
const SPLITS_SHORT: usize = 10;
/// Largest escalated share at which the accuracy is looked at.
const SHARE_MAX: f64 = 0.35;
/// How far under the cloud alone the cascade may be, in points.
const BEHIND_MAX: f64 = 0.5;
/// Least routing efficiency.
const EFFICIENCY_MIN: f64 = 0.5;
/// Share of out-of-scope utterances among the intents.
const OUT_OF_SCOPE: f64 = 0.05;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    files: Files,
}

/// A way to rank answers, learned from the prompts of one half. Names as in the tables.
const ROUTERS: [&str; 4] = ["ours", "mean log-probability", "first-token margin", "margin, isotonic"];

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let pools = options.files.read()?;
    let splits = if options.common.short { SPLITS_SHORT } else { SPLITS };
    println!(
        "Measured: answers of {} and of {} to the same test prompts; nothing is modelled.",
        pools.edge, pools.cloud
    );
    let (mut rows, mut checks) = (Vec::new(), Vec::new());
    for workload in [Workload::Both, Workload::One(Mixture::Intent(OUT_OF_SCOPE)), Workload::One(Mixture::Action)] {
        let outcome = Outcome::of(&pools, workload, splits)?;
        if workload == Workload::Both {
            checks.extend(outcome.checks());
        }
        rows.extend(outcome.rows(workload));
    }
    println!("Bars are held on both tasks together, which is what a gateway serves; each task is reported.");
    println!("{}", table(&["figure", "mean", "2.5 %", "97.5 %"], &rows));
    finish("cascade", &options.common, &checks, &serde_json::json!({ "rows": rows }))
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Workload {
    /// Intents and actions, each with its own calibration.
    Both,
    /// One task.
    One(Mixture),
}

impl Workload {
    fn name(self) -> String {
        match self {
            Self::Both => "both tasks".to_owned(),
            Self::One(mixture) => mixture.name(),
        }
    }

    fn mixtures(self) -> Vec<Mixture> {
        match self {
            Self::Both => vec![Mixture::Intent(OUT_OF_SCOPE), Mixture::Action],
            Self::One(mixture) => vec![mixture],
        }
    }
}

/// What one half taught about a task.
struct Taught {
    calibration: Calibration,
    margins: Calibration,
    gain: Gain,
}

impl Taught {
    fn of(samples: &[&Sample]) -> anyhow::Result<Self> {
        let margins: Vec<(f64, bool, f64)> = samples.iter().map(|s| (s.signals.mean_margin, s.right(), 1.0)).collect();
        let pairs: Vec<(bool, bool)> = samples.iter().map(|s| (s.right(), s.cloud_right)).collect();
        Ok(Self {
            calibration: learned(samples)?,
            margins: Calibration::new(isotonic(&margins)).unwrap_or_else(|_| Calibration::identity()),
            gain: Gain::measured(&pairs),
        })
    }

    /// Scores of the routers, in the order of [`ROUTERS`]: the higher, the sooner an answer is kept. Ours is the
    /// expected loss of a hop, so that tasks compare.
    fn scores(&self, sample: &Sample) -> [f64; 4] {
        let confidence = self.calibration.confidence(&sample.signals).get();
        // The order within a step of the isotonic map is the score's.
        let ours = -self.gain.of(Confidence::new(confidence)) + 1e-6 * self.calibration.rank(&sample.signals).max(-1.0);
        let margin = self.margins.apply(sample.signals.mean_margin).get();
        [ours, sample.signals.mean_logprob, sample.signals.first_margin, margin]
    }
}

#[derive(Default)]
struct Outcome {
    edge: Vec<f64>,
    cloud: Vec<f64>,
    at_share: Vec<f64>,
    best: Vec<f64>,
    parity: Vec<f64>,
    efficiency: [Vec<f64>; 4],
    lead: [Vec<f64>; 4],
}

impl Outcome {
    fn of(pools: &Pools, workload: Workload, splits: usize) -> anyhow::Result<Self> {
        let mut random = StdRng::seed_from_u64(5);
        let mut outcome = Self::default();
        for split in 0..splits {
            let mut pairs: [Vec<Pair>; 4] = Default::default();
            for mixture in workload.mixtures() {
                let mut pool = mixture.of(&pools.test, split as u64);
                pool.shuffle(&mut random);
                let (fit, report) = pool.split_at(pool.len() / 2);
                let taught = Taught::of(fit)?;
                for sample in resampled(report, report.len(), &mut random) {
                    let scores = taught.scores(sample);
                    pairs.iter_mut().zip(scores).for_each(|(list, score)| list.push(sample.pair(score)));
                }
            }
            outcome.add(&pairs);
        }
        Ok(outcome)
    }

    fn add(&mut self, pairs: &[Vec<Pair>; 4]) {
        let curve = deferral(&pairs[0]);
        let n = pairs[0].len();
        let escalated = |count: usize| 100.0 * curve[n - count];
        let most = (SHARE_MAX * n as f64) as usize;
        let (edge, cloud) = (escalated(0), escalated(n));
        self.edge.push(edge);
        self.cloud.push(cloud);
        // The threshold is chosen for this share; fewer escalations serve as well where they are better.
        let best = (0..=most).map(escalated).fold(f64::NEG_INFINITY, f64::max);
        self.at_share.push(best);
        self.best.push((0..=n).map(escalated).fold(f64::NEG_INFINITY, f64::max) - cloud);
        let parity = (0..=n).find(|count| escalated(*count) >= cloud - BEHIND_MAX).unwrap_or(n);
        self.parity.push(100.0 * parity as f64 / n as f64);
        let ours = (routing_efficiency(&pairs[0]), deferral_area(&pairs[0]));
        for (number, list) in pairs.iter().enumerate() {
            self.efficiency[number].push(routing_efficiency(list));
            self.lead[number].push(100.0 * (ours.1 - deferral_area(list)));
        }
    }

    fn checks(&self) -> Vec<Check> {
        let behind: Vec<f64> = self.cloud.iter().zip(&self.at_share).map(|(c, a)| c - a).collect();
        let what = format!("behind the cloud alone at ≤ {:.0} % escalated", 100.0 * SHARE_MAX);
        let mut checks = vec![
            Check::at_most(what, interval(&behind).0, BEHIND_MAX, "points"),
            Check::at_least("routing efficiency", interval(&self.efficiency[0]).0, EFFICIENCY_MIN, ""),
        ];
        for (number, name) in ROUTERS.iter().enumerate().skip(1) {
            let low = interval(&self.lead[number]).1;
            checks.push(Check::at_least(format!("lead over {name}, lower end"), low, 0.0, "points"));
        }
        checks
    }

    fn rows(&self, workload: Workload) -> Vec<Vec<String>> {
        let row = |what: String, values: &[f64]| {
            let (mean, low, high) = interval(values);
            let numbers = [mean, low, high].map(|v| format!("{v:.3}"));
            std::iter::once(format!("{}: {what}", workload.name())).chain(numbers).collect::<Vec<String>>()
        };
        let mut rows = vec![
            row("gateway alone, % right".to_owned(), &self.edge),
            row("cloud alone, % right".to_owned(), &self.cloud),
            row(format!("cascade, ≤ {:.0} % escalated, % right", 100.0 * SHARE_MAX), &self.at_share),
            row("cascade's best above the cloud alone, points".to_owned(), &self.best),
            row(format!("least escalated within {BEHIND_MAX} points of the cloud, %"), &self.parity),
        ];
        for (number, name) in ROUTERS.iter().enumerate() {
            rows.push(row(format!("routing efficiency, {name}"), &self.efficiency[number]));
        }
        for (number, name) in ROUTERS.iter().enumerate().skip(1) {
            rows.push(row(format!("lead in mean accuracy over {name}, points"), &self.lead[number]));
        }
        rows
    }
}
