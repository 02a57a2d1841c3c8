//! The rig `early`: how many tokens of escalated prompts need not be written, at the same choice of what to escalate?
//!
//! "At an equal deferral curve": each escalated share that one may set has its own threshold and its own floor, both from
//! validation prompts, and is one point of the curve with early escalation. What is stopped though it would have been
//! kept is escalated, and the point is compared with the plain curve at the very share that came out.

use super::pool::{Files, Sample, Shipped};
use crate::report::{Check, Common, finish, table};
use std::process::ExitCode;
use tidegate_core::early::{Floor, Trail};
use tidegate_core::judge::{Pair, deferral};

/// Escalated shares that are set, in percent: from 2 to 60 by 2.
const SHARES: std::ops::RangeInclusive<u32> = 1..=30;
/// Percent from one share to the next.
const STEP: u32 = 2;
/// The share whose savings are held to the bar, in percent.
const SHARE_BAR: u32 = 20;
/// Shares that are shown, in percent.
const SHOWN: [u32; 5] = [6, 10, SHARE_BAR, 36, 50];
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
    let shipped = Shipped::of(&pools)?;
    let of = |samples: &[Sample]| -> anyhow::Result<Vec<Scored>> {
        let actions: Vec<&Sample> = samples.iter().filter(|s| s.row.task == "action").collect();
        actions.into_iter().map(|s| Ok(Scored { score: shipped.confidence(s)?, sample: s.clone() })).collect()
    };
    let (validation, test) = (of(&pools.validation)?, of(&pools.test)?);
    let plain = deferral(&test.iter().map(|s| s.sample.pair(s.score)).collect::<Vec<Pair>>());
    let (mut rows, mut lower, mut sum, mut points) = (Vec::new(), 0.0_f64, 0.0, 0.0);
    let mut saved = f64::NAN;
    for share in SHARES.map(|number| number * STEP) {
        let point = Point::of(&validation, &test, &plain, f64::from(share) / 100.0);
        lower = lower.max(point.lower);
        (sum, points) = (sum + point.lower, points + 1.0);
        if share == SHARE_BAR {
            saved = point.saved();
        }
        if SHOWN.contains(&share) {
            rows.push(point.row(share));
        }
    }
    let checks = [
        Check::at_least("decode tokens of escalated prompts saved", saved, SAVED_MIN, "%"),
        Check::at_most("deferral curve lower by, anywhere", lower, LOWER_MAX, "points"),
    ];
    let header = [
        "share set",
        "escalated %",
        "stopped",
        "would be kept",
        "tokens saved %",
        "if product alone ruled %",
        "all but the first %",
        "curve lower",
    ];
    println!("{}", table(&header, &rows));
    println!("Mean over the curve: {:.4} points lower.", sum / points);
    finish("early", &options.common, &checks, &serde_json::json!({ "rows": rows, "mean_lower": sum / points }))
}

/// An answer with our confidence in it.
struct Scored {
    score: f64,
    sample: Sample,
}

/// What one escalated share comes to.
struct Point {
    escalated: usize,
    prompts: usize,
    stopped: usize,
    lost: usize,
    tokens: usize,
    saved: usize,
    /// What would be saved where the product of probabilities alone decided: it is known to be too low at once.
    crossing: usize,
    /// What would be saved by who knows the end from the first token.
    first: usize,
    lower: f64,
}

impl Point {
    fn of(validation: &[Scored], test: &[Scored], plain: &[f64], share: f64) -> Self {
        let at = quantile(validation.iter().map(|s| s.score).collect(), share);
        let sums = |s: &Scored| s.sample.signals.sum_logprob;
        let product = quantile(validation.iter().map(sums).collect(), share);
        let kept = validation.iter().filter(|s| s.score >= at);
        let trail = |s: &Scored| Trail::of(&s.sample.row.logprobs, s.sample.signals.sum_logprob);
        let floor = Floor::fitted(&kept.map(trail).collect::<Vec<_>>()).unwrap_or(Floor::NONE);
        let crossing = Floor { sums: [product; tidegate_core::early::STEPS] };
        let mut point = Self {
            escalated: 0,
            prompts: test.len(),
            stopped: 0,
            lost: 0,
            tokens: 0,
            saved: 0,
            crossing: 0,
            first: 0,
            lower: 0.0,
        };
        let mut right = 0;
        for Scored { score, sample } in test {
            let logprobs = &sample.row.logprobs;
            let left = |stop: Option<usize>| stop.map_or(0, |at| logprobs.len() - at);
            let stop = floor.stops_after(logprobs);
            let escalated = *score < at || stop.is_some();
            right += usize::from(if escalated { sample.cloud_right } else { sample.right() });
            point.stopped += usize::from(stop.is_some());
            point.lost += usize::from(*score >= at && stop.is_some());
            if escalated {
                point.escalated += 1;
                point.tokens += sample.row.tokens as usize;
                point.saved += left(stop);
                point.crossing += left(crossing.stops_after(logprobs));
                point.first += logprobs.len().saturating_sub(1);
            }
        }
        let accuracy = right as f64 / test.len() as f64;
        point.lower = 100.0 * (plain[test.len() - point.escalated] - accuracy);
        point
    }

    fn saved(&self) -> f64 {
        self.share_of_tokens(self.saved)
    }

    fn share_of_tokens(&self, tokens: usize) -> f64 {
        100.0 * tokens as f64 / self.tokens.max(1) as f64
    }

    fn row(&self, share: u32) -> Vec<String> {
        vec![
            format!("{share} %"),
            format!("{:.1}", 100.0 * self.escalated as f64 / self.prompts as f64),
            self.stopped.to_string(),
            self.lost.to_string(),
            format!("{:.1}", self.saved()),
            format!("{:.1}", self.share_of_tokens(self.crossing)),
            format!("{:.1}", self.share_of_tokens(self.first)),
            format!("{:.3}", self.lower),
        ]
    }
}

/// The value below which this share lies.
fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((share * values.len() as f64) as usize).min(values.len() - 1)]
}
