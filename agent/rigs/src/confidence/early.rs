//! The rig `early`: how many tokens of escalated prompts need not be written, at the same choice of what to escalate?

use super::pool::{Files, Sample, learned};
use crate::report::{Check, Common, finish, table};
use std::process::ExitCode;
use tidegate_core::early::Floor;
use tidegate_core::judge::{Pair, deferral, deferral_area};

/// Escalated shares at which thresholds are set, on the validation prompts. The first is held to the bar.
const SHARES: [f64; 3] = [0.2, 0.1, 0.35];
/// Least share of the decode tokens of escalated prompts that is saved, in percent.
const SAVED_MIN: f64 = 20.0;
/// How far the deferral curve may lie lower anywhere, in points of accuracy: one prompt of the test pool.
const LOWER_MAX: f64 = 0.2;

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
    println!(
        "Measured: log-probabilities of each free token of {} on the device actions. Intents are one token: nothing to \
         save. Thresholds and floors come from the validation prompts. Tokens that the schema forces count as written.",
        pools.edge
    );
    let of = |pool: &'static str, samples: &[Sample]| -> Vec<Sample> {
        samples.iter().filter(|s| s.row.task == pool).cloned().collect()
    };
    let (validation, test) = (of("action", &pools.validation), of("action", &pools.test));
    let calibration = learned(&validation.iter().collect::<Vec<_>>())?;
    let score = |s: &Sample| calibration.rank(&s.signals);
    let (mut rows, mut checks) = (Vec::new(), Vec::new());
    for share in SHARES {
        let threshold = threshold(validation.iter().map(score).collect(), share);
        let kept = validation.iter().filter(|s| score(s) >= threshold);
        let kept: Vec<(f64, f64)> = kept.map(|s| (s.signals.min_logprob, s.signals.sum_logprob)).collect();
        let floor = Floor::fitted(&kept).unwrap_or(Floor::NONE);
        let outcome = Outcome::of(&test, threshold, &floor, score);
        rows.push(outcome.row(share));
        if share == SHARES[0] {
            checks.push(Check::at_least("decode tokens of escalated prompts saved", outcome.saved(), SAVED_MIN, "%"));
            checks.push(Check::at_most("deferral curve lower by", outcome.lower, LOWER_MAX, "points"));
        }
    }
    let header =
        ["share set", "escalated %", "stopped", "would be kept", "tokens saved %", "curve lower", "area lower"];
    println!("{}", table(&header, &rows));
    finish("early", &options.common, &checks, &serde_json::json!({ "rows": rows }))
}

/// The score below which this share lies.
fn threshold(mut scores: Vec<f64>, share: f64) -> f64 {
    scores.sort_by(f64::total_cmp);
    scores[((share * scores.len() as f64) as usize).min(scores.len() - 1)]
}

struct Outcome {
    escalated: usize,
    prompts: usize,
    stopped: usize,
    lost: usize,
    tokens: usize,
    saved: usize,
    lower: f64,
    area_lower: f64,
}

impl Outcome {
    fn of(test: &[Sample], threshold: f64, floor: &Floor, score: impl Fn(&Sample) -> f64) -> Self {
        let mut outcome = Self {
            escalated: 0,
            prompts: test.len(),
            stopped: 0,
            lost: 0,
            tokens: 0,
            saved: 0,
            lower: 0.0,
            area_lower: 0.0,
        };
        let (mut whole, mut early): (Vec<Pair>, Vec<Pair>) = (Vec::new(), Vec::new());
        for sample in test {
            let (score, stop) = (score(sample), floor.stops_after(&sample.row.logprobs));
            let keeps = score >= threshold;
            whole.push(sample.pair(score));
            // What was stopped is escalated before all others; among these the order is the whole answer's, of which
            // no share under the stopped one depends.
            early.push(sample.pair(if stop.is_some() { score - 10.0 } else { score }));
            outcome.lost += usize::from(keeps && stop.is_some());
            outcome.stopped += usize::from(stop.is_some());
            if !keeps {
                outcome.escalated += 1;
                outcome.tokens += sample.row.tokens as usize;
                outcome.saved += stop.map_or(0, |at| sample.row.logprobs.len() - at);
            }
        }
        // Only shares from the stopped one on can be chosen: with fewer escalations the floor would be another.
        let most_kept = test.len() - outcome.stopped;
        let (before, after) = (deferral(&whole), deferral(&early));
        let lower = before.iter().zip(&after).take(most_kept + 1).map(|(b, a)| 100.0 * (b - a));
        outcome.lower = lower.fold(0.0, f64::max);
        outcome.area_lower = 100.0 * (deferral_area(&whole) - deferral_area(&early));
        outcome
    }

    fn saved(&self) -> f64 {
        100.0 * self.saved as f64 / self.tokens.max(1) as f64
    }

    fn row(&self, share: f64) -> Vec<String> {
        vec![
            format!("{:.0} %", 100.0 * share),
            format!("{:.1}", 100.0 * self.escalated as f64 / self.prompts as f64),
            self.stopped.to_string(),
            self.lost.to_string(),
            format!("{:.1}", self.saved()),
            format!("{:.3}", self.lower),
            format!("{:.3}", self.area_lower),
        ]
    }
}
