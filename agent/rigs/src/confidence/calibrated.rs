//! The rig `confidence`: is a stated confidence true, and does it rank better than each single signal?

use super::bootstrap::{DRAWS, DRAWS_SHORT, Draws, Figure, Ranking};
use super::pool::{Files, Mixture, Pools, Sample, Shipped, interval, learned};
use crate::report::{Check, Common, finish, table};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use std::process::ExitCode;
use std::time::Instant;
use tidegate_core::features::single_signals;
use tidegate_core::judge::{BINS, Verdict, brier, calibration_error};
use tidegate_core::{Calibration, Signals};

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
    let short = options.common.short;
    let splits = if short { SPLITS_SHORT } else { SPLITS };
    let bench = Bench {
        shipped: Shipped::of(&pools)?,
        draws: Draws::of(&pools.test, if short { DRAWS_SHORT } else { DRAWS }),
        pools: &pools,
        splits,
    };
    println!("Measured: answers of {} on the test prompts; no part is modelled. {splits} splits.", pools.edge);
    let (mut checks, mut errors, mut areas) = (Vec::new(), Vec::new(), Vec::new());
    for (mixture, bar) in MIXTURES {
        let stated = bench.stated(mixture)?;
        checks.extend(bar.map(|bar| {
            Check::at_most(format!("calibration error, {}", mixture.name()), 100.0 * stated.error.0, bar, "%")
        }));
        errors.push(stated.row(mixture));
        areas.extend(bench.ranked(&[mixture])?.rows(&mixture.name()));
    }
    let together = bench.ranked(&BOTH)?;
    areas.extend(together.rows("both tasks"));
    checks.extend(together.checks());
    errors.push(foreign(&pools, splits)?);
    checks.push(Check::at_most("time of one confidence", time_us(&pools)?, TIME_BAR_US, "us"));
    let header = ["fitted and tested on", "prompts", "error", "2.5 %", "97.5 %", "perfect score's", "Brier"];
    println!("Expected calibration error, 15 bins of equal mass:\n{}", table(&header, &errors));
    println!(
        "Leads are held on both tasks together, which is what a gateway serves; each mixture is reported. Their intervals: \
         paired bootstrap over the prompts, of the mean over the splits; beside it what single halves gave."
    );
    let header =
        ["risk-coverage area × 1000", "signal", "combined", "lead", "2.5 %", "97.5 %", "halves 2.5 %", "97.5 %"];
    println!("{}", table(&header, &areas));
    finish("confidence", &options.common, &checks, &serde_json::json!({ "errors": errors, "areas": areas }))
}

/// What a gateway serves.
const BOTH: [Mixture; 2] = [Mixture::Intent(0.05), Mixture::Action];

/// What every table needs.
struct Bench<'a> {
    pools: &'a Pools,
    shipped: Shipped,
    draws: Draws,
    splits: usize,
}

/// How true the stated confidences of one mixture are.
struct Stated {
    prompts: usize,
    error: (f64, f64, f64),
    floor: f64,
    brier: f64,
}

impl Stated {
    fn row(&self, mixture: Mixture) -> Vec<String> {
        let (mean, low, high) = self.error;
        let numbers = [mean, low, high, self.floor, self.brier].map(|v| format!("{v:.4}"));
        [mixture.name(), self.prompts.to_string()].into_iter().chain(numbers).collect()
    }
}

/// Areas under the risk-coverage curve: the combined one, and per signal its own and our lead over it.
struct Areas {
    combined: Figure,
    singles: Vec<(&'static str, Figure, Figure)>,
}

impl Bench<'_> {
    fn stated(&self, mixture: Mixture) -> anyhow::Result<Stated> {
        let mut random = StdRng::seed_from_u64(7);
        let (mut errors, mut floors, mut briers, mut prompts) = (vec![], vec![], vec![], 0);
        for split in 0..self.splits {
            let mut pool = mixture.of(&self.pools.test, split as u64);
            pool.shuffle(&mut random);
            prompts = pool.len();
            let (fit, report) = pool.split_at(pool.len() / 2);
            let verdicts = verdicts(report, &self.shipped.learned(fit)?);
            errors.push(calibration_error(&verdicts, BINS));
            floors.push(calibration_error(&perfect(&verdicts, &mut random), BINS));
            briers.push(brier(&verdicts));
        }
        let mean = |values: &[f64]| interval(values).0;
        Ok(Stated { prompts, error: interval(&errors), floor: mean(&floors), brier: mean(&briers) })
    }

    /// Each mixture is calibrated by itself; then all their answers are ranked together.
    fn ranked(&self, mixtures: &[Mixture]) -> anyhow::Result<Areas> {
        let mut random = StdRng::seed_from_u64(9);
        let names = single_signals(&Signals::default()).map(|s| s.0);
        let singles = names.map(|name| (name, Figure::default(), Figure::default())).to_vec();
        let mut areas = Areas { combined: Figure::default(), singles };
        for split in 0..self.splits {
            let mut told: Vec<(&Sample, f64)> = Vec::new();
            for mixture in mixtures {
                let mut pool = mixture.of(&self.pools.test, split as u64);
                pool.shuffle(&mut random);
                let (fit, report) = pool.split_at(pool.len() / 2);
                let calibration = self.shipped.learned(fit)?;
                told.extend(report.iter().map(|s| (*s, calibration.confidence(&s.signals).get())));
            }
            areas.add(&told, &self.draws);
        }
        Ok(areas)
    }
}

impl Areas {
    /// One split's answers with our confidence in each.
    fn add(&mut self, told: &[(&Sample, f64)], draws: &Draws) {
        let areas = |score: &dyn Fn(&Sample, f64) -> f64| -> Vec<f64> {
            let error =
                |(s, confidence): &(&Sample, f64)| (score(s, *confidence), s.number, f64::from(u8::from(!s.right())));
            let ranking = Ranking::of(told.iter().map(error).collect());
            draws.counts().map(|counts| ranking.risk_area(counts)).collect()
        };
        let ours = areas(&|_, confidence| confidence);
        for (number, (_, area, lead)) in self.singles.iter_mut().enumerate() {
            let theirs = areas(&|s, _| single_signals(&s.signals)[number].1);
            area.add(&theirs);
            lead.add(&theirs.iter().zip(&ours).map(|(theirs, ours)| theirs - ours).collect::<Vec<_>>());
        }
        self.combined.add(&ours);
    }

    fn rows(&self, what: &str) -> Vec<Vec<String>> {
        let combined = self.combined.interval().0;
        let row = |(name, area, lead): &(&'static str, Figure, Figure)| {
            let ((mean, low, high), (least, most)) = (lead.interval(), lead.spread());
            let numbers =
                [area.interval().0, combined, mean, low, high, least, most].map(|v| format!("{:.2}", 1e3 * v));
            std::iter::once(format!("{what}: {name}")).chain(numbers).collect()
        };
        self.singles.iter().map(row).collect()
    }

    fn checks(&self) -> Vec<Check> {
        let check = |(name, _, lead): &(&'static str, Figure, Figure)| {
            let low = 1e3 * lead.interval().1;
            Check::at_least(format!("lead over {name}, lower end × 1000"), low, 0.0, "")
        };
        self.singles.iter().map(check).collect()
    }
}

fn verdicts(samples: &[&Sample], calibration: &Calibration) -> Vec<Verdict> {
    samples.iter().map(|s| s.verdict(calibration.confidence(&s.signals).get())).collect()
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
