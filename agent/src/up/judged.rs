//! The latest judgements, for whoever asks why: numbers and rules, no text. Bounded: the oldest is forgotten.

use serde_json::{Value, json};
use std::collections::VecDeque;
use tidegate_core::knowledge::{Judgement, Rule};
use tidegate_core::route::Way;
use tidegate_schemas::JobId;

/// Judgements that are remembered: some hours of a busy gateway, 300 KiB.
const KEPT_MAX: usize = 1_024;

/// One of them.
struct Told {
    job: JobId,
    judgement: Judgement,
    way: Way,
    left_ms: Option<u64>,
}

/// The latest judgements.
#[derive(Default)]
pub(super) struct Judged(VecDeque<Told>);

impl Judged {
    /// Remembers one.
    pub(super) fn add(&mut self, job: JobId, judgement: Judgement, way: Way, left_ms: Option<u64>) {
        if self.0.len() == KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Told { job, judgement, way, left_ms });
    }

    /// What was thought of a job.
    pub(super) fn explain(&self, job: JobId) -> Value {
        let Some(told) = self.0.iter().rev().find(|told| told.job == job) else {
            return json!({ "error": format!("no answer of job {job} was judged lately, {KEPT_MAX} are remembered") });
        };
        let (j, s) = (&told.judgement, &told.judgement.signals);
        let (way, reason) = match told.way {
            Way::Keep(reason) => ("keep", reason),
            Way::Provisional(reason) => ("keep as provisional and escalate", reason),
            Way::Escalate(reason) => ("escalate", reason),
            Way::Fail(reason) => ("fail", reason),
        };
        json!({
            "job": job, "way": way, "reason": reason.as_str(), "rule": rule(j),
            "confidence": j.confidence.get(), "shipped": j.shipped.get(),
            "threshold": j.threshold, "gain": j.gain, "price": j.price, "left_ms": told.left_ms,
            "signals": {
                "sum_logprob": s.sum_logprob, "min_logprob": s.min_logprob, "mean_logprob": s.mean_logprob,
                "low_logprob": s.low_logprob, "first_margin": s.first_margin, "min_margin": s.min_margin,
                "first_entropy": s.first_entropy, "max_entropy": s.max_entropy, "first_energy": s.first_energy,
                "max_removed": s.max_removed, "tokens": s.tokens, "forced": s.forced,
            }
        })
    }
}

/// The rule in words.
fn rule(judgement: &Judgement) -> &'static str {
    match (judgement.rule, judgement.sure) {
        (Rule::Threshold, true) => "at or over the configured threshold",
        (Rule::Threshold, false) => "under the configured threshold",
        (Rule::Guarantee, true) => "at or over the threshold that the labelled answers support",
        (Rule::Guarantee, false) => "under the threshold that the labelled answers support",
        (Rule::Share, true) => "surer than the share that is escalated",
        (Rule::Share, false) => "within the share that is escalated",
        (Rule::ShareSpent, _) => "within the share that is escalated, but it is spent",
        (Rule::Unsupported, _) => "the labelled answers support no threshold for this promise",
        (Rule::Audit, _) => "sure enough, and drawn to be looked at by the cloud",
    }
}
