//! The rig `guarantee`: how often does a threshold that promises at most so many wrong answers break its promise, and
//! how much does it keep of what could be kept?

use super::pool::{Files, Pools, Sample, learned};
use crate::report::{Check, Common, finish, table};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::process::ExitCode;
use tidegate_core::judge::Verdict;
use tidegate_core::risk::guaranteed;

/// Shares of wrong answers that are promised.
const LEVELS: [f64; 3] = [0.01, 0.05, 0.1];
/// Probability with which each promise is to hold.
const SURE: f64 = 0.95;
/// Draws of calibration rows.
const DRAWS: usize = 500;
/// Draws of the short version.
const DRAWS_SHORT: usize = 60;
/// Rows of each draw.
const ROWS: usize = 1_000;
/// Least share of the best threshold's coverage; reported only for the first level.
const COVERAGE_MIN: f64 = 0.85;

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
    let draws = if options.common.short { DRAWS_SHORT } else { DRAWS };
    println!(
        "Measured: answers of {} on the test prompts, which are the population; confidence fitted on the validation \
         prompts. {draws} draws of {ROWS} rows with replacement.",
        pools.edge
    );
    let (mut rows, mut checks) = (Vec::new(), Vec::new());
    for task in ["intent", "action"] {
        let population = scored(&pools, task)?;
        for level in LEVELS {
            let outcome = Outcome::of(&population, level, draws);
            checks.extend(outcome.checks(task, level, draws));
            rows.push(outcome.row(task, level, draws));
        }
    }
    let header = ["task, promised", "broken %", "coverage %", "best %", "share of best", "without a threshold"];
    println!("{}", table(&header, &rows));
    finish("guarantee", &options.common, &checks, &serde_json::json!({ "rows": rows }))
}

fn scored(pools: &Pools, task: &str) -> anyhow::Result<Vec<Verdict>> {
    let of = |pool: &'_ [Sample]| -> Vec<usize> { (0..pool.len()).filter(|i| pool[*i].row.task == task).collect() };
    let fit: Vec<&Sample> = of(&pools.validation).into_iter().map(|i| &pools.validation[i]).collect();
    let calibration = learned(&fit)?;
    let verdict = |i: usize| pools.test[i].verdict(calibration.confidence(&pools.test[i].signals).get());
    Ok(of(&pools.test).into_iter().map(verdict).collect())
}

struct Outcome {
    broken: usize,
    none: usize,
    coverage: f64,
    best: f64,
}

impl Outcome {
    fn of(population: &[Verdict], level: f64, draws: usize) -> Self {
        let mut random = StdRng::seed_from_u64(23);
        let (mut broken, mut none, mut coverage) = (0, 0, 0.0);
        for _ in 0..draws {
            let rows: Vec<Verdict> = (0..ROWS).map(|_| population[random.random_range(0..population.len())]).collect();
            let Ok(found) = guaranteed(&rows, level, SURE) else {
                none += 1;
                continue;
            };
            let (kept, risk) = truth(population, found.threshold);
            broken += usize::from(risk > level);
            coverage += kept / draws as f64;
        }
        Self { broken, none, coverage, best: best(population, level) }
    }

    fn checks(&self, task: &str, level: f64, draws: usize) -> Vec<Check> {
        let allowed = 1.0 - SURE;
        // One-sided 95 % of a binomial of that many draws.
        let bar = 100.0 * (allowed + 1.645 * (allowed * SURE / draws as f64).sqrt());
        let broken = 100.0 * self.broken as f64 / draws as f64;
        let named = format!("{task}, at most {:.0} % wrong", 100.0 * level);
        let mut checks = vec![Check::at_most(format!("{named}: broken"), broken, bar, "%")];
        if level > LEVELS[0] {
            checks.push(Check::at_least(
                format!("{named}: share of the best coverage"),
                self.share(),
                COVERAGE_MIN,
                "",
            ));
        }
        checks
    }

    fn share(&self) -> f64 {
        self.coverage / self.best
    }

    fn row(&self, task: &str, level: f64, draws: usize) -> Vec<String> {
        vec![
            format!("{task}, at most {:.0} % wrong", 100.0 * level),
            format!("{:.1}", 100.0 * self.broken as f64 / draws as f64),
            format!("{:.1}", 100.0 * self.coverage),
            format!("{:.1}", 100.0 * self.best),
            format!("{:.3}", self.share()),
            self.none.to_string(),
        ]
    }
}

/// Share of the population that a threshold keeps, and the share of wrong ones among these.
fn truth(population: &[Verdict], threshold: f64) -> (f64, f64) {
    let kept: Vec<&Verdict> = population.iter().filter(|v| v.0 >= threshold).collect();
    let wrong = kept.iter().filter(|v| !v.1).count();
    (kept.len() as f64 / population.len() as f64, wrong as f64 / kept.len().max(1) as f64)
}

/// The largest coverage of any threshold that keeps the promise on the population.
fn best(population: &[Verdict], level: f64) -> f64 {
    let fits = population.iter().map(|v| truth(population, v.0)).filter(|(_, risk)| *risk <= level);
    fits.map(|(coverage, _)| coverage).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_threshold_keeps_all_that_the_level_allows() {
        let population: Vec<Verdict> = (0..100).map(|i| (f64::from(i) / 100.0, i >= 10)).collect();
        assert!((best(&population, 0.05) - 0.94).abs() < 0.011, "{}", best(&population, 0.05));
        assert!((best(&population, 0.5) - 1.0).abs() < 1e-9);
        assert_eq!(truth(&population, 2.0), (0.0, 0.0));
    }
}
