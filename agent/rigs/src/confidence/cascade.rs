//! The rig `cascade`: how near does the gateway with a cloud behind it come to the cloud alone, at how many escalations,
//! and how much better does it choose than other routers?
//!
//! The cascade is what the gateway does: it ranks by expected gain, and of an escalated prompt the surer answer stays
//! ("a resolution that is less sure than our answer does not replace it"). That rule says what becomes of an escalated
//! prompt and not which one is escalated, so all routers are judged with the same outcomes, their lots and their oracle
//! as well: a lead is the routing's alone. What the routers give as they were published, where the cloud's answer
//! always replaces, is reported beside it.

use super::bootstrap::{DRAWS, DRAWS_SHORT, Draws, Figure, Ranking};
use super::pool::{Files, Mixture, Pools, Sample, Shipped, interval};
use crate::report::{Check, Common, finish, table};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use std::process::ExitCode;
use tidegate_core::Calibration;
use tidegate_core::gain::{Gain, replaces};
use tidegate_core::isotonic::isotonic;
use tidegate_core::judge::{Pair, deferral};

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
    let short = options.common.short;
    let bench = Bench {
        shipped: Shipped::of(&pools)?,
        cloud: Shipped::of_cloud(&pools)?,
        draws: Draws::of(&pools.test, if short { DRAWS_SHORT } else { DRAWS }),
        pools: &pools,
        splits: if short { SPLITS_SHORT } else { SPLITS },
    };
    println!(
        "Measured: answers of {} and of {} to the same test prompts; nothing is modelled.",
        pools.edge, pools.cloud
    );
    let (mut rows, mut checks) = (Vec::new(), Vec::new());
    for workload in [Workload::Both, Workload::One(Mixture::Intent(OUT_OF_SCOPE)), Workload::One(Mixture::Action)] {
        let outcome = bench.outcome(workload)?;
        if workload == Workload::Both {
            checks.extend(outcome.checks());
        }
        rows.extend(outcome.rows(workload));
    }
    println!(
        "Bars are held on both tasks together, which is what a gateway serves; each task is reported. Of an escalated \
         prompt the surer answer stays, whoever routes. Intervals of efficiencies and leads: paired bootstrap over the \
         prompts, of the mean over the splits; others: over the splits."
    );
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
    cloud: Calibration,
    margins: Calibration,
    gain: Gain,
}

/// What became of a prompt of the other half.
struct Told<'a> {
    sample: &'a Sample,
    /// By router, in the order of [`ROUTERS`]: the higher, the sooner our answer is kept. Ours is the expected loss of a
    /// hop, so that tasks compare.
    scores: [f64; 4],
    /// Whether the outcome is right where it is escalated: the surer answer's.
    after: bool,
}

impl Taught {
    fn of(samples: &[&Sample], bench: &Bench) -> anyhow::Result<Self> {
        let margins: Vec<(f64, bool, f64)> = samples.iter().map(|s| (s.signals.mean_margin, s.right(), 1.0)).collect();
        let mut taught = Self {
            calibration: bench.shipped.learned(samples)?,
            cloud: bench.cloud.cloud_learned(samples)?,
            margins: Calibration::new(isotonic(&margins)).unwrap_or_else(|_| Calibration::identity()),
            gain: Gain::default(),
        };
        let pairs: Vec<(bool, bool)> = samples.iter().map(|s| (s.right(), taught.after(s))).collect();
        taught.gain = Gain::measured(&pairs);
        Ok(taught)
    }

    /// Whether the outcome of an escalated prompt is right.
    fn after(&self, sample: &Sample) -> bool {
        let ours = self.calibration.confidence(&sample.signals).get();
        let clouds = self.cloud.confidence(&sample.cloud_signals).get();
        if replaces(Some(ours), Some(clouds)) { sample.cloud_right } else { sample.right() }
    }

    fn told<'a>(&self, sample: &'a Sample) -> Told<'a> {
        let signals = &sample.signals;
        let ours = -self.gain.of(self.calibration.confidence(signals));
        let margin = self.margins.apply(signals.mean_margin).get();
        Told { sample, scores: [ours, signals.mean_logprob, signals.first_margin, margin], after: self.after(sample) }
    }
}

/// What every table needs.
struct Bench<'a> {
    pools: &'a Pools,
    shipped: Shipped,
    cloud: Shipped,
    draws: Draws,
    splits: usize,
}

impl Bench<'_> {
    fn outcome(&self, workload: Workload) -> anyhow::Result<Outcome> {
        let mut random = StdRng::seed_from_u64(5);
        let mut outcome = Outcome::default();
        for split in 0..self.splits {
            let mut told: Vec<Told> = Vec::new();
            for mixture in workload.mixtures() {
                let mut pool = mixture.of(&self.pools.test, split as u64);
                pool.shuffle(&mut random);
                let (fit, report) = pool.split_at(pool.len() / 2);
                let taught = Taught::of(fit, self)?;
                told.extend(report.iter().map(|sample| taught.told(sample)));
            }
            outcome.shares(&told);
            outcome.areas(&told, &self.draws);
        }
        Ok(outcome)
    }
}

#[derive(Default)]
struct Outcome {
    edge: Vec<f64>,
    cloud: Vec<f64>,
    escalated: Vec<f64>,
    at_share: Vec<f64>,
    best: Vec<f64>,
    parity: Vec<f64>,
    efficiency: [Figure; 4],
    lead: [Figure; 4],
    published: [Figure; 4],
}

fn number(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

impl Outcome {
    /// Accuracies by escalated share, of this split.
    fn shares(&mut self, told: &[Told]) {
        let pair = |t: &Told| Pair { score: t.scores[0], edge: t.sample.right(), cloud: t.after };
        let curve = deferral(&told.iter().map(pair).collect::<Vec<_>>());
        let n = told.len();
        let at = |escalated: usize| 100.0 * curve[n - escalated];
        let cloud = 100.0 * told.iter().filter(|t| t.sample.cloud_right).count() as f64 / n as f64;
        // A hop with no net gain is not taken, and no more than the share.
        let worth = told.iter().filter(|t| t.scores[0] < 0.0).count();
        let taken = worth.min((SHARE_MAX * n as f64) as usize);
        self.edge.push(at(0));
        self.cloud.push(cloud);
        self.escalated.push(100.0 * taken as f64 / n as f64);
        self.at_share.push(at(taken));
        self.best.push((0..=n).map(at).fold(f64::NEG_INFINITY, f64::max) - cloud);
        let parity = (0..=n).find(|count| at(*count) >= cloud - BEHIND_MAX).unwrap_or(n);
        self.parity.push(100.0 * parity as f64 / n as f64);
    }

    /// Mean accuracies over all shares, by router and draw.
    fn areas(&mut self, told: &[Told], draws: &Draws) {
        let base = |escalated: fn(&Told) -> bool| -> Vec<f64> {
            let all = Ranking::of(told.iter().map(|t| (0.0, t.sample.number, number(escalated(t)))).collect());
            draws.counts().map(|counts| all.mean(counts)).collect()
        };
        let (surer, clouds) = (base(|t| t.after), base(|t| t.sample.cloud_right));
        let above = |score: &dyn Fn(&Told) -> f64, escalated: fn(&Told) -> bool, base: &[f64]| -> Vec<f64> {
            let change = |t: &Told| (score(t), t.sample.number, number(t.sample.right()) - number(escalated(t)));
            let ranking = Ranking::of(told.iter().map(change).collect());
            draws.counts().zip(base).map(|(counts, base)| ranking.deferral_area(counts) + base).collect()
        };
        let area = |score: &dyn Fn(&Told) -> f64| above(score, |t| t.after, &surer);
        let (lots, oracle) = (area(&|_| 0.0), area(&|t| number(t.sample.right())));
        let ours = area(&|t| t.scores[0]);
        for router in 0..ROUTERS.len() {
            let theirs = area(&|t| t.scores[router]);
            let published = above(&|t| t.scores[router], |t| t.sample.cloud_right, &clouds);
            let each = |of: &dyn Fn(usize) -> f64| (0..theirs.len()).map(of).collect::<Vec<f64>>();
            self.efficiency[router].add(&each(&|i| (theirs[i] - lots[i]) / (oracle[i] - lots[i])));
            self.lead[router].add(&each(&|i| 100.0 * (ours[i] - theirs[i])));
            self.published[router].add(&each(&|i| 100.0 * (ours[i] - published[i])));
        }
    }

    fn checks(&self) -> Vec<Check> {
        let behind: Vec<f64> = self.cloud.iter().zip(&self.at_share).map(|(c, a)| c - a).collect();
        let what = format!("behind the cloud alone at ≤ {:.0} % escalated", 100.0 * SHARE_MAX);
        let mut checks = vec![
            Check::at_most(what, interval(&behind).0, BEHIND_MAX, "points"),
            Check::at_least("routing efficiency", self.efficiency[0].interval().0, EFFICIENCY_MIN, ""),
        ];
        for (router, name) in ROUTERS.iter().enumerate().skip(1) {
            let low = self.lead[router].interval().1;
            checks.push(Check::at_least(format!("lead over {name}, lower end"), low, 0.0, "points"));
        }
        checks
    }

    fn rows(&self, workload: Workload) -> Vec<Vec<String>> {
        let row = |what: String, (mean, low, high): (f64, f64, f64)| {
            let numbers = [mean, low, high].map(|v| format!("{v:.3}"));
            std::iter::once(format!("{}: {what}", workload.name())).chain(numbers).collect::<Vec<String>>()
        };
        let mut rows = vec![
            row("gateway alone, % right".to_owned(), interval(&self.edge)),
            row("cloud alone, % right".to_owned(), interval(&self.cloud)),
            row(format!("escalated for gain, at most {:.0} %", 100.0 * SHARE_MAX), interval(&self.escalated)),
            row("cascade then, % right".to_owned(), interval(&self.at_share)),
            row("cascade's best above the cloud alone, points".to_owned(), interval(&self.best)),
            row(format!("least escalated within {BEHIND_MAX} points of the cloud, %"), interval(&self.parity)),
        ];
        for (router, name) in ROUTERS.iter().enumerate() {
            rows.push(row(format!("routing efficiency, {name}"), self.efficiency[router].interval()));
        }
        for (router, name) in ROUTERS.iter().enumerate().skip(1) {
            rows.push(row(format!("lead in mean accuracy over {name}, points"), self.lead[router].interval()));
            rows.push(row(format!("the same over {name} as published"), self.published[router].interval()));
        }
        rows
    }
}
