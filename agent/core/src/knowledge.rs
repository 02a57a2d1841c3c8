//! What a gateway knows of one task and its model: the calibration, the labelled answers that back a promise, what the
//! cloud is worth, what was learned since. From it and the task's wish comes the one question of every answer: is this
//! sure enough? Invariants: a promise is never kept by less than its guarantee allows, whatever was learned; broken
//! signals are no confidence; without calibration the model's own probability is taken as it is, and no promise holds.

use crate::confidence::{Calibration, Confidence};
use crate::early::{Floor, Trail};
use crate::event::Signals;
use crate::gain::Gain;
use crate::judge;
use crate::learn::{Learner, audit_chance};
use crate::risk::{Unsupported, guaranteed};
use crate::share::{self, Share};
use crate::site::{Keep, Learning};

/// Most labelled answers that are held for one task: more do not make a promise noticeably cheaper.
pub const EVIDENCE_MAX: usize = 10_000;

/// A labelled answer that the calibration was not fitted on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// Its confidence, 0 to 1.
    pub confidence: f64,
    /// Whether it was right.
    pub right: bool,
    /// How the sum of its log-probabilities fell.
    pub trail: Trail,
}

/// Where a confidence is enough.
#[derive(Debug, Clone, PartialEq)]
enum Bar {
    /// From here on; the second one holds whatever was learned.
    At { corrected: f64, shipped: f64 },
    /// Among the surest so many.
    Share(Box<Share>),
    /// Nowhere, and why.
    Nowhere(Unsupported),
}

/// Which rule decided, for whoever asks why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// A threshold as configured.
    Threshold,
    /// The threshold that the labelled answers support.
    Guarantee,
    /// The threshold that the escalated share has now.
    Share,
    /// The escalated share is spent: kept, though less sure.
    ShareSpent,
    /// The labelled answers support no threshold.
    Unsupported,
    /// Sure enough, and drawn to be looked at by the cloud.
    Audit,
}

/// What is thought of one answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// What it was made from.
    pub signals: Signals,
    /// As the calibration says.
    pub shipped: Confidence,
    /// As the labels since have corrected it: what the answer states.
    pub confidence: Confidence,
    /// Where the bar stood; infinite where nothing is enough.
    pub threshold: f64,
    /// Whether it is sure enough.
    pub sure: bool,
    /// By which rule.
    pub rule: Rule,
    /// Expected change of the probability of being right by asking the cloud, -1 to 1.
    pub gain: f64,
    /// The price of escalating at that moment, in the same units; the dispatcher knows it.
    pub price: f64,
}

/// Everything that is known of one task.
#[derive(Debug, Clone)]
pub struct Knowledge {
    calibration: Calibration,
    evidence: Vec<Evidence>,
    gain: Gain,
    learner: Learner,
}

impl From<Calibration> for Knowledge {
    fn from(calibration: Calibration) -> Self {
        Self { calibration, evidence: Vec::new(), gain: Gain::default(), learner: Learner::default() }
    }
}

impl Knowledge {
    /// A calibration with the answers that back promises and what the cloud is worth. Evidence over [`EVIDENCE_MAX`] is
    /// left out.
    #[must_use]
    pub fn new(calibration: Calibration, mut evidence: Vec<Evidence>, gain: Gain) -> Self {
        evidence.truncate(EVIDENCE_MAX);
        Self { calibration, evidence, gain, learner: Learner::default() }
    }

    /// The calibration.
    #[must_use]
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The confidence of an answer, as the calibration says.
    #[must_use]
    pub fn confidence(&self, signals: &Signals) -> Confidence {
        self.calibration.confidence(signals)
    }

    /// What was learned before a restart.
    #[must_use]
    pub fn with_learned(mut self, learner: Learner, gain: Gain) -> Self {
        (self.learner, self.gain) = (learner, gain);
        self
    }

    /// What has been learned, for a file.
    #[must_use]
    pub fn learned(&self) -> (Learner, Gain) {
        (self.learner, self.gain)
    }
}

/// One task's sense of its own answers.
#[derive(Debug, Clone)]
pub(crate) struct Sense {
    known: Knowledge,
    bar: Bar,
    learning: Learning,
    floor: Option<Floor>,
}

impl Sense {
    /// What the task wishes, as far as it is known how.
    pub(crate) fn new(known: Knowledge, keep: Keep, learning: Learning) -> Self {
        let bar = bar(&known, keep);
        let floor = match &bar {
            Bar::At { shipped, corrected } => floor(&known.evidence, shipped.max(*corrected)),
            Bar::Share(_) | Bar::Nowhere(_) => None,
        };
        Self { known, bar, learning, floor }
    }

    /// What is known, for a file.
    pub(crate) fn known(&self) -> &Knowledge {
        &self.known
    }

    /// Why no promise can be kept, if so.
    pub(crate) fn unsupported(&self) -> Option<Unsupported> {
        if let Bar::Nowhere(why) = self.bar { Some(why) } else { None }
    }

    /// Where an answer is hopeless while it is written.
    pub(crate) fn floor(&self) -> Option<Floor> {
        self.floor
    }

    /// Judges an answer. `unit` is a number in 0..1 that no device can foresee: it draws audits and breaks ties.
    pub(crate) fn judge(&mut self, signals: &Signals, unit: f64) -> Judgement {
        let shipped = self.known.calibration.confidence(signals);
        let confidence = match self.learning {
            Learning::Off => shipped,
            Learning::On { .. } => self.known.learner.correct(shipped),
        };
        let (sure, threshold, rule) = self.stands(shipped, confidence, unit);
        let gain = self.known.gain.of(confidence);
        let judgement = Judgement { signals: *signals, shipped, confidence, threshold, sure, rule, gain, price: 0.0 };
        match self.learning {
            Learning::On { audit_share }
                if sure && rule != Rule::ShareSpent && unit < audit_chance(confidence, audit_share) =>
            {
                Judgement { sure: false, rule: Rule::Audit, ..judgement }
            }
            _ => judgement,
        }
    }

    fn stands(&mut self, shipped: Confidence, confidence: Confidence, unit: f64) -> (bool, f64, Rule) {
        match &mut self.bar {
            Bar::At { corrected, shipped: least } => {
                let rule = if *least > 0.0 { Rule::Guarantee } else { Rule::Threshold };
                let sure = confidence.get() >= *corrected && shipped.get() >= *least;
                (sure, corrected.max(*least), rule)
            }
            Bar::Share(holder) => {
                let threshold = holder.threshold();
                match holder.decide(confidence.get(), unit) {
                    share::Verdict::Keep => (true, threshold, Rule::Share),
                    share::Verdict::Escalate => (false, threshold, Rule::Share),
                    share::Verdict::Spent => (true, threshold, Rule::ShareSpent),
                }
            }
            Bar::Nowhere(_) => (false, f64::INFINITY, Rule::Unsupported),
        }
    }

    /// Whether asking the cloud is worth it. A promise is not broken for want of gain.
    pub(crate) fn worth(&self, judgement: &Judgement) -> bool {
        match judgement.rule {
            Rule::Guarantee | Rule::Unsupported | Rule::Audit => true,
            Rule::Threshold | Rule::Share | Rule::ShareSpent => judgement.gain > 0.0 || !self.known.gain.is_measured(),
        }
    }

    /// Whether what the cloud may mend is worth less than the price of asking. A promise is kept at any price.
    pub(crate) fn too_dear(&self, judgement: &Judgement, value: f64) -> bool {
        match judgement.rule {
            Rule::Guarantee | Rule::Unsupported | Rule::Audit => false,
            Rule::Threshold | Rule::Share | Rule::ShareSpent => {
                judgement.price > 0.0 && judgement.gain * value <= judgement.price
            }
        }
    }

    /// The cloud's answer is a label for ours.
    pub(crate) fn learn(&mut self, judgement: &Judgement, agree: bool, cloud: Option<f64>) {
        let Learning::On { audit_share } = self.learning else { return };
        let chance = audit_chance(judgement.confidence, audit_share).max(f64::MIN_POSITIVE);
        let weight = if judgement.rule == Rule::Audit { 1.0 / chance } else { 1.0 };
        self.known.learner.learn(judgement.shipped, agree, weight);
        self.known.gain.learn(agree, judgement.confidence, cloud);
    }
}

fn bar(known: &Knowledge, keep: Keep) -> Bar {
    match keep {
        Keep::Threshold(threshold) => Bar::At { corrected: threshold, shipped: 0.0 },
        Keep::EscalateShare(share) => Bar::Share(Box::new(Share::new(share))),
        Keep::WrongAtMost { level, sure } => {
            let rows: Vec<judge::Verdict> = known.evidence.iter().map(|e| (e.confidence, e.right)).collect();
            match guaranteed(&rows, level, sure) {
                Ok(found) => Bar::At { corrected: found.threshold, shipped: found.threshold },
                Err(why) => Bar::Nowhere(why),
            }
        }
    }
}

fn floor(evidence: &[Evidence], threshold: f64) -> Option<Floor> {
    let kept = evidence.iter().filter(|e| e.confidence >= threshold);
    Floor::fitted(&kept.map(|e| e.trail).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEARN: Learning = Learning::On { audit_share: 0.0 };

    fn signals(probability: f64) -> Signals {
        let ln = probability.ln();
        Signals { sum_logprob: ln, min_logprob: ln, mean_logprob: ln, tokens: 1, ..Signals::default() }
    }

    /// Answers whose confidence is true.
    fn evidence(count: usize) -> Vec<Evidence> {
        let one = |i: usize| {
            let confidence = (i % 100) as f64 / 100.0;
            let right = (i / 100 * 37 + i * 61) % 100 < i % 100;
            Evidence { confidence, right, trail: Trail::flat(2.0 * (confidence - 1.0)) }
        };
        (0..count).map(one).collect()
    }

    fn known(count: usize) -> Knowledge {
        Knowledge::new(Calibration::identity(), evidence(count), Gain::default())
    }

    #[test]
    fn a_threshold_is_as_configured() {
        let mut sense = Sense::new(known(0), Keep::Threshold(0.8), LEARN);
        assert!(sense.judge(&signals(0.9), 0.5).sure);
        let doubt = sense.judge(&signals(0.7), 0.5);
        assert!(!doubt.sure && doubt.rule == Rule::Threshold && sense.worth(&doubt), "{doubt:?}");
    }

    #[test]
    fn a_promise_without_evidence_keeps_nothing_and_says_why() {
        let keep = Keep::WrongAtMost { level: 0.1, sure: 0.95 };
        let mut sense = Sense::new(known(10), keep, LEARN);
        let judgement = sense.judge(&signals(0.999), 0.5);
        assert!(!judgement.sure && judgement.rule == Rule::Unsupported);
        assert!(sense.unsupported().is_some_and(|why| why.to_string().contains("10 labelled")));
        let mut sense = Sense::new(known(4_000), keep, LEARN);
        assert!(sense.judge(&signals(0.999), 0.5).sure && sense.unsupported().is_none());
    }

    #[test]
    fn learning_never_lowers_a_guarantee() {
        let mut sense = Sense::new(known(4_000), Keep::WrongAtMost { level: 0.1, sure: 0.9 }, LEARN);
        let threshold = sense.judge(&signals(0.5), 0.5).threshold;
        let below = signals(threshold - 0.02);
        for _ in 0..500 {
            let judgement = sense.judge(&below, 0.5);
            sense.learn(&judgement, true, Some(1.0));
        }
        let judgement = sense.judge(&below, 0.5);
        assert!(judgement.confidence.get() > threshold && !judgement.sure, "{judgement:?}");
    }

    #[test]
    fn an_audit_is_drawn_among_the_sure_and_never_with_learning_off() {
        let learning = Learning::On { audit_share: 0.02 };
        let mut sense = Sense::new(known(0), Keep::Threshold(0.8), learning);
        assert_eq!(sense.judge(&signals(0.9), 0.01).rule, Rule::Audit);
        assert!(sense.judge(&signals(0.9), 0.03).sure);
        let mut off = Sense::new(known(0), Keep::Threshold(0.8), Learning::Off);
        assert!(off.judge(&signals(0.9), 0.0).sure);
        let doubt = off.judge(&signals(0.5), 0.5);
        off.learn(&doubt, false, None);
        assert_eq!(off.known().learned().0, Learner::default());
    }

    #[test]
    fn a_hop_without_gain_is_not_worth_it() {
        let useless = Gain::measured(&vec![(false, false); 2_000]);
        let known = Knowledge::new(Calibration::identity(), Vec::new(), useless);
        let mut sense = Sense::new(known, Keep::Threshold(0.8), LEARN);
        let doubt = sense.judge(&signals(0.5), 0.5);
        assert!(!doubt.sure && !sense.worth(&doubt), "{doubt:?}");
    }

    #[test]
    fn broken_signals_are_no_confidence() {
        let mut sense = Sense::new(known(0), Keep::Threshold(0.1), LEARN);
        let broken = Signals { sum_logprob: f64::NAN, ..signals(0.9) };
        assert!(!sense.judge(&broken, 0.5).sure);
    }
}
